"""A trained VAE on disk: pipeline.json (its shape and its mel) and vae.safetensors.

A stage-1 checkpoint is such a folder, and so is `vae/` inside every stage-2 checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.model_schema import AutoencoderKLConfig
from config.schema import MelConfig
from config.typed_json import typed
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.pipeline_json import picked, read_settings, write_settings
from utils.checkpoint import file_hash, read_weights_into, save_tensors

MODEL_TYPE = "AutoencoderKL"


@typed
class VAESettings:
    """What a VAE's pipeline.json holds."""

    mel: MelConfig
    autoencoderkl: AutoencoderKLConfig


@dataclass(frozen=True)
class SavedVAE:
    vae: AutoencoderKL
    mel: MelConfig
    fingerprint: str  # of weights, shape and mel: names the caches made with it


def load_vae(folder: Path) -> SavedVAE:
    """The VAE in `folder`, frozen and in evaluation mode."""
    settings = read_settings(folder, MODEL_TYPE, VAESettings, _from_training)
    vae = AutoencoderKL(settings.autoencoderkl)
    weights = folder / "vae.safetensors"
    read_weights_into(vae, weights)
    vae.requires_grad_(False).eval()
    return SavedVAE(vae, settings.mel, f"{file_hash(weights)}-{settings.mel.fingerprint}")


def save_vae(folder: Path, vae: AutoencoderKL, mel: MelConfig) -> None:
    """Writes what `load_vae` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, MODEL_TYPE, VAESettings(mel, vae.config))
    save_tensors(folder / "vae.safetensors", vae.state_dict())


def _from_training(config: dict[str, Any]) -> dict[str, Any]:
    shape = picked(AutoencoderKLConfig, config["model"]["autoencoderkl"])
    return {"mel": picked(MelConfig, config["preprocess"]), "autoencoderkl": shape}
