"""The vocoder's training steps as the papers have them; as tests/reference.py, whose rules hold."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import torch
from torch import Tensor, nn

from tests.reference import generator, segment
from tests.reference_optimizer import AdamW, Average, learning_rate

BANDS = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}


def multi_scale_mel_error(wav: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """Kumar et al. 2023, arXiv:2306.06546, section 3.4: windows, bands, hops of a quarter."""
    errors = []
    for size, bands in BANDS.items():
        bank = librosa.filters.mel(sr=sample_rate, n_fft=size, n_mels=bands)
        logs = []
        for one in (wav, target):
            around = (size - size // 4) // 2
            padded = nn.functional.pad(one[:, None], (around, around), mode="reflect")[:, 0]
            frames = padded.unfold(1, size, size // 4)  # [B, frames, size]
            window = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(size) / size)
            spectrum = torch.fft.rfft(frames * window)
            magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
            logs.append((magnitude @ torch.from_numpy(bank).T).clamp(min=1e-5).log())
        errors.append((logs[0] - logs[1]).abs().mean())
    return sum(errors) / len(errors)


class Vocoder:
    """Kong et al. 2020, arXiv:2010.05646, section 2, with the hinge losses of Siuzdak 2023,
    arXiv:2306.00814, section 3.4; every mean is over discriminators, and over layers.
    """

    def __init__(
        self,
        config: dict,
        generator: nn.Module,
        discriminators: nn.Module,
        clips: Sequence[tuple[np.ndarray, np.ndarray]],
        stream,
    ) -> None:
        self.train, self.loss = config["train"], config["model"]["loss"]
        self.mel, self.clips, self.stream = config["preprocess"], clips, stream
        self.generator, self.discriminators = generator, discriminators
        self.optimizer = AdamW(generator.parameters(), self.train)
        self.critic = AdamW(discriminators.parameters(), self.train)
        self.average = Average(generator.parameters(), self.train["ema_decay"])
        self.seen: list[dict[str, float]] = []

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Aligned crops of the clips of a step, [B, n_mel, frames] and [B, samples]."""
        frames, hop, size = (
            self.mel["segment_frames"],
            self.mel["hop_size"],
            self.train["batch_size"],
        )
        mels, wavs = [], []
        for position in range(step * size, (step + 1) * size):
            (mel, pcm), start = self.clips[self.stream.clip(position)], 0
            if mel.shape[1] > frames:
                start = int(self.stream.random(position).integers(mel.shape[1] - frames + 1))
            mels.append(segment(mel, start, frames))
            wav = pcm[start * hop : (start + frames) * hop].astype(np.float32) / 32767
            wavs.append(np.pad(wav, (0, frames * hop - len(wav))))
        return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(wavs))

    def step(self, step: int) -> None:
        loss, rate = self.loss, learning_rate(self.train, step)
        mel, real = self.batch(step)
        random = generator(self.train["random_seed"], "vocoder", step)
        fake, other = self.generator(mel, torch.randn((2, *real.shape), generator=random))
        rate_of_mel = self.mel["sample_rate"]
        error = multi_scale_mel_error(fake, real, rate_of_mel) / 2
        error = error + multi_scale_mel_error(other, real, rate_of_mel) / 2
        # Gritsenko et al. 2020, arXiv:2008.01160, eq. 5
        energy = error - multi_scale_mel_error(fake, other, rate_of_mel) / 2
        total, seen = loss["mel_weight"] * energy, {"energy": energy, "mel_loss": error}
        plays = step >= loss["disc_start"]
        if plays:
            judges = [*self.discriminators.periods, *self.discriminators.resolutions]
            adversarial, matching, hinges, count = 0.0, 0.0, 0.0, 0
            for judge in judges:
                logits, layers = judge(fake)
                logits_real, layers_real = judge(real)
                adversarial = adversarial - logits.mean()  # Lim & Ye 2017, arXiv:1705.02894, eq. 11
                for layer, layer_real in zip(layers, layers_real, strict=True):
                    matching = matching + (layer - layer_real.detach()).abs().mean()  # eq. 5
                    count += 1
                made, _ = judge(fake.detach())
                hinges = hinges + (1 - logits_real).clamp(min=0).mean()  # eq. 10
                hinges = hinges + (1 + made).clamp(min=0).mean()
            adversarial, matching = adversarial / len(judges), matching / count
            d_loss = hinges / len(judges)
            total = total + loss["adversarial_weight"] * adversarial
            total = total + loss["feature_weight"] * matching
            seen |= {"g_loss": adversarial, "feature_loss": matching, "d_loss": d_loss}
            of_critic = self.critic.gradients(d_loss)
        self.optimizer.step(self.optimizer.gradients(total), rate)
        if plays:
            self.critic.step(of_critic, rate)
        self.average.step(step)
        seen["learning_rate"] = torch.tensor(rate)
        self.seen.append({name: float(value.detach()) for name, value in seen.items()})
