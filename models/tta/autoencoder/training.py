"""Stage 1: what the loop in bins/tta/train.py needs to know of the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from config.schema import Config
from models.base.task import Loss, Sample
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.losses import (
    AutoencoderObjective,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from models.tta.autoencoder.saved import load_vae, save_vae
from models.tta.latent_task import LatentTask
from models.vocoders.load import GRIFFIN_LIM, load_vocoder
from modules.discriminator import PatchDiscriminator
from modules.optimizer import adamw, make_optimizer
from processors.dataset import (
    MelDataset,
    mel_frames,
    read_batch,
    read_segment,
    training_batches,
)
from processors.edits import distinct_sounds, sounds_of
from processors.json_lines import Mapped
from processors.kept_records import kept_records
from processors.mel import check_mel
from processors.metadata import mel_path
from processors.stream import ClipStream, Share
from utils.checkpoint import load_tensors, load_weights, read_weights_into, save_tensors
from utils.device import compiles, memory_format, to_device
from utils.run_folder import find_weights
from utils.seeds import generator

MEAN_CLIPS = 200  # that the decoder's first bias is taken from
START_LOGVAR = -5.0  # of the posterior
STD_DECAY = 0.99  # of the running estimate of the latent's standard deviation
COLLAPSED_STD = 1e-2  # of the latent
COLLAPSED_NATS = 1e-2  # nats of information in a value of the latent
WON_LOSS = 0.01  # of the discriminator; 1 where it knows nothing
SAMPLES = 4  # clips


class AutoencoderTraining(LatentTask):
    """Generator (the VAE and the loss's log-variance) and discriminator: a models/base Task."""

    shown = ("rec_loss", "d_loss", "latent_std")

    def __init__(
        self, config: Config, accelerator: Accelerator, share: Share, checkpoint: Path | None
    ) -> None:
        """`checkpoint` is the folder to go on from; None starts anew."""
        super().__init__(config, accelerator, share)
        self.vae = AutoencoderKL(config.model.autoencoderkl)
        loss = config.model.loss
        goes_on = config.train.init_from is not None or loss.decoder_alone
        self.starts_anew = checkpoint is None and not goes_on
        self.objective = AutoencoderObjective(self.vae, loss.logvar_init, loss.level_weight)
        self.discriminator = PatchDiscriminator(loss.disc_channels, loss.disc_num_layers)
        self.d_weight = torch.zeros(())  # balances the adversarial term
        if checkpoint:
            self._read(checkpoint)
        elif goes_on:
            self._start_from(config.train.init_from)
        if loss.decoder_alone:  # the latents stay as they are, for what learns from them
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        if loss.disc_factor > 0 and config.train.max_steps <= loss.disc_start:
            self.notes.append(
                f"the discriminator never takes part: train.max_steps {config.train.max_steps} is"
                f" not above model.loss.disc_start {loss.disc_start}"
            )
        self.joint_step = loss.disc_start if loss.disc_factor else 0
        self._to_device()

    def load_records(self, split: str) -> Sequence[dict]:
        """Several captions of a clip, and several edits of a sound, are one clip here."""
        return kept_records(self.config, split, self.accelerator, distinct_sounds, sounds_of)

    def _to_device(self) -> None:
        """Moves the networks there; makes optimizers, and wraps for several processes."""
        device = self.accelerator.device
        self.objective.to(device, memory_format=memory_format(device))
        self.discriminator.to(device, memory_format=memory_format(device))
        self.d_weight = self.d_weight.to(device)
        self.vocoder = load_vocoder(GRIFFIN_LIM, self.config.preprocess.mel)
        if compiles(self.config.train.compile, device):
            # Not the discriminator: it is asked for its input's gradient, then its weights', and a
            # compiled backward pass makes both each time.
            self.vae.compile_for_training()
        self.trainable = {"generator": self.objective, "discriminator": self.discriminator}
        train = self.config.train
        self.optimizers = {
            "generator": make_optimizer(self.objective, train),
            "discriminator": adamw(self.discriminator.parameters(), train.adam),
        }
        self._objective = self.accelerator.prepare_model(self.objective)
        self._discriminator = self.accelerator.prepare_model(self.discriminator)
        self.wrapped = (self._objective, self._discriminator)

    def _start_from(self, path: str | None) -> None:
        """None: from the newest run in log_dir."""
        folder = find_weights(path, self.config.log_dir, "AutoencoderKL")
        saved = load_vae(folder)
        check_mel(self.config.preprocess.mel, saved.mel, path or str(folder))
        load_weights(self.vae, saved.vae.state_dict(), folder)
        self.begin_from(folder)

    # ------------------------------------------------------------ data

    def prepare_data(self, cache: Path) -> None:
        """Gets ready to read the mels, which need no cache.

        Headers of the clips to validate with are read now, so that a damaged file is found before
        the first step.
        """
        self.frames = self.config.preprocess.segment_frames
        self.stream = ClipStream(len(self.train_records), self.seed)
        for clip in self.valid_records[: self.config.train.valid_clips]:
            mel_frames(mel_path(self.config, clip))
        if self.starts_anew:
            self._start_near()

    @torch.no_grad()
    def _start_near(self) -> None:
        """Starts where training would go first anyway, which saves hundreds of steps.

        The decoder's output begins at the mean of the mels (about -6) and not at 0, and the
        posterior is narrow, so that what the encoder says is not lost in noise.
        """
        clips = self.train_records[:: max(1, len(self.train_records) // MEAN_CLIPS)]
        segments = (read_segment(mel_path(self.config, clip), self.frames) for clip in clips)
        means = [mean for mean in map(np.mean, segments) if np.isfinite(mean)]
        if means:
            self.vae.decoder.conv_out.bias.fill_(float(np.mean(means)))
        self.vae.quant_conv.bias[self.vae.config.z_channels :].fill_(START_LOGVAR)

    def batches(self, step: int) -> Iterator[dict]:
        """Micro-batches from `step` on: {"mel": [B, 1, n_mel, frames], "uid": names}."""
        paths = Mapped(partial(mel_path, self.config), self.train_records)
        names = Mapped(itemgetter("Uid"), self.train_records)
        dataset = MelDataset(paths, names, self.frames, self.stream)
        return training_batches(dataset, self.share, step, self.config.train.num_workers)

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, micro: int) -> Iterator[Loss]:
        """The generator's loss, and from disc_start on the discriminator's.

        Both come from one reconstruction and one forward pass of the discriminator.
        """
        loss = self.config.model.loss
        mel = to_device(batch["mel"], self.accelerator.device)
        added = self._decoder_noise(step, micro) if loss.decoder_alone else None
        terms = self._objective(mel, self._noise(step, micro), added)
        generator_loss = terms["nll_loss"] + loss.kl_weight * terms["kl_loss"]
        names = ("rec_loss", "level_loss", "nll_loss", "kl_loss")
        metrics = {name: terms[name].detach() for name in names if name in terms}
        metrics["logvar"] = self.objective.logvar.detach().clone()
        latent = terms["latent"].detach().float()
        metrics["latent_nats"] = metrics["kl_loss"] / latent[0].numel()
        means = {"latent_moments": torch.stack([latent.mean(), latent.square().mean()])}

        if loss.disc_factor == 0 or step < loss.disc_start:
            yield Loss("generator", generator_loss, metrics, means)
            return
        # The discriminator sees a leaf copy of the reconstruction: the adversarial gradient then
        # stops there, is weighted, and goes on through the decoder with the rest of the loss.
        seen = terms["reconstruction"].detach().requires_grad_()
        logits_real, logits_fake = self._discriminator(torch.cat([mel, seen])).float().chunk(2)
        g_loss = hinge_generator_loss(logits_fake)
        (gradient,) = torch.autograd.grad(g_loss, seen, retain_graph=True)
        means["last_gradients"] = self._last_gradients(terms, gradient)
        strength = loss.disc_factor * loss.disc_weight * self.d_weight
        adversarial = (terms["reconstruction"] * (strength * gradient)).sum()
        metrics["g_loss"], metrics["d_weight"] = g_loss.detach(), self.d_weight
        yield Loss("generator", generator_loss + adversarial, metrics, means)

        d_loss = loss.disc_factor * hinge_discriminator_loss(logits_real, logits_fake)
        metrics = {"d_loss": d_loss, "logits_real": logits_real.mean()}
        metrics["logits_fake"] = logits_fake.mean()
        yield Loss("discriminator", d_loss, {k: v.detach() for k, v in metrics.items()}, {})

    def _last_gradients(self, terms: dict, gradient: Tensor) -> Tensor:
        """Gradients of both terms at the decoder's last layer, [2, *weight shape]."""
        last, reconstruction = self.vae.last_layer, terms["reconstruction"]
        (of_nll,) = torch.autograd.grad(terms["nll_loss"], last, retain_graph=True)
        (of_gan,) = torch.autograd.grad(reconstruction, last, gradient, retain_graph=True)
        return torch.stack([of_nll, of_gan])

    def _decoder_noise(self, step: int, micro: int) -> Tensor:
        """What is added to latents, so that the decoder learns to take what is not quite one.

        A U-Net's latents are not. As for the decoder of Zheng et al. 2025 (arXiv:2510.11690,
        noise-augmented decoding), its size is drawn for each clip: |N(0, decoder_noise^2)| standard
        deviations of the latent. [B, z, h, w], this micro-batch's slice of the whole batch's.
        """
        device, clips = self.accelerator.device, self.share.batch_size
        random = generator(device, self.seed, "decoder", step)
        size = torch.randn(clips, 1, 1, 1, generator=random, device=device).abs()
        noise = torch.randn(clips, *self.latent_shape, generator=random, device=device)
        spread = self.config.model.loss.decoder_noise * self.vae.latent_std
        return (spread * size * noise)[self.share.slice(micro)]

    def _noise(self, step: int, micro: int) -> Tensor:
        """This micro-batch's slice of the whole batch's noise for the posterior, [B, z, h, w]."""
        device = self.accelerator.device
        random = generator(device, self.seed, "posterior", step)
        shape = (self.share.batch_size, *self.latent_shape)
        return torch.randn(shape, generator=random, device=device)[self.share.slice(micro)]

    def after_step(self, step: int, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Follows the latent's standard deviation, and sets the next step's adversarial weight.

        The weight (arXiv:2012.09841, eq. 7) is one step late: so it is the same however a batch is
        split, as the first micro-batch's backward pass comes before the last one's forward pass.
        """
        if "last_gradients" in means:
            largest = self.config.model.loss.max_adapt_d_weight
            weight = adaptive_weight(*means["last_gradients"], largest)
            self.d_weight = weight.where(weight.isfinite(), self.d_weight)
        mean, square = means["latent_moments"]
        std = (square - mean.square()).clamp(min=0).sqrt()
        decay = min(STD_DECAY, (1 + step) / (10 + step))
        kept = std.where(std.isfinite(), self.vae.latent_std)  # a skipped step changes nothing
        if not self.config.model.loss.decoder_alone:  # it is known of these latents
            self.vae.latent_std.lerp_(kept, 1 - decay)
        return {"latent_std": std}

    def troubles(self, metrics: dict[str, float]) -> dict[str, str]:
        """A latent that collapses, a discriminator that wins outright."""
        found = {}
        std, nats = metrics.get("latent_std", 1.0), metrics.get("latent_nats", 1.0)
        if std < COLLAPSED_STD or nats < COLLAPSED_NATS:
            found["latent"] = (
                f"the latent has collapsed, its standard deviation is {std:.2g} and a value of it"
                f" tells {nats:.2g} nats of the mel; try a smaller model.loss.kl_weight or a"
                " smaller train.adam.lr"
            )
        d_loss = metrics.get("d_loss", 1.0)
        if d_loss < WON_LOSS:
            found["discriminator"] = (
                f"the discriminator wins outright, d_loss is {d_loss:.2g} (1: it knows nothing);"
                " try a smaller model.loss.disc_channels, or a later model.loss.disc_start so that"
                " it meets better reconstructions"
            )
        return found

    # ------------------------------------------------------------ looking and listening

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean metrics over valid.json, at the posterior's mode."""
        clips = self.valid_records[: self.config.train.valid_clips]
        mine = clips[self.share.rank :: self.share.world_size]
        sums, size = torch.zeros(4, device=self.accelerator.device), self.share.micro_batch_size
        for first in range(0, len(mine), size):
            mel = self._valid_mel(mine[first : first + size])
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
    def samples(self) -> list[Sample]:
        """A few clips, each as it is and as it is reconstructed."""
        clips = (self.valid_records or self.train_records)[:SAMPLES]
        mel = self._valid_mel(clips)
        _, reconstruction = self._reconstruct(mel)
        found, mels = [], {"original": mel.cpu(), "reconstruction": reconstruction.cpu()}
        for number in range(len(clips)):
            for name, batch in mels.items():
                wav = self.vocoder(batch[number])[0]
                found.append(Sample(f"{number}/{name}", batch[number, 0].numpy(), wav.numpy()))
        return found

    # ------------------------------------------------------------ files

    def save_for_inference(self, folder: Path) -> None:
        """All that the next stage needs."""
        save_vae(folder, self.vae, self.config.preprocess.mel)

    def save_training(self, folder: Path) -> None:
        """The discriminator, the loss's log-variance and the adversarial weight."""
        tensors = {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        tensors |= {"logvar": self.objective.logvar, "d_weight": self.d_weight}
        save_tensors(folder / "loss.safetensors", tensors)

    def _read(self, folder: Path) -> None:
        read_weights_into(self.vae, folder / "vae.safetensors")
        tensors = load_tensors(folder / "loss.safetensors")
        self.objective.logvar.data.copy_(tensors.pop("logvar"))
        self.d_weight = tensors.pop("d_weight")
        tensors = {name.removeprefix("discriminator."): t for name, t in tensors.items()}
        load_weights(self.discriminator, tensors, folder / "loss.safetensors")
