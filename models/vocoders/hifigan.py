"""HiFi-GAN (Kong et al. 2020, arXiv:2010.05646): mel -> wav by a trained network.

A HiFi-GAN is a folder in one of two formats:
    config.json, model.safetensors, mel_config.json    transformers' SpeechT5HifiGan, and its mel
    config.json, g_02500000                            HiFi-GAN's published code (its newest g_*)
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config.schema import MelConfig
from config.typed_json import Origins, build
from processors.mel import SETTINGS_FILE
from utils.checkpoint import load_tensors, load_weights, read_json, write_json
from utils.errors import UserError


class HiFiGAN(nn.Module):
    """A HiFi-GAN generator from a folder.

    Args:
        folder: in either of the two formats.
        mel: the settings of the mels to come; None: those that it was made for.

    Attributes: mel, what it was made for; generator, transformers' network.

    Raises:
        UserError: no HiFi-GAN, damaged, or made for another mel.
    """

    def __init__(self, folder: Path, mel: MelConfig | None = None) -> None:
        super().__init__()
        self.name = str(folder)
        config = read_json(folder / "config.json")
        published = "resblock" in config
        self.mel = _published_mel(folder, config) if published else _own_mel(folder, config)
        if mel is not None and mel != self.mel:
            raise UserError(
                f"vocoder {folder}: made for another mel than the model's:"
                f" {', '.join(self.mel.differences(mel))}"
            )
        shape = _published_shape(folder, config) if published else config
        self.generator = _generator(folder, shape, self.mel)
        weights = _newest(folder) if published else folder / "model.safetensors"
        tensors = _published_tensors(weights, self.mel) if published else load_tensors(weights)
        load_weights(self.generator, tensors, weights)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]"""
        wav = self.generator(mel.float().transpose(1, 2))
        # Upsampling with kernels that are longer by an odd number gives some samples too many.
        return wav[:, : mel.shape[2] * self.mel.hop_size]

    def save(self, folder: Path) -> None:
        """Writes the first of the two formats."""
        self.generator.save_pretrained(folder)
        write_json(folder / SETTINGS_FILE, dataclasses.asdict(self.mel))


def _generator(folder: Path, shape: dict[str, Any], mel: MelConfig) -> nn.Module:
    """The network that a SpeechT5HifiGanConfig describes, for this mel, with random weights."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    from models.vocoders.hifigan_v3 import HifiGanV3

    try:
        config = SpeechT5HifiGanConfig.from_dict(shape)
        bands, samples = config.model_in_dim, math.prod(config.upsample_rates)
        plain = config.architectures == [HifiGanV3.__name__]
        generator = HifiGanV3(config) if plain else SpeechT5HifiGan(config)
    # A config may hold anything; what it breaks, and how, is up to transformers and torch.
    except Exception as error:
        raise UserError(f"{folder / 'config.json'}: describes no HiFi-GAN: {error}") from error
    if (bands, samples) != (mel.n_mel, mel.hop_size):
        raise UserError(
            f"vocoder {folder}: turns {bands} bands into {samples} samples a frame, but its mel has"
            f" n_mel {mel.n_mel} and hop_size {mel.hop_size}"
        )
    return generator


# ---------------------------------------------------------------- transformers' format


def _own_mel(folder: Path, config: dict[str, Any]) -> MelConfig:
    if config.get("model_type") != "speecht5_hifigan":
        raise UserError(
            f"{folder / 'config.json'}: neither transformers' SpeechT5HifiGan (model_type"
            " 'speecht5_hifigan') nor of HiFi-GAN's published code (resblock, upsample_rates, ...)"
        )
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise UserError(
            f"{path}: missing; it must hold the settings of the mels that the vocoder was trained"
            " on, as the file of that name beside prepared mels does"
        )
    return build(MelConfig, read_json(path), (), Origins({}, str(path)))


# ---------------------------------------------------------------- HiFi-GAN's published format


def _value(folder: Path, config: dict[str, Any], name: str) -> Any:
    try:
        return config[name]
    except KeyError:
        raise UserError(f"{folder / 'config.json'}: {name} is missing") from None


def _published_mel(folder: Path, config: dict[str, Any]) -> MelConfig:
    names = {
        "sample_rate": "sampling_rate",
        "n_fft": "n_fft",
        "win_size": "win_size",
        "hop_size": "hop_size",
        "n_mel": "num_mels",
        "fmin": "fmin",
        "fmax": "fmax",
    }
    settings = {ours: _value(folder, config, theirs) for ours, theirs in names.items()}
    return build(MelConfig, settings, (), Origins({}, str(folder / "config.json")))


def _published_shape(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The published config in the terms of SpeechT5HifiGanConfig."""
    classes = {"1": "SpeechT5HifiGan", "2": "HifiGanV3"}
    if str(config["resblock"]) not in classes:
        raise UserError(
            f"{folder / 'config.json'}: resblock {config['resblock']!r} must be '1' or '2'"
        )
    names = (
        "upsample_initial_channel",
        "upsample_rates",
        "upsample_kernel_sizes",
        "resblock_kernel_sizes",
        "resblock_dilation_sizes",
    )
    return {
        "architectures": [classes[str(config["resblock"])]],
        "model_in_dim": _value(folder, config, "num_mels"),
        "sampling_rate": _value(folder, config, "sampling_rate"),
        "normalize_before": False,
        **{name: _value(folder, config, name) for name in names},
    }


def _newest(folder: Path) -> Path:
    generators = sorted(folder.glob("g_*"))
    if not generators:
        raise UserError(f"{folder}: no g_XXXXXXXX beside HiFi-GAN's config.json")
    return generators[-1]


def _published_tensors(path: Path, mel: MelConfig) -> dict[str, torch.Tensor]:
    """The weights under SpeechT5HifiGan's names; its shift and scale of the mel do nothing here."""
    unscaled = {"mean": torch.zeros(mel.n_mel), "scale": torch.ones(mel.n_mel)}
    return _folded(_read_published(path), path) | unscaled


def _read_published(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a published checkpoint {"generator": ...}; a pickle with code is refused."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    # Half of a file, or something else under its name, can make the unpickler raise anything.
    except Exception as error:
        raise UserError(
            f"{path}: not a whole checkpoint of plain tensors, and what could run code is not read"
        ) from error
    tensors = data.get("generator") if isinstance(data, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in tensors.items()
    ):
        raise UserError(f"{path}: holds no 'generator' with its tensors; is it a discriminator?")
    return tensors


def _folded(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Published names to SpeechT5HifiGan's, weight norm worked in: w = g v / |v|.

    |v| is over all but the first dimension (Salimans & Kingma 2016, eq. 2). torch names g and v
    weight_g and weight_v, in newer versions parametrizations.weight.original0 and original1.
    """
    folded = {}
    for name, value in tensors.items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        folded[name.replace("ups.", "upsampler.", 1) if name.startswith("ups.") else name] = value
    for name in [name for name in folded if name.endswith(".weight_g")]:
        scale, direction = folded.pop(name), folded.pop(name[:-1] + "v", None)
        if direction is None or scale.shape != (len(direction), *[1] * (direction.dim() - 1)):
            raise UserError(f"{path}: {name} has no weight_v of its shape beside it")
        norm = direction.flatten(1).norm(dim=1).view_as(scale)
        folded[name.removesuffix("_g")] = scale * direction / norm
    return folded
