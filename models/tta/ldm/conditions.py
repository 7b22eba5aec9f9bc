"""What stage 2 is conditioned on, and whether data and weights to start from fit the config."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from config.load import load_config
from config.model_schema import AudioLDMModel, AutoencoderKLConfig, UNetConfig
from config.schema import AudioLDMExperiment
from models.tta.evaluation.hub_models import CLAP, CLAP_RATE
from models.tta.ldm.pipeline import PipelineSettings
from models.tta.ldm.text_encoder import weights_fingerprint
from processors.cache import Rows
from processors.dataset import mel_frames
from processors.mel import check_mel
from processors.metadata import mel_path
from processors.sound_embedding import build_sound_cache
from processors.wav_dataset import pcm_path
from utils.errors import UserError
from utils.hub import model_folder
from utils.run_folder import REPOSITORY

if TYPE_CHECKING:
    from accelerate import Accelerator

# Keys of model.noise_scheduler that training knows; the others are of samplers.
NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


def embed_sounds(
    config: AudioLDMExperiment,
    clips: Sequence[dict],
    windows: np.ndarray,
    cache: Path,
    accelerator: Accelerator,
) -> Rows:
    """CLAP's embedding of every window of every clip [windows, D], built or found in `cache`.

    Args:
        windows: int [windows, 2], the clip and the first frame of each, as the cache of latents
            has them.
    """
    preprocess, name = config.preprocess, config.model.text_encoder.pretrained
    clap = CLAP(model_folder(name)).to(accelerator.device).eval()
    lengths = [mel_frames(mel_path(config, clip)) for clip in clips]
    paths, hop = [pcm_path(config, clip) for clip in clips], preprocess.hop_size
    crops = [
        (paths[clip], start * hop, min(preprocess.segment_frames, lengths[clip] - start) * hop)
        for clip, start in windows.tolist()
    ]
    fingerprint = weights_fingerprint(clap.net)
    return build_sound_cache(
        cache, crops, preprocess.sample_rate, CLAP_RATE, clap, fingerprint, accelerator
    )


def check_text_width(model: AudioLDMModel, width: int) -> None:
    """Raises UserError unless the U-Net is for texts of the text encoder's `width`."""
    unet = model.audioldm
    if width != unet.text_dim:
        name = "class_embed_dim" if unet.context_dim is None else "context_dim"
        raise UserError(
            f"model.audioldm.{name} {unet.text_dim} must be {width}, the width of the text encoder"
            f" {model.text_encoder.pretrained}"
        )


def check_latent(config: AudioLDMExperiment, vae: AutoencoderKLConfig, source: Path) -> None:
    """Raises UserError unless the VAE in `source` gives latents [z, height, width] as the config's.

    It names the shipped configs of the same task that are for the VAE's latents.
    """
    preprocess, latent = config.preprocess, list(config.model.latent)
    for name in ("n_mel", "segment_frames"):
        if getattr(preprocess, name) % vae.downsampling:
            raise UserError(
                f"preprocess.{name} {getattr(preprocess, name)} must be a multiple of"
                f" {vae.downsampling}, the downsampling of the VAE in {source}"
            )
    found = list(vae.latent_shape(preprocess.n_mel, preprocess.segment_frames))
    if latent != found:
        fitting = _configs_for([*found[:2], preprocess.n_mel], config.task)
        raise UserError(
            f"the VAE in {source} gives latents {found}, and this model is for {latent}: take a VAE"
            " that fits (model.autoencoder_path), or a config for this latent"
            f" ({' or '.join(fitting) or 'model.latent'})"
        )


def _configs_for(shape: list[int], task: str) -> list[str]:
    """The shipped configs of a task for latents of this [z, height] and number of mel bands."""
    found = []
    for path in sorted(REPOSITORY.glob("egs/tta/*/exp_config*.json")):
        with contextlib.suppress(UserError):  # of one that the user has changed
            config = load_config(path)
            if config.task == task and config.train.lora is None:
                theirs = [*config.model.latent[:2], config.preprocess.n_mel]
                found += [f"--config {path.relative_to(REPOSITORY)}"] * (theirs == shape)
    return found


def check_start(config: AudioLDMExperiment, found: PipelineSettings, start: Path) -> None:
    """Raises UserError where the weights in `start` were made for another mel or network.

    Where adapters are trained, it also has to be the same noise: they cannot learn another.
    """
    model = config.model
    if model.flow_map is None:
        check_no_flow_map(found, start)
    check_mel(config.preprocess.mel, found.mel, start)
    ours, theirs = (
        {f"audioldm.{name}": value for name, value in _by_level(unet).items()}
        for unet in (model.audioldm, found.unet)
    )
    if config.train.lora is not None:
        for name in NOISE:
            ours[f"noise_scheduler.{name}"] = getattr(model.noise_scheduler, name)
            theirs[f"noise_scheduler.{name}"] = getattr(found.noise_scheduler, name)
    if different := [name for name in ours if ours[name] != theirs[name]]:
        keys = " ".join(f"'model.{name}={json.dumps(theirs[name])}'" for name in different)
        raise UserError(
            f"train.init_from {start}: of another U-Net than the config's; that one has {keys}"
        )


def check_no_flow_map(settings: PipelineSettings, start: Path) -> None:
    """Raises UserError where the weights in `start` are of a flow map: nothing starts from one."""
    if settings.unet.span_embedding:
        raise UserError(
            f"{start}: is a flow map; train.init_from must name the run that it was made of"
        )


def _by_level(unet: UNetConfig) -> dict:
    """The config as plain values, in the one form for those that can be written in several."""
    per_level = {
        name: [unet.at_level(name, level) for level in range(unet.lowest + 1)]
        for name in ("num_heads", "transformer_depth")
    }
    attention = sorted(set(unet.attention_resolutions), reverse=True)
    return {**dataclasses.asdict(unet), **per_level, "attention_resolutions": attention}
