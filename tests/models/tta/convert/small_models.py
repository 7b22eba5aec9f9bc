"""Small models with random weights, to be converted."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from config.model_schema import VocosConfig
from config.schema import Config
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.hifigan import HiFiGAN, load_hifigan
from models.vocoders.hifigan_v3 import HifiGanV3
from models.vocoders.saved import TrainedVocos, VocoderSettings
from tests import tiny
from utils.checkpoint import write_json

VAE_SHAPE = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attention": True}


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight counts: norms, biases, and what starts at zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
    return module


def small_pipeline(root: Path, **changes: dict) -> Pipeline:
    """A text-to-audio model for 16 bands; its config, with changes, is written below `root`."""
    root.mkdir(exist_ok=True)
    config: Config = tiny.load(tiny.write_config(root, 2), changes)
    torch.manual_seed(0)
    stage_1 = {"model": {"autoencoderkl": {**VAE_SHAPE, "z_channels": 2}}}
    shape = tiny.load(tiny.write_config(root, 1), stage_1).model.autoencoderkl
    vae = randomise(AutoencoderKL(shape))
    vae.latent_std.fill_(0.73)
    text = config.model.text_encoder
    encoder = TextEncoder.small(text.small, tiny.WORDS, text.max_tokens)
    unet = randomise(UNet(config.model.audioldm))
    for module in (vae, encoder, unet):
        module.requires_grad_(False).eval()
    return Pipeline(PipelineSettings.of(config), unet, vae, encoder)


def write_run(folder: Path, pipeline: Pipeline) -> Path:
    """A stage-2 folder, as training leaves it."""
    folder.mkdir(parents=True)
    pipeline.write(folder)
    return folder


def write_vocoder(folder: Path, plain: bool = False) -> HiFiGAN:
    """A HiFi-GAN for the mel of `tiny`; `plain`: of variant V3."""
    torch.manual_seed(1)
    config = SpeechT5HifiGanConfig(
        architectures=["HifiGanV3" if plain else "SpeechT5HifiGan"],
        model_in_dim=tiny.MEL.n_mel,
        sampling_rate=tiny.MEL.sample_rate,
        upsample_initial_channel=16,
        upsample_rates=[8, 4],
        upsample_kernel_sizes=[15, 8],  # an odd difference gives some samples too many
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    )
    generator = randomise((HifiGanV3 if plain else SpeechT5HifiGan)(config))
    generator.save_pretrained(folder)
    write_json(folder / "mel_config.json", tiny.MEL.__dict__)
    return load_hifigan(folder, tiny.MEL)


def write_vocos(folder: Path) -> TrainedVocos:
    """A Vocos for the mel of `tiny`, as a training leaves it."""
    torch.manual_seed(2)
    settings = VocoderSettings(tiny.MEL, VocosConfig(16, 32, 2))
    vocoder = TrainedVocos(randomise(settings.make()), settings)
    vocoder.generator.head.out.weight.data *= 0.1  # magnitudes are exponentials of it
    vocoder.save(folder)
    return vocoder
