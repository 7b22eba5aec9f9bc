"""Stage 2: what the loop in bins/tta/train.py needs to know of the latent diffusion model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config.schema import Config
from models.tta.autoencoder.saved import load_vae
from models.tta.ldm.diffusion import DiffusionObjective, NoiseSchedule
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from modules.ema import EMA
from modules.optimizer import adamw
from processors.dataset import distinct_clips
from processors.latent import build_latent_cache
from processors.mel import check_mel
from processors.metadata import load_split, mel_path
from processors.stream import ClipStream, Share
from processors.text import build_text_cache
from utils.checkpoint import load_tensors, load_weights, save_tensors
from utils.device import compiles, memory_format, to_device
from utils.errors import UserError
from utils.run_folder import find_weights
from utils.seeds import generator


class AudioLDMTraining:
    """The U-Net on cached latents; a frozen text encoder's states are cached too."""

    def __init__(
        self, config: Config, accelerator, share: Share, checkpoint: Path | None = None
    ) -> None:
        """`checkpoint` is the folder to go on from; None starts anew."""
        self.config, self.accelerator, self.share = config, accelerator, share
        self.seed = config.train.random_seed
        device = accelerator.device
        if checkpoint:  # a run keeps the VAE that it began with
            vae_folder = checkpoint / "vae"
        else:
            vae_folder = find_weights(
                config.model.autoencoder_path, config.log_dir, "AutoencoderKL"
            )
        self.saved_vae = load_vae(vae_folder)
        check_mel(config.preprocess.mel, self.saved_vae.mel, vae_folder)
        self.vae = self.saved_vae.vae.to(device, memory_format=memory_format(device))
        self._check_latent(vae_folder)
        self.train_records = load_split(config, "train")
        self.valid_records = load_split(config, "valid")

        start = checkpoint
        if start is None and config.train.init_from:
            start = find_weights(config.train.init_from, config.log_dir, "AudioLDM")
            check_mel(config.preprocess.mel, PipelineSettings.read(start).mel, start)
        self.learns_text = config.model.text_encoder.learns
        self.text_encoder = self._make_text_encoder(checkpoint, start).to(device)
        self.unet = UNet(config.model.audioldm)
        if start:
            weights = start / "unet.safetensors"
            load_weights(self.unet, load_tensors(weights), weights)
        if self.text_encoder.dim != config.model.audioldm.context_dim:
            raise UserError(
                f"model.audioldm.context_dim {config.model.audioldm.context_dim} must be"
                f" {self.text_encoder.dim}, the width of the text encoder"
                f" {config.model.text_encoder.pretrained}"
            )
        self.unet.to(device, memory_format=memory_format(device))
        self.unet.enable_gradient_checkpointing(config.train.gradient_checkpointing)
        if compiles(config.train.compile, device):
            self.unet.compile(dynamic=False)  # batches have few shapes
        self.objective = DiffusionObjective(
            self.unet,
            self.text_encoder if self.learns_text else None,
            NoiseSchedule(config.model.noise_scheduler),
            config.model.snr_gamma,
        ).to(device)
        parameters = list(self.objective.parameters())
        self.learning = {"unet": self.objective}
        self.optimizers = {"unet": adamw(parameters, config.train.adam)}
        self.ema = EMA(parameters, config.train.ema_decay) if config.train.ema_decay else None
        if checkpoint:  # up to here the weights were those of inference, which are the average
            learning = checkpoint / "learning.safetensors"
            load_weights(self.objective, load_tensors(learning), learning)
        self._objective = accelerator.prepare_model(self.objective)
        self.wrapped = (self._objective,)

    def _check_latent(self, vae_folder: Path) -> None:
        shape, wanted = self.vae.config, self.config.model.audioldm.in_channels
        if shape.z_channels != wanted:
            raise UserError(
                f"model.audioldm.in_channels {wanted} must be {shape.z_channels}, the z_channels of"
                f" the VAE in {vae_folder}"
            )
        for name in ("n_mel", "segment_frames"):
            if getattr(self.config.preprocess, name) % shape.downsampling:
                raise UserError(
                    f"preprocess.{name} {getattr(self.config.preprocess, name)} must be a multiple"
                    f" of {shape.downsampling}, the downsampling of the VAE in {vae_folder}"
                )

    def _make_text_encoder(self, checkpoint: Path | None, start: Path | None) -> TextEncoder:
        text = self.config.model.text_encoder
        if start is None and text.learns:
            captions = [record["Caption"] for record in self.train_records]
            return TextEncoder.small(text.small, captions, text.max_tokens)
        # One that learns goes on from where the U-Net's weights come from.
        beside = start if checkpoint or text.learns else None
        source = str(beside / "text_encoder") if beside else text.pretrained
        encoder = TextEncoder.from_pretrained(source, text.max_tokens)
        return encoder.requires_grad_(text.learns)

    # ------------------------------------------------------------ data

    def load_data(self, cached: bool) -> None:
        """Builds or finds the caches of latents and of captions, for both splits.

        Without `cached` nothing is written, and what a batch needs is computed for it.
        """
        config, encoder = self.config, self.text_encoder
        folder = Path(config.preprocess.processed_dir) / "cache" if cached else None
        everything = self.train_records + self.valid_records
        clips = distinct_clips(everything)
        numbers = {(clip["Dataset"], clip["Uid"]): n for n, clip in enumerate(clips)}
        self._clips = [numbers[record["Dataset"], record["Uid"]] for record in everything]
        self.latents = build_latent_cache(
            folder,
            [mel_path(config, clip) for clip in clips],
            config.preprocess.segment_frames,
            self.vae,
            self.saved_vae.fingerprint,
            self.accelerator,
        )
        self.stream = ClipStream(len(self.train_records), self.seed)
        self.texts = None
        if not self.learns_text:
            captions = [record["Caption"] for record in everything]
            self.texts = build_text_cache(
                folder, captions, encoder, encoder.fingerprint(), self.accelerator
            )

    def batches(self, step: int) -> Iterator[dict]:
        """Pieces of batches from `step` on: {"posterior": [B, 2, z, h, w], "text", "text_mask"}."""
        dropped = self.config.model.caption_dropout
        for positions in self.share.from_step(step):
            records, windows, captions = [], [], []
            for position in positions:
                number, random = self.stream.clip(position), self.stream.random(position)
                records.append(self.train_records[number])
                windows.append(self.latents.window(self._clips[number], random))
                keep = random.random() >= dropped
                captions.append(records[-1]["Caption"] if keep else "")
            yield {**self._batch(windows, captions), "uid": [r["Uid"] for r in records]}

    def clips_of(self, step: int) -> list[str]:
        """Names of the whole batch of a step, over all processes."""
        return [self.train_records[number]["Uid"] for number in self.share.clips(step, self.stream)]

    def _batch(self, windows: list[int], captions: list[str]) -> dict:
        posterior = self.latents.posteriors(windows)
        text = self.texts.batch(captions) if self.texts else self.text_encoder.tokenize(captions)
        return {"posterior": posterior, "text": text[0], "text_mask": text[1]}

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, part: int) -> Iterator[tuple[str, Tensor, dict]]:
        """("unet", its loss, figures to log)."""
        random = generator(self.accelerator.device, self.seed, "diffusion", step)
        mine = self.share.slice(part)
        drawn = [numbers[mine] for numbers in self._draw(random, self.share.batch_size)]
        loss = self._errors(batch, *drawn).mean()
        yield "unet", loss, {"loss": loss.detach()}

    def _draw(self, random: torch.Generator, clips: int) -> list[Tensor]:
        """Random numbers for `clips` clips: timesteps, the posterior's spread, the noise.

        The timesteps of a batch lie at equal distances from a random start, each as likely as any:
        the loss then varies less (Kingma et al. 2021, arXiv:2107.00630, low-discrepancy sampler).
        """
        shape, device = (clips, *self.latent_shape), self.accelerator.device
        steps = self.objective.schedule.alphas_cumprod.numel()
        first = torch.rand(1, generator=random, device=device)
        places = (first + torch.arange(clips, device=device) / clips) % 1
        timesteps = (places * steps).long().clamp(max=steps - 1)
        spread, noise = (torch.randn(shape, generator=random, device=device) for _ in range(2))
        return [timesteps, spread, noise]

    def _errors(self, batch: dict, timesteps: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
        """The loss of every clip of the batch, with these random numbers."""
        device = self.accelerator.device
        posterior = to_device(batch["posterior"], device).float()
        latent = self.vae.scale(posterior[:, 0] + posterior[:, 1] * spread)
        latent = latent.contiguous(memory_format=memory_format(device))
        text = to_device(batch["text"], device)
        text = text if self.learns_text else text.float()
        return self._objective(
            latent, noise, timesteps, text, to_device(batch["text_mask"], device)
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[z, n_mel/f, frames/f]"""
        shape, mel = self.vae.config, self.config.preprocess
        factor = shape.downsampling
        return shape.z_channels, mel.n_mel // factor, mel.segment_frames // factor

    def after_update(self, step: int) -> dict[str, Tensor]:
        """Nothing besides the weights changes in stage 2."""
        return {}

    # ------------------------------------------------------------ looking and listening

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss over valid.json, with the same noise and timesteps at every call."""
        sums = torch.zeros(2, device=self.accelerator.device)
        first_valid = len(self.train_records)
        count = min(
            len(self.valid_records), self.config.train.valid_clips or len(self.valid_records)
        )
        piece = self.share.piece
        starts = range(0, count, piece)
        for start in list(starts)[self.share.rank :: self.share.processes]:
            numbers = range(start, min(start + piece, count))
            windows = [self.latents.window(self._clips[first_valid + n]) for n in numbers]
            batch = self._batch(windows, [self.valid_records[n]["Caption"] for n in numbers])
            error = self._errors(batch, *self._draw_for_clips(numbers))
            sums += torch.stack([error.sum(), torch.ones_like(error).sum()])
        total, clips = self.accelerator.reduce(sums).tolist()
        return {"loss": total / clips} if clips else {}

    def _draw_for_clips(self, numbers: range) -> list[Tensor]:
        """Each clip's own random numbers, whatever it is batched with."""
        device = self.accelerator.device
        drawn = [self._draw(generator(device, self.seed, "validation", n), 1) for n in numbers]
        return [torch.cat(tensors) for tensors in zip(*drawn, strict=True)]

    @torch.no_grad()
    def samples(self) -> list[tuple[str, np.ndarray]]:
        """(prompt, mel [n_mel, frames]) made from the config's demo prompts."""
        prompts = self.config.inference.demo_prompts
        mels = self.pipeline()(prompts, seeds=[self.seed + n for n in range(len(prompts))])
        return list(zip(prompts, mels.float().cpu().numpy(), strict=True))

    def pipeline(self) -> Pipeline:
        """Text to mel with the weights as they are."""
        settings = PipelineSettings.of(self.config)
        return Pipeline(settings, self.unet, self.vae, self.text_encoder, self.accelerator.autocast)

    # ------------------------------------------------------------ files

    def write(self, folder: Path) -> None:
        """All that inference needs, with the weights as they are (the loop swaps the EMA in)."""
        self.pipeline().write(folder)

    def write_training(self, folder: Path) -> None:
        """What going on needs besides: the weights themselves, where `write` had the average."""
        save_tensors(folder / "learning.safetensors", self.objective.state_dict())
