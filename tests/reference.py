"""Both stages' training steps as the papers have them: what the loop is held to.

Every equation is written out; nothing of the project computes a loss, a schedule, an optimizer's
step or an average here. Three things are taken from outside: the networks (their tests hold them to
diffusers), the stream's order of clips (tests/processors/test_stream.py) and torch's gradients.
Random numbers follow the rule of utils/seeds.py, which is written out as well.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import expit, ndtri
from torch import Tensor, nn

from tests.reference_optimizer import AdamW, Average, learning_rate

SILENCE = math.log(1e-5)  # behind the end of a short mel


def generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """The random numbers of one step for one purpose."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), step])
    return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]) // 2)


# ---------------------------------------------------------------- what both stages do with mels


def segment(mel: np.ndarray, start: int, frames: int) -> np.ndarray:
    """`frames` frames of a mel [n_mel, any] from `start` on, with silence behind its end."""
    piece = mel[:, start : start + frames]
    return np.pad(piece, [(0, 0), (0, frames - piece.shape[1])], constant_values=SILENCE)


def moments(vae: nn.Module, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the posterior (Rombach et al. 2022, arXiv:2112.10752, app. G)."""
    mean, logvar = vae.quant_conv(vae.encoder(mel)).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


# ---------------------------------------------------------------- stage 1


class Stage1:
    """The VAE-GAN (Rombach et al. 2022, eq. 25; Esser et al. 2021, arXiv:2012.09841, section 3).

    Attributes: d_weight, lambda of eq. 7; latent_std, the running deviation of the latents; seen,
    what happened at each step, for a test to see that its case is the case.
    """

    def __init__(
        self, config: dict, vae: nn.Module, discriminator: nn.Module, mels: Sequence, stream
    ) -> None:
        self.train, self.loss = config["train"], config["model"]["loss"]
        self.frames, self.mels, self.stream = config["preprocess"]["segment_frames"], mels, stream
        self.vae, self.discriminator = vae, discriminator
        self.logvar = nn.Parameter(torch.tensor(float(self.loss["logvar_init"])))
        self.generator = AdamW([*vae.parameters(), self.logvar], self.train)
        self.critic = AdamW(discriminator.parameters(), self.train)
        # A run that goes on with a VAE goes on with its deviation.
        self.d_weight, self.latent_std = torch.zeros(()), vae.latent_std.clone()
        self.seen: list[dict[str, float]] = []

    def batch(self, step: int) -> Tensor:
        """Crops of the clips of a step, [B, 1, n_mel, frames]."""
        first, crops = step * self.train["batch_size"], []
        for position in range(first, first + self.train["batch_size"]):
            mel, start = self.mels[self.stream.clip(position)], 0
            if mel.shape[1] > self.frames:
                places = mel.shape[1] - self.frames + 1
                start = int(self.stream.random(position).integers(places))
            crops.append(segment(mel, start, self.frames))
        return torch.from_numpy(np.stack(crops)[:, None])

    def step(self, step: int) -> None:
        seed, loss, mel = self.train["random_seed"], self.loss, self.batch(step)
        mean, logvar = moments(self.vae, mel)
        noise = torch.randn(mean.shape, generator=generator(seed, "posterior", step))
        # Kingma & Welling 2014, arXiv:1312.6114: section 2.4, and the KL of appendix B.
        latent = mean + (logvar / 2).exp() * noise
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
        given, alone = latent, loss["decoder_alone"]
        if alone:
            # Zheng et al. 2025, arXiv:2510.11690: noise-augmented decoding.
            random = generator(seed, "decoder", step)
            sigma = loss["decoder_noise"] * torch.randn(len(mel), generator=random).abs()
            added = self.latent_std * torch.randn(mean.shape, generator=random)
            given = latent.detach() + sigma[:, None, None, None] * added
        rebuilt = self.vae.decoder(self.vae.post_quant_conv(given))
        # -log of a Laplace density of scale exp(s), less log 2; s is learnt.
        error = (rebuilt - mel).abs().mean()
        wrong = error + loss["level_weight"] * level_error(rebuilt, mel)
        nll = wrong / self.logvar.exp() + self.logvar
        total = nll + loss["kl_weight"] * (kl.detach() if alone else kl)
        seen = {"rec_loss": error, "nll_loss": nll, "kl_loss": kl}

        rate = learning_rate(self.train, step)
        plays = loss["disc_factor"] > 0 and step >= loss["disc_start"]
        if plays:
            fake, real = self.discriminator(rebuilt), self.discriminator(mel)
            # The generator raises the logits of what it made (Lim & Ye 2017, eq. 11).
            adversarial = -fake.mean()
            weight = loss["disc_factor"] * loss["disc_weight"] * self.d_weight
            total = total + weight * adversarial
            judged = self.discriminator(rebuilt.detach())
            # Half the hinge loss (Lim & Ye 2017, arXiv:1705.02894, eq. 10).
            hinge = (1 - real).clamp(min=0).mean() + (1 + judged).clamp(min=0).mean()
            d_loss = loss["disc_factor"] * hinge / 2
            balance = self._balance(nll, adversarial)
            seen |= {"g_loss": adversarial, "d_loss": d_loss, "d_weight": self.d_weight}
            seen |= {"balance": balance, "largest_real": real.max(), "least_fake": judged.min()}
            of_critic = self.critic.gradients(d_loss)
        self.generator.step(self.generator.gradients(total), rate)
        if plays:
            self.critic.step(of_critic, rate)
            # The weight of the next step comes from the whole batch of this one.
            self.d_weight = balance.clamp(max=loss["max_adapt_d_weight"])

        # Rombach et al. 2022, app. G: latents are scaled to unit deviation; ours is a running mean.
        std = latent.detach().std(correction=0)
        memory = 1 if alone else min(0.99, (1 + step) / (10 + step))
        self.latent_std = memory * self.latent_std + (1 - memory) * std
        seen |= {"latent_std": std, "learning_rate": torch.tensor(rate)}
        self.seen.append({name: float(value.detach()) for name, value in seen.items()})

    def _balance(self, nll: Tensor, adversarial: Tensor) -> Tensor:
        """lambda of Esser et al. 2021, eq. 7, at the decoder's last layer; delta is 1e-4."""
        last = self.vae.decoder.conv_out.weight
        (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
        (of_gan,) = torch.autograd.grad(adversarial, last, retain_graph=True)
        return of_nll.norm() / (of_gan.norm() + 1e-4)


def level_error(made: Tensor, real: Tensor) -> Tensor:
    """Mean difference of the levels of patches of 8 x 8, in nepers; the last may be cut."""
    differences = []
    for row in range(0, made.shape[2], 8):
        for column in range(0, made.shape[3], 8):
            place = (slice(None), 0, slice(row, row + 8), slice(column, column + 8))
            of_made, of_real = ((x[place].exp() ** 2).mean((1, 2)) for x in (made, real))
            differences.append((of_made / of_real).log().abs() / 2)
    return torch.stack(differences).mean()


# ---------------------------------------------------------------- stage 2


def signal_shares(schedule: dict) -> Tensor:
    """alpha-bar_t of every timestep (Ho et al. 2020, arXiv:2006.11239, section 2), [T].

    "scaled_linear" is linear in the square root of beta (Rombach et al. 2022's released code).
    """
    power = {"linear": 1.0, "scaled_linear": 0.5}[schedule["beta_schedule"]]
    ends = schedule["beta_start"] ** power, schedule["beta_end"] ** power
    betas = torch.linspace(*ends, schedule["num_train_timesteps"], dtype=torch.float64)
    return (1 - betas ** (1 / power)).cumprod(0).float()


def window_starts(frames: int, segment_frames: int) -> list[int]:
    """First frames of the windows of a clip: half overlapping, the last one ends with the clip."""
    if frames <= segment_frames + 1:
        return [0]
    return [*range(0, frames - segment_frames, segment_frames // 2), frames - segment_frames]


class Text:
    """A T5's states of captions: cut to `max_tokens`, of which the last is the end's sign."""

    def __init__(self, model: nn.Module, tokenizer, max_tokens: int, frozen: bool) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_tokens, self.frozen = max_tokens, frozen

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[B, L, D] and the mask [B, L]; a frozen T5's states are kept in half precision."""
        rows = [self.tokenizer(text, add_special_tokens=False).input_ids for text in captions]
        rows = [[*row[: self.max_tokens - 1], self.tokenizer.eos_token_id] for row in rows]
        longest = max(map(len, rows))
        pads = [[self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows]
        ids = torch.tensor([row + pad for row, pad in zip(rows, pads, strict=True)])
        mask = torch.tensor([[n < len(row) for n in range(longest)] for row in rows])
        with torch.set_grad_enabled(not self.frozen):
            states = self.model(ids, attention_mask=mask.long()).last_hidden_state
        return (states.half().float() if self.frozen else states), mask


class Stage2:
    """Latent diffusion on a text (Rombach et al. 2022, eq. 3).

    records are (clip, caption), one for each caption; mels one for each clip. `seen` is as above.
    """

    def __init__(
        self, config: dict, vae: nn.Module, unet: nn.Module, text: Text, data: tuple, stream
    ) -> None:
        self.train, self.model, self.stream = config["train"], config["model"], stream
        self.frames = config["preprocess"]["segment_frames"]
        self.vae, self.unet, self.text = vae, unet, text
        self.mels, self.records = data
        self.alpha_bar = signal_shares(self.model["noise_scheduler"])
        trainable = [*unet.parameters()] + ([] if text.frozen else [*text.model.parameters()])
        self.adam = AdamW(trainable, self.train)
        self.average = Average(trainable, self.train["ema_decay"])
        self.seen: list[dict] = []

    def batch(self, step: int) -> tuple[Tensor, list[str], dict]:
        """Windows [B, 1, n_mel, frames] and captions of a step, some replaced by the empty one.

        The empty caption trains the unconditional model (Ho & Salimans 2022, arXiv:2207.12598,
        algorithm 1).
        """
        first, windows, captions, chosen = step * self.train["batch_size"], [], [], []
        for position in range(first, first + self.train["batch_size"]):
            clip, caption = self.records[self.stream.clip(position)]
            random = self.stream.random(position)
            starts = window_starts(self.mels[clip].shape[1], self.frames)
            chosen.append(int(random.integers(len(starts))))
            windows.append(segment(self.mels[clip], starts[chosen[-1]], self.frames))
            dropped = random.random() < self.model["caption_dropout"]
            captions.append("" if dropped else caption)
        seen = {"windows": chosen, "dropped": [caption == "" for caption in captions]}
        return torch.from_numpy(np.stack(windows)[:, None]), captions, seen

    def inputs(self, x_t: Tensor) -> Tensor:
        """What the network reads."""
        return x_t

    def spread(self, std: Tensor) -> Tensor:
        """The deviation with which latents are drawn; std [B, z, h, w] is the posteriors'."""
        return std

    def step(self, step: int) -> None:
        mel, captions, seen = self.batch(step)
        with torch.no_grad():
            mean, logvar = moments(self.vae, mel)
            # The cache keeps mean and deviation in half precision.
            mean, std = mean.half().float(), (logvar / 2).exp().half().float()
        random = generator(self.train["random_seed"], "diffusion", step)
        # Timesteps at equal distances from a random start (Kingma et al. 2021, app. I.1).
        count, steps = len(mel), len(self.alpha_bar)
        places = (torch.rand(1, generator=random) + torch.arange(count) / count) % 1
        kind = self.model["noise_scheduler"]["prediction_type"]
        flow, velocity = kind == "flow_prediction", kind == "v_prediction"
        if flow:  # logit-normal, Esser et al. 2024, arXiv:2403.03206, section 3.1
            normal = self.model["flow_times"]["mean"], self.model["flow_times"]["std"]
            logits = normal[0] + normal[1] * ndtri(places.numpy())
            t = torch.from_numpy(steps * expit(logits)).float()
            seen["times"] = t.tolist()
        else:
            t = (places * steps).long()
        spread = torch.randn(mean.shape, generator=random)
        noise = torch.randn(mean.shape, generator=random)
        # The posterior is sampled anew at each step and scaled to unit deviation.
        x_0 = (mean + self.spread(std) * spread) / self.vae.latent_std
        if flow:  # Lipman et al. 2023, arXiv:2210.02747, eq. 22 and 23, time turned round
            part = (t / steps).view(-1, 1, 1, 1)
            x_t, target = x_0 + part * (noise - x_0), noise - x_0
        else:
            a = self.alpha_bar[t][:, None, None, None]
            x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise  # Ho et al. 2020, eq. 4
            # Ho et al. 2020, eq. 14, or v of Salimans & Ho 2022, arXiv:2202.00512, section 4.
            target = a.sqrt() * noise - (1 - a).sqrt() * x_0 if velocity else noise
        predicted = self.unet(self.inputs(x_t), t, *self.text(captions))
        errors = (predicted - target).square().mean((1, 2, 3))
        if self.model["snr_gamma"] is not None:
            # Hang et al. 2023, arXiv:2303.09556, section 3.4: the weight of x_0 is min(SNR, gamma);
            # an error of eps is SNR times that of x_0, one of v is SNR + 1 times.
            snr = (a / (1 - a)).flatten()
            weights = snr.clamp(max=self.model["snr_gamma"]) / (snr + 1 if velocity else snr)
            seen["weights"] = weights.tolist()
            errors = weights * errors
        loss, rate = errors.mean(), learning_rate(self.train, step)
        self.adam.step(self.adam.gradients(loss), rate)
        self.average.step(step)
        self.seen.append({**seen, "loss": float(loss.detach()), "learning_rate": rate})
