"""Sentence to mel: T5 -> sampler with the U-Net -> VAE decoder. The whole inference path."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from config.model_schema import NoiseSchedulerConfig
from config.schema import Config
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import check_mel, load_vae, save_vae
from models.tta.ldm.diffusion import scheduler_settings
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from utils.checkpoint import load_tensors, load_weights, save_tensors
from utils.device import graphed, memory_format, precision
from utils.run_folder import read_config

if TYPE_CHECKING:  # an import of seconds, for those who sample alone
    from diffusers import SchedulerMixin


class Pipeline:
    """What turns prompts into mels, with the settings that it was trained under."""

    def __init__(
        self,
        config: Config,
        unet: UNet,
        vae: AutoencoderKL,
        text_encoder: TextEncoder,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> None:
        self.config, self.mel = config, config.preprocess.mel
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.autocast = autocast

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        negative: str = "",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        frames: int | None = None,
    ) -> Tensor:
        """mel [B, n_mel, frames], one for each prompt and seed, whatever else is in the batch.

        What is None is as the config says; `frames` is the training length there.
        """
        defaults = self.config.inference
        frames = frames or self.config.preprocess.segment_frames
        guidance = defaults.guidance_scale if guidance_scale is None else guidance_scale
        scheduler = make_sampler(sampler or defaults.sampler, self.config.model.noise_scheduler)
        start_sampler(scheduler, num_steps or defaults.num_steps)
        with self.autocast():
            latent = self._denoise(prompts, seeds, negative, guidance, scheduler, frames)
            mel = self.vae.decode(self.vae.unscale(latent))
        return mel[:, 0, :, :frames].float()

    def _denoise(self, prompts, seeds, negative, guidance, scheduler, frames) -> Tensor:
        device = next(self.unet.parameters()).device
        guided = guidance != 1
        # Guidance runs both prompts in one batch; without it the negative prompt is not needed.
        texts = [*prompts, *([negative] * len(prompts))] if guided else list(prompts)
        context = self.unet.prepare_text(*self.text_encoder.encode(texts))
        factor = self.vae.config.downsampling
        shape = (self.vae.config.z_channels, self.mel.n_mel // factor, -(-frames // factor))
        latent = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        ).to(device, memory_format=memory_format(device))
        latent = latent * scheduler.init_noise_sigma
        unet = graphed(
            lambda latent, timesteps: self.unet(latent, timesteps, context=context),
            latent.repeat(1 + guided, 1, 1, 1),
            torch.zeros(len(texts), dtype=torch.int64, device=device),
        )
        for timestep in scheduler.timesteps:
            inputs = torch.cat([latent, latent]) if guided else latent
            inputs = scheduler.scale_model_input(inputs, timestep)
            timesteps = timestep.to(device).expand(len(inputs))
            prediction = unet(inputs, timesteps).float()
            if guided:  # classifier-free guidance (Ho & Salimans, 2022, arXiv:2207.12598, eq. 6)
                prompted, empty = prediction.chunk(2)
                prediction = empty + guidance * (prompted - empty)
            latent = scheduler.step(prediction, timestep, latent).prev_sample
        return latent

    def for_inference(self, device: torch.device) -> Pipeline:
        """This pipeline on `device`, frozen.

        U-Net and VAE are in the precision that train.mixed_precision means there, T5 in float32.
        """
        for module in (self.unet, self.vae):
            module.requires_grad_(False).eval().to(device, memory_format=memory_format(device))
            if precision(self.config.train.mixed_precision, device) == "bf16":
                module.set_precision(torch.bfloat16)
        self.text_encoder.requires_grad_(False).eval().to(device)
        return self

    def write(self, folder: Path) -> None:
        """Writes what `load_pipeline` takes, besides config.json."""
        save_tensors(folder / "unet.safetensors", self.unet.state_dict())
        save_vae(folder / "vae", self.vae, self.mel)
        self.text_encoder.save(folder / "text_encoder")


def load_pipeline(folder: Path, device: str | torch.device) -> Pipeline:
    """The pipeline in a stage-2 checkpoint or final folder, to make mels on `device`."""
    return read_pipeline(folder).for_inference(torch.device(device))


def read_pipeline(folder: Path) -> Pipeline:
    """The pipeline in a stage-2 checkpoint or final folder, its weights as they are there."""
    config = read_config(folder)
    saved = load_vae(folder / "vae")
    check_mel(config.preprocess.mel, saved.mel, folder / "vae")
    text = TextEncoder.from_pretrained(
        str(folder / "text_encoder"), config.model.text_encoder.max_tokens
    )
    unet = UNet(config.model.audioldm)
    weights = folder / "unet.safetensors"
    load_weights(unet, load_tensors(weights), weights)
    return Pipeline(config, unet, saved.vae, text)


def make_sampler(name: str, config: NoiseSchedulerConfig) -> SchedulerMixin:
    """A deterministic sampler of diffusers over the training's noise schedule.

    The two of higher order go by the noise levels of Karras et al. (2022, arXiv:2206.00364, eq. 5):
    with timesteps at equal distances their last step takes half of the fine detail away. The others
    start at the noisiest timestep (Lin et al. 2024, arXiv:2305.08891, table 2). DDIM is the solver
    of first order (Lu et al. 2022, arXiv:2206.00927, section 4.1), in diffusers the one of its two
    that is right where the steps do not divide the schedule.
    """
    import diffusers

    classes = {
        "ddim": diffusers.DPMSolverMultistepScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
        "pndm": diffusers.PNDMScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    settings = scheduler_settings(config)
    if name in ("dpm++", "unipc"):
        settings["use_karras_sigmas"] = True
    else:
        settings["timestep_spacing"] = "trailing"
    if name == "ddim":
        settings["solver_order"] = 1
        settings["final_sigmas_type"] = "zero" if config.set_alpha_to_one else "sigma_min"
    return classes[name].from_config(settings)


def start_sampler(scheduler: SchedulerMixin, num_steps: int) -> None:
    """Sets a sampler of diffusers to its first of `num_steps` steps.

    Two neighbours among many steps can round to one timestep, so a step is not to be found by it.
    """
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
