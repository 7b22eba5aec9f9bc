"""A sentence to ten seconds of sound, beside 200 steps of PNDM written plainly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import diffusers
import torch
from torch import Tensor

from bins.benchmark.measure import Line, Part, count_gflop, reset_peak, seconds_of
from bins.benchmark.synthetic import write_t5
from config.load import load_config
from config.schema import Config
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.sampling import generate
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.load import load_vocoder
from utils.device import peak_memory

PROMPT = "A man is whistling while rain falls on the roof of an old car"
PLAIN_STEPS = 200
OURS, PLAIN = "this recipe", f"{PLAIN_STEPS} steps of pndm, plainly"


def measure(
    config: str,
    vae_config: str,
    overrides: list[str],
    rounds: int,
    root: Path,
    device: torch.device,
) -> Part:
    """Of the models in these configs, with random weights of their full size.

    The plain way takes minutes on a CPU and is timed once there; ours, `rounds` times.
    """
    write_t5(root / "t5")
    settings = load_config(config, overrides)
    vocoder = load_vocoder(settings.inference.vocoder, settings.preprocess.mel).to(device)

    def new() -> Pipeline:
        return new_pipeline(settings, load_config(vae_config), root / "t5")

    pipeline = new().for_inference(device)
    sounds = partial(generate, pipeline, vocoder, [PROMPT], pipeline.settings.sampling)
    ours = timed(OURS, lambda: list(sounds()), rounds, device)
    with mock.patch("models.tta.ldm.sampling.graphed", lambda function, *_: function):
        ours.gflop = count_gflop(lambda: pipeline([PROMPT], [0]))  # a graph's are not seen
    plainly, rounds = Plain(new(), device), rounds if device.type == "cuda" else 1
    plain = timed(PLAIN, lambda: vocoder(plainly(PROMPT)), rounds, device)
    about = f"{config}, one clip of {settings.preprocess.segment_frames} frames, vocoder included"
    part = Part("inference", about, [ours, plain])
    wanted = "at least 20" if device.type == "cuda" else "at least 8"
    part.compare(PLAIN, OURS, f"{PLAIN} / {OURS}", wanted)
    return part


@torch.no_grad()
def timed(name: str, to_sound: Callable[[], Tensor], rounds: int, device: torch.device) -> Line:
    """Where there are several rounds, after one that is not timed."""
    reset_peak(device)
    if rounds > 1:
        to_sound()
    seconds = min(seconds_of(to_sound, device) for _ in range(rounds))
    return Line(name, seconds, 1, gib=peak_memory(device) / 2**30)


def new_pipeline(config: Config, vae_config: Config, t5: Path) -> Pipeline:
    torch.manual_seed(0)
    text = TextEncoder.from_pretrained(str(t5), config.model.text_encoder.max_tokens)
    unet, vae = UNet(config.model.audioldm), AutoencoderKL(vae_config.model.autoencoderkl)
    return Pipeline(PipelineSettings.of(config), unet, vae, text)


class Plain:
    """Float32, the text's keys and values made anew at each of PNDM's steps."""

    def __init__(self, pipeline: Pipeline, device: torch.device) -> None:
        self.pipeline, self.device = pipeline, device
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            module.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """mel [1, n_mel, frames]"""
        pipeline = self.pipeline
        settings, vae = pipeline.settings, pipeline.vae
        noise = dataclasses.asdict(settings.noise_scheduler)
        scheduler = diffusers.PNDMScheduler.from_config(noise)
        scheduler.set_timesteps(PLAIN_STEPS)
        text = pipeline.text_encoder.encode([prompt, ""])
        shape = vae.config.latent_shape(settings.mel.n_mel, settings.frames)
        latent = torch.randn(1, *shape).to(self.device)
        for timestep in scheduler.timesteps:
            both = torch.cat([latent, latent])
            prediction = pipeline.unet(both, timestep.to(self.device).expand(2), *text)
            prompted, empty = prediction.chunk(2)
            prediction = empty + settings.sampling.guidance_scale * (prompted - empty)
            latent = scheduler.step(prediction, timestep, latent).prev_sample
        return vae.decode(vae.unscale(latent))[:, 0]
