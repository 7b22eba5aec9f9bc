"""A trained VAE on disk: config.json (its shape and its mel) and vae.safetensors.

A stage-1 checkpoint is such a folder, and so is `vae/` inside every stage-2 checkpoint.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from config.model_schema import AutoencoderKLConfig
from config.schema import MelConfig
from config.typed_json import Origins, build
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from utils.checkpoint import (
    file_hash,
    load_tensors,
    load_weights,
    read_json,
    save_tensors,
    write_json,
)
from utils.errors import UserError


@dataclass(frozen=True)
class SavedVAE:
    vae: AutoencoderKL
    mel: MelConfig
    fingerprint: str  # of weights, shape and mel: names the caches made with it


def load_vae(folder: Path) -> SavedVAE:
    """The VAE in `folder`, frozen and in evaluation mode."""
    data = read_json(folder / "config.json")
    origins = Origins({}, str(folder / "config.json"))
    try:
        shape = data["model"]["autoencoderkl"]
        names = [field.name for field in dataclasses.fields(MelConfig)]
        settings = {name: data["preprocess"][name] for name in names}
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'}: not the config of a VAE: {error}") from None
    vae = AutoencoderKL(build(AutoencoderKLConfig, shape, ("model", "autoencoderkl"), origins))
    mel = build(MelConfig, settings, ("preprocess",), origins)
    weights = folder / "vae.safetensors"
    load_weights(vae, load_tensors(weights), weights)
    vae.requires_grad_(False).eval()
    return SavedVAE(vae, mel, f"{file_hash(weights)}-{mel.fingerprint}")


def save_vae(folder: Path, vae: AutoencoderKL, mel: MelConfig) -> None:
    """Writes a folder that `load_vae` takes, with nothing else in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = dataclasses.asdict(vae.config)
    config = {"model": {"autoencoderkl": shape}, "preprocess": dataclasses.asdict(mel)}
    write_json(folder / "config.json", config)
    save_tensors(folder / "vae.safetensors", vae.state_dict())


def check_mel(wanted: MelConfig, found: MelConfig, source: object) -> None:
    """Raises UserError unless weights from `source` were made for the mel of the config."""
    if wanted != found:
        raise UserError(
            f"{source}: made for another mel than the config's: "
            + ", ".join(found.differences(wanted))
        )
