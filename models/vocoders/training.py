"""What the loop in bins/tta/train.py needs to know of a vocoder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from config.schema import Config
from models.base.task import Loss, Sample
from models.tta.autoencoder.saved import load_vae, save_vae
from models.vocoders.discriminators import Discriminators
from models.vocoders.load import GRIFFIN_LIM, load_vocoder
from models.vocoders.losses import (
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from models.vocoders.saved import VocoderSettings, save_trained, take_weights
from modules.ema import EMA
from modules.optimizer import adamw, make_optimizer
from processors.dataset import SILENCE, distinct_clips, mel_frames, read_batch, training_batches
from processors.json_lines import Mapped
from processors.kept_records import kept_records
from processors.mel import MelExtractor, check_mel
from processors.metadata import mel_path
from processors.stream import ClipStream, Share
from processors.wav_dataset import WavDataset, pcm_path, read_crop
from utils.checkpoint import load_tensors, load_weights, read_json, save_tensors
from utils.device import to_device
from utils.run_folder import find_weights
from utils.seeds import generator

SAMPLES = 4  # clips
MOST_SECONDS = 10  # of a clip, to validate with or to hear
WON_LOSS = 0.02  # of the discriminators; 2 where they know nothing


class VocoderTraining:
    """Generator (Vocos or HiFi-GAN) and discriminators: a models/base Task."""

    shown = ("mel_loss", "d_loss")

    def __init__(
        self, config: Config, accelerator: Accelerator, share: Share, checkpoint: Path | None
    ) -> None:
        """`checkpoint` is the folder to go on from; None starts anew."""
        self.config, self.accelerator, self.share = config, accelerator, share
        self.mel, self.loss = config.preprocess.mel, config.model.loss
        self.train_records, self.valid_records = (
            kept_records(config, split, accelerator, distinct_clips) for split in ("train", "valid")
        )
        self.settings = VocoderSettings.of(config)
        self.generator = self.settings.make()
        sizes = config.model.discriminators
        self.discriminators = Discriminators(sizes.period_channels, sizes.resolution_channels)
        self.summary: dict[str, str] = {}
        self.notes: list[str] = []
        self.begun_from: Path | None = None
        self.made_from: dict[str, object] = {}
        self._take_vae(checkpoint)
        if checkpoint is None and config.train.init_from:
            name = config.train.init_from
            start = take_weights(self.generator, name, config.log_dir, self.mel)
            self.begun_from = start
            self.notes.append(f"starts from the weights in {start}")
        if config.train.max_steps <= self.loss.disc_start:
            self.notes.append(
                f"the discriminators never take part: train.max_steps {config.train.max_steps} is"
                f" not above model.loss.disc_start {self.loss.disc_start}"
            )
        self.joint_step = self.loss.disc_start
        self._to_device()
        if checkpoint:
            self._restore(checkpoint)

    def _take_vae(self, checkpoint: Path | None) -> None:
        """The VAE whose reconstructions are the mels to learn from, if there is one.

        A run keeps the one that it began with, of which each checkpoint has a copy.
        """
        self.vae, path = None, self.config.model.autoencoder_path
        if checkpoint:
            folder = checkpoint / "vae" if (checkpoint / "vae").is_dir() else None
        else:
            folder = find_weights(path, self.config.log_dir, "AutoencoderKL") if path else None
        if folder is None:
            return
        saved = load_vae(folder)
        check_mel(self.mel, saved.mel, folder)
        self.vae = saved.vae.to(self.accelerator.device)
        taken = {"folder": str(folder.resolve()), "fingerprint": saved.fingerprint}
        if checkpoint:
            taken = read_json(checkpoint / "config.json")["made_with"].get("autoencoder", taken)
        self.made_from = {"autoencoder": taken}
        self.notes.append(f"learns from what the VAE in {taken['folder']} makes of the mels")

    def _to_device(self) -> None:
        """Moves the networks there; makes optimizers and average, wraps for several processes."""
        train, device = self.config.train, self.accelerator.device
        self.trainable = {
            "generator": self.generator.to(device),
            "discriminator": self.discriminators.to(device),
        }
        self.optimizers = {
            "generator": make_optimizer(self.generator, train),
            "discriminator": adamw(self.discriminators.parameters(), train.adam),
        }
        self.ema = EMA(self.generator, train.ema_decay) if train.ema_decay else None
        self.mel_loss = MultiScaleMelLoss(self.mel.sample_rate)
        self.griffin_lim = load_vocoder(GRIFFIN_LIM, self.mel)
        self._generator = self.accelerator.prepare_model(self.generator)
        self._discriminators = self.accelerator.prepare_model(self.discriminators)
        self.wrapped = (self._generator, self._discriminators)

    # ------------------------------------------------------------ data

    def prepare_data(self, cache: Path) -> None:
        """Sees to it that every sound was kept, before the first step; needs no cache."""
        self.frames = self.config.preprocess.segment_frames
        self.stream = ClipStream(len(self.train_records), self.config.train.random_seed)
        valid = self.valid_records[: self.config.train.valid_clips]
        for record in itertools.chain(self.train_records, valid):
            path = pcm_path(self.config, record)
            if not path.is_file():
                read_crop(path, 0, 0)  # which says how sounds are kept

    def batches(self, step: int) -> Iterator[dict]:
        """{"mel": [B, 1, n_mel, frames], "wav": [B, samples], "uid": names}, from `step` on."""
        mels = Mapped(partial(mel_path, self.config), self.train_records)
        wavs = Mapped(partial(pcm_path, self.config), self.train_records)
        names = Mapped(itemgetter("Uid"), self.train_records)
        dataset = WavDataset(mels, wavs, names, self.frames, self.mel.hop_size, self.stream)
        return training_batches(dataset, self.share, step, self.config.train.num_workers)

    def clips_of(self, step: int) -> list[str]:
        """Names of the whole batch of a step, over all processes."""
        return [self.train_records[number]["Uid"] for number in self.share.clips(step, self.stream)]

    @torch.no_grad()
    def _given(self, mel: Tensor) -> Tensor:
        """What the vocoder gets to read of mels: [B, 1, n_mel, frames] -> [B, n_mel, frames].

        With a VAE that is what it makes of them, at the posterior's mode.
        """
        mel = to_device(mel, self.accelerator.device)
        if self.vae is None:
            return mel[:, 0]
        frames = mel.shape[3]
        whole = F.pad(mel, (0, -frames % self.vae.config.downsampling), value=SILENCE)
        with self.accelerator.autocast():
            return self.vae.decode(self.vae.encode(whole).mode())[:, 0, :, :frames].float()

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, micro: int) -> Iterator[Loss]:
        """The generator's loss, and from disc_start on the discriminators'.

        Both come from one wav and one look of the discriminators at it and at the real one.
        """
        real = to_device(batch["wav"], self.accelerator.device)
        fakes = self._generator(self._given(batch["mel"]), self._noise(step, micro, real.shape[1]))
        energy, mel_loss = self.mel_loss.energy(fakes, real)
        generator_loss = self.loss.mel_weight * energy
        metrics = {"energy": energy, "mel_loss": mel_loss}
        if step < self.loss.disc_start:
            yield Loss("generator", generator_loss, _detached(metrics), {})
            return
        # The discriminators see a leaf copy of the wav: the gradient of what they say of it stops
        # there, and goes on through the generator with the rest of the loss.
        fake = fakes[0]
        seen = fake.detach().requires_grad_()
        of_real, of_fake = self._discriminators(real, seen)
        metrics["g_loss"] = adversarial_loss(of_fake)
        metrics["feature_loss"] = feature_matching_loss(of_real, of_fake)
        said = self.loss.adversarial_weight * metrics["g_loss"]
        said = said + self.loss.feature_weight * metrics["feature_loss"]
        (gradient,) = torch.autograd.grad(said, seen, retain_graph=True)
        generator_loss = generator_loss + (fake * gradient).sum()
        yield Loss("generator", generator_loss, _detached(metrics), {})

        d_loss = discriminator_loss(of_real, of_fake)
        yield Loss("discriminator", d_loss, _detached({"d_loss": d_loss}), {})

    def _noise(self, step: int, micro: int, samples: int) -> Tensor:
        """This micro-batch's slice of the whole batch's noise, [2, B, samples]."""
        device, seed = self.accelerator.device, self.config.train.random_seed
        random = generator(device, seed, "vocoder", step)
        shape = (2, self.share.batch_size, samples)
        noise = torch.randn(shape, generator=random, device=device)
        return noise[:, self.share.slice(micro)]

    def after_step(self, step: int, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Nothing changes but weights."""
        return {}

    def troubles(self, metrics: dict[str, float]) -> dict[str, str]:
        """Discriminators that win outright."""
        d_loss = metrics.get("d_loss", 2.0)
        if d_loss >= WON_LOSS:
            return {}
        return {
            "discriminator": (
                f"the discriminators win outright, d_loss is {d_loss:.2g} (2: they know nothing);"
                " try a smaller model.discriminators.period_channels, or a later"
                " model.loss.disc_start so that they meet better sounds"
            )
        }

    # ------------------------------------------------------------ looking and listening

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean energy distance and mel error over the first seconds of the clips of valid.json."""
        clips = self.valid_records[: self.config.train.valid_clips]
        sums = torch.zeros(3, device=self.accelerator.device)
        for clip in clips[self.share.rank :: self.share.world_size]:
            mel, wav = self._valid_pair(clip)
            energy, error = self.mel_loss.energy(self._sounds(mel, 2), wav)
            sums += torch.stack([energy, error, torch.ones_like(error)])
        energy, error, count = self.accelerator.reduce(sums).tolist()
        return {"loss": energy / count, "mel_loss": error / count} if count else {}

    def _valid_pair(self, clip: dict) -> tuple[Tensor, Tensor]:
        """The mel that the vocoder gets [1, n_mel, frames], and the wav [1, frames * hop_size]."""
        path, hop = mel_path(self.config, clip), self.mel.hop_size
        most = round(MOST_SECONDS * self.mel.frames_per_second)
        frames = max(min(mel_frames(path), most), self.frames)
        wav = torch.from_numpy(read_crop(pcm_path(self.config, clip), 0, frames * hop))
        return self._given(read_batch([path], frames)), to_device(
            wav[None], self.accelerator.device
        )

    def _sounds(self, mel: Tensor, count: int) -> Tensor:
        """`count` wavs of each mel [B, n_mel, frames] by the weights in use, the same each time."""
        device, samples = mel.device, mel.shape[2] * self.mel.hop_size
        random = generator(device, self.config.train.random_seed, "validation")
        noise = torch.randn((count, len(mel), samples), generator=random, device=device)
        return self.generator(mel, noise).clamp(-1.0, 1.0)

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """A few clips, each as it is, by this vocoder, and by Griffin-Lim."""
        found, extract = [], MelExtractor(self.mel)
        for number, clip in enumerate((self.valid_records or self.train_records)[:SAMPLES]):
            mel, wav = self._valid_pair(clip)
            wavs = {"original": wav.cpu(), "vocoder": self._sounds(mel, 1)[0].cpu()}
            wavs["griffin_lim"] = self.griffin_lim(mel.cpu())
            for name, one in wavs.items():
                found.append(Sample(f"{number}/{name}", extract(one)[0].numpy(), one[0].numpy()))
        return found

    # ------------------------------------------------------------ files

    def save_for_inference(self, folder: Path) -> None:
        """All that `load_vocoder` needs."""
        save_trained(folder, self.settings, self.generator)

    def save_training(self, folder: Path) -> None:
        """The weights that learn (vocoder.safetensors holds their average), and the VAE."""
        if self.vae is not None:
            save_vae(folder / "vae", self.vae, self.mel)
        tensors = {
            f"{name}.{key}": tensor
            for name, module in self.trainable.items()
            for key, tensor in module.state_dict().items()
        }
        save_tensors(folder / "learning.safetensors", tensors)

    def _restore(self, checkpoint: Path) -> None:
        if self.ema:
            self.ema.load(load_tensors(checkpoint / "vocoder.safetensors"))
        path = checkpoint / "learning.safetensors"
        tensors = load_tensors(path)
        for name, module in self.trainable.items():
            own = {k: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            load_weights(module, {k.removeprefix(f"{name}."): v for k, v in own.items()}, path)


def _detached(metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in metrics.items()}
