"""HiFi-GAN (Kong et al. 2020, arXiv:2010.05646): mel -> wav by a trained network.

A HiFi-GAN is a folder in one of two formats:
    config.json, model.safetensors, mel_config.json    transformers' SpeechT5HifiGan, and its mel
    config.json, g_02500000 or generator_v1            HiFi-GAN's published code (the newest g_*)
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config.model_schema import HiFiGANConfig
from config.schema import MEL_KEYS, MelConfig
from config.typed_json import build
from models.vocoders.pieces import by_pieces
from processors.mel import SETTINGS_FILE, check_mel
from utils.checkpoint import load_tensors, load_weights, read_json, write_json
from utils.errors import UserError
from utils.weight_files import read_weights


class HiFiGAN(nn.Module):
    """A frozen HiFi-GAN generator.

    Args:
        generator: transformers' network.
        mel: what it was made for.
    """

    def __init__(self, generator: nn.Module, mel: MelConfig) -> None:
        super().__init__()
        self.generator, self.mel = generator, mel
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]"""
        frames = mel.float().transpose(1, 2)

        def wav_of(first: int, last: int) -> torch.Tensor:
            wav = self.generator(frames[:, first:last])
            # Upsampling with kernels that are longer by an odd number gives some samples too many.
            return wav[:, : (last - first) * self.mel.hop_size]

        return by_pieces(wav_of, mel.shape[2], self.context)

    @property
    def context(self) -> int:
        """Frames before and after its own that a sample depends on."""
        config = self.generator.config
        blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        # A dilated convolution is followed by one that is not, but in HifiGanV3.
        reach = max(size // 2 * sum(d + 1 for d in dilations) for size, dilations in blocks)
        frames, rate = 3.0, 1  # 3: the first convolution's
        for up, size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            frames += (size + up) / (2 * up) / rate
            rate *= up
            frames += reach / rate
        return math.ceil(frames + 3 / rate)  # 3: the last convolution's

    def save(self, folder: Path) -> None:
        """Writes the first of the two formats."""
        self.generator.save_pretrained(folder)
        write_json(folder / SETTINGS_FILE, dataclasses.asdict(self.mel))


class TrainableHiFiGAN(nn.Module):
    """The generator of arXiv:2010.05646, with weight norm on all of its convolutions, to train."""

    def __init__(self, mel: MelConfig, shape: HiFiGANConfig) -> None:
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        super().__init__()
        self.mel = mel
        self.shape = {
            **dataclasses.asdict(shape),
            "architectures": ["SpeechT5HifiGan"],
            "model_in_dim": mel.n_mel,
            "sampling_rate": mel.sample_rate,
            "normalize_before": False,
        }
        self.generator = SpeechT5HifiGan(SpeechT5HifiGanConfig.from_dict(self.shape))
        self.generator.apply_weight_norm()

    def forward(self, mel: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav, once for each of `noise` [N, B, frames * hop_size]"""
        wav = self.generator(mel.float().transpose(1, 2)).float()
        return wav[:, : mel.shape[2] * self.mel.hop_size].expand_as(noise)

    def take(self, published: HiFiGAN, source: Path) -> None:
        """Takes the weights of a frozen one of this shape, which came from `source`."""
        if published.generator.config.normalize_before:
            raise UserError(f"{source}: a HiFi-GAN that scales its mels; it cannot be trained here")
        folded = make_hifigan(self.shape, self.mel, published.generator.state_dict(), source)
        folded.generator.apply_weight_norm()
        self.generator.load_state_dict(folded.generator.state_dict())

    def frozen(self) -> HiFiGAN:
        """This generator for use, its weight norm worked in."""
        folded = _folded(self.generator.state_dict(), Path("vocoder.safetensors"))
        return make_hifigan(self.shape, self.mel, folded, Path("vocoder.safetensors"))


def load_hifigan(folder: Path, mel: MelConfig) -> HiFiGAN:
    """The HiFi-GAN in a folder of either format, for mels of these settings.

    Raises:
        UserError: no HiFi-GAN, damaged, or made for another mel.
    """
    if "resblock" in read_json(folder / "config.json"):
        vocoder = read_published(folder / "config.json", find_published(folder))
    else:
        vocoder = _read_own(folder)
    check_mel(mel, vocoder.mel, f"vocoder {folder}")
    return vocoder


def make_hifigan(
    shape: dict[str, Any], mel: MelConfig, tensors: dict[str, torch.Tensor], source: Path
) -> HiFiGAN:
    """The network that a SpeechT5HifiGanConfig describes, with these weights; both of `source`."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    from models.vocoders.hifigan_v3 import HifiGanV3

    try:
        config = SpeechT5HifiGanConfig.from_dict(shape)
        bands, samples = config.model_in_dim, math.prod(config.upsample_rates)
        plain = config.architectures == [HifiGanV3.__name__]
        generator = HifiGanV3(config) if plain else SpeechT5HifiGan(config)
    # A config may hold anything; what it breaks, and how, is up to transformers and torch.
    except Exception as error:
        raise UserError(f"{source}: its config.json describes no HiFi-GAN: {error}") from error
    if (bands, samples) != (mel.n_mel, mel.hop_size):
        raise UserError(
            f"vocoder {source}: turns {bands} bands into {samples} samples a frame, but its mel has"
            f" n_mel {mel.n_mel} and hop_size {mel.hop_size}"
        )
    load_weights(generator, tensors, source)
    return HiFiGAN(generator, mel)


# ---------------------------------------------------------------- transformers' format


def _read_own(folder: Path) -> HiFiGAN:
    config = read_json(folder / "config.json")
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
    mel = build(MelConfig, read_json(path), path)
    return make_hifigan(config, mel, load_tensors(folder / "model.safetensors"), folder)


# ---------------------------------------------------------------- HiFi-GAN's published format


def read_published(settings: Path, weights: Path) -> HiFiGAN:
    """The generator in a published config.json and checkpoint, whatever their names."""
    config = read_json(settings)
    try:
        return make_published(config, read_weights(weights, "generator"), settings, weights)
    except KeyError as error:
        raise UserError(f"{settings}: {error.args[0]} is missing") from None


def make_published(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], settings: Path, weights: Path
) -> HiFiGAN:
    """The generator of a published config and weights; the paths are where they stand."""
    mel, shape = _published_mel(config, settings), _published_shape(config, settings)
    # SpeechT5HifiGan shifts and scales the mel; published generators take it as it is.
    unscaled = {"mean": torch.zeros(mel.n_mel), "scale": torch.ones(mel.n_mel)}
    return make_hifigan(shape, mel, _folded(tensors, weights) | unscaled, weights)


def _published_mel(config: dict[str, Any], source: Path) -> MelConfig:
    theirs = {"sample_rate": "sampling_rate", "n_mel": "num_mels"}
    settings = {name: config[theirs.get(name, name)] for name in MEL_KEYS}
    if settings["fmax"] is None and isinstance(settings["sample_rate"], int):
        settings["fmax"] = settings["sample_rate"] / 2  # what librosa takes null for
    return build(MelConfig, settings, source)


def _published_shape(config: dict[str, Any], source: Path) -> dict[str, Any]:
    """The published config in the terms of SpeechT5HifiGanConfig."""
    classes = {"1": "SpeechT5HifiGan", "2": "HifiGanV3"}
    if str(config["resblock"]) not in classes:
        raise UserError(f"{source}: resblock {config['resblock']!r} must be '1' or '2'")
    names = (
        "upsample_initial_channel",
        "upsample_rates",
        "upsample_kernel_sizes",
        "resblock_kernel_sizes",
        "resblock_dilation_sizes",
    )
    return {
        "architectures": [classes[str(config["resblock"])]],
        "model_in_dim": config["num_mels"],
        "sampling_rate": config["sampling_rate"],
        "normalize_before": False,
        **{name: config[name] for name in names},
    }


def find_published(folder: Path) -> Path:
    """The newest checkpoint of a generator in a folder of the published code."""
    generators = sorted(folder.glob("g_*")) or sorted(folder.glob("generator_*"))
    if not generators:
        raise UserError(f"{folder}: no g_XXXXXXXX or generator_vX beside HiFi-GAN's config.json")
    return generators[-1]


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
