"""Stage 1: what the loop in bins/tta/train.py needs to know of the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.schema import Config
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.losses import (
    AutoencoderObjective,
    adaptive_weight,
    hinge_discriminator_loss,
)
from models.tta.autoencoder.saved import load_vae, save_vae
from modules.discriminator import PatchDiscriminator
from modules.optimizer import adamw
from processors.dataset import (
    MelDataset,
    distinct_clips,
    read_batch,
    read_segment,
    training_batches,
)
from processors.mel import check_mel
from processors.metadata import load_split, mel_path
from processors.stream import ClipStream, Share
from utils.checkpoint import load_tensors, load_weights, save_tensors
from utils.device import compiles, memory_format, to_device
from utils.run_folder import find_weights
from utils.seeds import generator

MEAN_CLIPS = 200  # that the decoder's first bias is taken from
START_LOGVAR = -5.0  # of the posterior
STD_MEMORY = 0.99  # of the running estimate of the latent's standard deviation


class AutoencoderTraining:
    """Generator (the VAE and the loss's log-variance) and discriminator, their losses and files."""

    def __init__(
        self, config: Config, accelerator, share: Share, checkpoint: Path | None = None
    ) -> None:
        """`checkpoint` is the folder to go on from; None starts anew."""
        self.config, self.accelerator, self.share = config, accelerator, share
        self.seed = config.train.random_seed
        # Several captions of a clip are one clip here.
        self.train_clips = distinct_clips(load_split(config, "train"))
        self.valid_clips = distinct_clips(load_split(config, "valid"))
        self.vae = AutoencoderKL(config.model.autoencoderkl)
        self.starts_anew = checkpoint is None and config.train.init_from is None
        loss = config.model.loss
        self.objective = AutoencoderObjective(self.vae, loss.logvar_init)
        self.discriminator = PatchDiscriminator(loss.disc_channels, loss.disc_num_layers)
        self.d_weight = torch.zeros(())  # what balances the adversarial term
        if checkpoint:
            self._read(checkpoint)
        elif config.train.init_from:
            self._start_from(config.train.init_from)
        device = accelerator.device
        self.objective.to(device, memory_format=memory_format(device))
        self.discriminator.to(device, memory_format=memory_format(device))
        self.d_weight = self.d_weight.to(device)
        if compiles(config.train.compile, device):
            # Not the discriminator: it is asked for its input's gradient, then its weights', and a
            # compiled backward pass makes both each time.
            self.vae.compile_for_training()
        self.learning = {"generator": self.objective, "discriminator": self.discriminator}
        self.optimizers = {
            name: adamw(module.parameters(), config.train.adam)
            for name, module in self.learning.items()
        }
        self.ema = None
        self._objective = accelerator.prepare_model(self.objective)
        self._discriminator = accelerator.prepare_model(self.discriminator)
        self.wrapped = (self._objective, self._discriminator)
        self._moments: list[Tensor] = []
        self._last_gradients: list[Tensor] = []

    def _start_from(self, path: str) -> None:
        saved = load_vae(find_weights(path, self.config.log_dir, "AutoencoderKL"))
        check_mel(self.config.preprocess.mel, saved.mel, path)
        load_weights(self.vae, saved.vae.state_dict(), Path(path))

    # ------------------------------------------------------------ data

    def load_data(self, cached: bool) -> None:
        """Gets ready to read the mels; there is nothing to cache, whatever `cached` says."""
        self.frames = self.config.preprocess.segment_frames
        self.stream = ClipStream(len(self.train_clips), self.seed)
        if self.starts_anew:
            self._start_near()

    @torch.no_grad()
    def _start_near(self) -> None:
        """Starts where training would go first anyway, which saves hundreds of steps.

        The decoder's output begins at the mean of the mels (about -6) and not at 0, and the
        posterior is narrow, so that what the encoder says is not lost in noise.
        """
        clips = self.train_clips[:: max(1, len(self.train_clips) // MEAN_CLIPS)]
        segments = (read_segment(mel_path(self.config, clip), self.frames) for clip in clips)
        means = [mean for mean in map(np.mean, segments) if np.isfinite(mean)]
        if means:
            self.vae.decoder.conv_out.bias.fill_(float(np.mean(means)))
        self.vae.quant_conv.bias[self.vae.config.z_channels :].fill_(START_LOGVAR)

    def batches(self, step: int) -> Iterator[dict]:
        """Pieces of batches from `step` on: {"mel": [B, 1, n_mel, frames], "uid": names}."""
        paths = [mel_path(self.config, clip) for clip in self.train_clips]
        names = [clip["Uid"] for clip in self.train_clips]
        dataset = MelDataset(paths, names, self.frames, self.stream)
        return training_batches(dataset, self.share, step, self.config.train.num_workers)

    def clips_of(self, step: int) -> list[str]:
        """Names of the whole batch of a step, over all processes."""
        return [self.train_clips[number]["Uid"] for number in self.share.clips(step, self.stream)]

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, part: int) -> Iterator[tuple[str, Tensor, dict]]:
        """(network, its loss, figures to log) for the generator, then for the discriminator.

        Both come from one reconstruction and one look of the discriminator at it.
        """
        loss = self.config.model.loss
        mel = to_device(batch["mel"], self.accelerator.device)
        terms = self._objective(mel, self._noise(step, part))
        generator_loss = terms["nll_loss"] + loss.kl_weight * terms["kl_loss"]
        figures = {name: terms[name].detach() for name in ("rec_loss", "nll_loss", "kl_loss")}
        figures["logvar"] = self.objective.logvar.detach().clone()
        latent = terms["latent"].detach().float()
        figures["latent_nats"] = figures["kl_loss"] / latent[0].numel()
        self._moments.append(torch.stack([latent.mean(), latent.square().mean()]))

        if loss.disc_factor == 0 or step < loss.disc_start:
            yield "generator", generator_loss, figures
            return
        # The discriminator sees a leaf copy of the reconstruction: the adversarial gradient then
        # stops there, is weighted, and goes on through the decoder with the rest of the loss.
        seen = terms["reconstruction"].detach().requires_grad_()
        logits_real, logits_fake = self._discriminator(torch.cat([mel, seen])).float().chunk(2)
        (gradient,) = torch.autograd.grad(-logits_fake.mean(), seen, retain_graph=True)
        self._note_last_gradients(terms, gradient)
        strength = loss.disc_factor * loss.disc_weight * self.d_weight
        adversarial = (terms["reconstruction"] * (strength * gradient)).sum()
        figures["g_loss"], figures["d_weight"] = -logits_fake.detach().mean(), self.d_weight
        yield "generator", generator_loss + adversarial, figures

        d_loss = loss.disc_factor * hinge_discriminator_loss(logits_real, logits_fake)
        figures = {"d_loss": d_loss, "logits_real": logits_real.mean()}
        figures["logits_fake"] = logits_fake.mean()
        yield "discriminator", d_loss, {k: v.detach() for k, v in figures.items()}

    def _note_last_gradients(self, terms: dict, gradient: Tensor) -> None:
        """Both terms' gradients at the decoder's last layer, of this piece of the batch."""
        last, reconstruction = self.vae.last_layer, terms["reconstruction"]
        (of_nll,) = torch.autograd.grad(terms["nll_loss"], last, retain_graph=True)
        (of_gan,) = torch.autograd.grad(reconstruction, last, gradient, retain_graph=True)
        self._last_gradients.append(torch.stack([of_nll, of_gan]))

    def _noise(self, step: int, part: int) -> Tensor:
        """This piece's share of the whole batch's noise for the posterior, [B, z, h, w]."""
        device = self.accelerator.device
        random = generator(device, self.seed, "posterior", step)
        shape = (self.share.batch_size, *self.latent_shape)
        return torch.randn(shape, generator=random, device=device)[self.share.slice(part)]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        model, factor = (
            self.config.model.autoencoderkl,
            self.config.model.autoencoderkl.downsampling,
        )
        preprocess = self.config.preprocess
        return model.z_channels, preprocess.n_mel // factor, preprocess.segment_frames // factor

    def after_update(self, step: int) -> dict[str, Tensor]:
        """Keeps what comes from the whole batch: the latent's deviation, the adversarial weight."""
        if self._last_gradients:
            self.d_weight = self._balanced()
        moments = torch.stack(self._moments).mean(0)
        self._moments.clear()
        mean, square = self.accelerator.reduce(moments, reduction="mean")
        std = (square - mean.square()).clamp(min=0).sqrt()
        memory = min(STD_MEMORY, (1 + step) / (10 + step))
        kept = std.where(std.isfinite(), self.vae.latent_std)  # a step that is skipped leaves it
        self.vae.latent_std.lerp_(kept, 1 - memory)
        return {"latent_std": std}

    def _balanced(self) -> Tensor:
        """The adversarial weight for the next step, from the gradients of this whole batch.

        One step late, it is the same however a batch is split over pieces and processes: the first
        piece's backward pass comes before the last piece's forward pass.
        """
        gradients = torch.stack(self._last_gradients).mean(0)
        self._last_gradients.clear()
        of_nll, of_gan = self.accelerator.reduce(gradients, reduction="mean")
        weight = adaptive_weight(of_nll, of_gan, self.config.model.loss.max_adapt_d_weight)
        return weight.where(weight.isfinite(), self.d_weight)

    # ------------------------------------------------------------ looking and listening

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean figures over valid.json, at the posterior's mode."""
        clips = self.valid_clips[: self.config.train.valid_clips]
        mine = clips[self.share.rank :: self.share.processes]
        sums = torch.zeros(4, device=self.accelerator.device)
        for first in range(0, len(mine), self.share.piece):
            mel = self._valid_mel(mine[first : first + self.share.piece])
            posterior, reconstruction = self._reconstruct(mel)
            rec_loss = (reconstruction - mel).abs().mean((1, 2, 3))
            std = posterior.mean.float().std((1, 2, 3))
            ones = torch.ones_like(rec_loss)
            sums += torch.stack([rec_loss, posterior.kl().float(), std, ones]).sum(1)
        rec_loss, kl_loss, std, count = self.accelerator.reduce(sums).tolist()
        if count == 0:
            return {}
        return {"loss": rec_loss / count, "kl_loss": kl_loss / count, "latent_std": std / count}

    def _valid_mel(self, clips: list[dict]) -> Tensor:
        mel = read_batch([mel_path(self.config, clip) for clip in clips], self.frames)
        return to_device(mel, self.accelerator.device)

    def _reconstruct(self, mel: Tensor):
        with self.accelerator.autocast():
            posterior = self.vae.encode(mel)
            return posterior, self.vae.decode(posterior.mode()).float()

    @torch.no_grad()
    def samples(self, count: int = 4) -> list[tuple[str, np.ndarray]]:
        """(name, mel [n_mel, frames]) to look at and to listen to: originals and results."""
        clips = (self.valid_clips or self.train_clips)[:count]
        mel = self._valid_mel(clips)
        _, reconstruction = self._reconstruct(mel)
        pairs = zip(mel[:, 0].cpu().numpy(), reconstruction[:, 0].cpu().numpy(), strict=True)
        named = []
        for number, (original, rebuilt) in enumerate(pairs):
            named += [(f"{number}/original", original), (f"{number}/reconstruction", rebuilt)]
        return named

    # ------------------------------------------------------------ files

    def write(self, folder: Path) -> None:
        """All that the next stage needs."""
        save_vae(folder, self.vae, self.config.preprocess.mel)

    def write_training(self, folder: Path) -> None:
        """What going on needs besides: all else that learns."""
        tensors = {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        tensors |= {"logvar": self.objective.logvar, "d_weight": self.d_weight}
        save_tensors(folder / "loss.safetensors", tensors)

    def _read(self, folder: Path) -> None:
        weights = folder / "vae.safetensors"
        load_weights(self.vae, load_tensors(weights), weights)
        tensors = load_tensors(folder / "loss.safetensors")
        self.objective.logvar.data.copy_(tensors.pop("logvar"))
        self.d_weight = tensors.pop("d_weight")
        tensors = {name.removeprefix("discriminator."): t for name, t in tensors.items()}
        load_weights(self.discriminator, tensors, folder / "loss.safetensors")
