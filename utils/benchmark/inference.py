"""A sentence to ten seconds of sound, beside 200 steps of PNDM written plainly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.diffusion import scheduler_settings
from models.tta.ldm.pipeline import Pipeline
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoder import Vocoder, load_vocoder
from utils.benchmark.made_up import write_t5
from utils.benchmark.measure import Line, Part, Ratio, count_gflop, peak_gib, reset_peak, seconds_of
from utils.config import Config, load_config

PROMPT = "A man is whistling while rain falls on the roof of an old car"
PLAIN_STEPS = 200
OURS, PLAIN = "this recipe", f"{PLAIN_STEPS} steps of pndm, plainly"


def measure(
    config: str, vae_config: str, overrides: list[str], rounds: int, root: Path, device
) -> Part:
    """Of the models in these configs, with random weights of their full size.

    The plain way takes minutes on a CPU and is timed once; ours, `rounds` times.
    """
    write_t5(root / "t5")
    settings = load_config(config, overrides)
    vocoder = load_vocoder(settings.inference.vocoder, settings.preprocess.mel).to(device)

    def new() -> Pipeline:
        return new_pipeline(settings, load_config(vae_config), root / "t5")

    ours = timed(OURS, new().for_inference(device), vocoder, rounds, device)
    plain = timed(PLAIN, Plain(new(), device), vocoder, 1, device)
    wanted = "at least 20" if device.type == "cuda" else "at least 8"
    about = f"{config}, one clip of {settings.preprocess.segment_frames} frames, vocoder included"
    gain = Ratio(f"{PLAIN} / {OURS}", plain.seconds / ours.seconds, wanted)
    return Part("inference", about, [ours, plain], [gain])


@torch.no_grad()
def timed(name: str, to_mel: Callable, vocoder: Vocoder, rounds: int, device) -> Line:
    """To sound; FLOPs are those of a first call, which is timed if there is no other."""
    reset_peak(device)
    gflop = 0.0

    def first() -> None:
        nonlocal gflop
        gflop = count_gflop(lambda: vocoder(to_mel([PROMPT], [0])))

    seconds = [seconds_of(first, device)]
    more = rounds if rounds > 1 else 0
    seconds += [seconds_of(lambda: vocoder(to_mel([PROMPT], [0])), device) for _ in range(more)]
    return Line(name, min(seconds), 1, gflop, peak_gib(device))


def new_pipeline(config: Config, vae_config: Config, t5: Path) -> Pipeline:
    torch.manual_seed(0)
    text = TextEncoder.from_pretrained(str(t5), config.model.text_encoder.max_tokens)
    unet, vae = UNet(config.model.audioldm), AutoencoderKL(vae_config.model.autoencoderkl)
    return Pipeline(config, unet, vae, text)


class Plain:
    """Float32, the text's keys and values made anew at each of PNDM's steps."""

    def __init__(self, pipeline: Pipeline, device: torch.device) -> None:
        self.pipeline, self.device = pipeline, device
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            module.requires_grad_(False).eval().to(device)

    def __call__(self, prompts: list[str], _seeds: list[int]) -> Tensor:
        """mel [B, n_mel, frames]"""
        pipeline, count = self.pipeline, len(prompts)
        config, vae = pipeline.config, pipeline.vae
        noise = scheduler_settings(config.model.noise_scheduler)
        scheduler = diffusers.PNDMScheduler.from_config(noise)
        scheduler.set_timesteps(PLAIN_STEPS)
        text = pipeline.text_encoder.encode([*prompts, *[""] * count])
        factor, mel = vae.config.downsampling, config.preprocess
        size = (mel.n_mel // factor, mel.segment_frames // factor)
        latent = torch.randn(count, vae.config.z_channels, *size).to(self.device)
        for timestep in scheduler.timesteps:
            both = torch.cat([latent, latent])
            prediction = pipeline.unet(both, timestep.to(self.device).expand(2 * count), *text)
            prompted, empty = prediction.chunk(2)
            prediction = empty + config.inference.guidance_scale * (prompted - empty)
            latent = scheduler.step(prediction, timestep, latent).prev_sample
        return vae.decode(vae.unscale(latent))[:, 0]
