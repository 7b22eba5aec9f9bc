"""A trained vocoder on disk: pipeline.json (its shape and its mel) and vocoder.safetensors.

A generator turns mel [B, n_mel, frames] and noise [N, B, frames * hop_size] into wav of the noise's
shape: a Vocos, or a HiFi-GAN, which does without noise and gives the same wav N times.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from config.model_schema import HiFiGANConfig, VocosConfig
from config.schema import MelConfig, VocoderExperiment
from config.typed_json import typed
from models.tta.pipeline_json import read_settings, write_settings
from models.vocoders.hifigan import HiFiGAN, TrainableHiFiGAN, load_hifigan
from models.vocoders.pieces import by_pieces
from models.vocoders.vocos import Vocos
from processors.mel import check_mel
from utils.checkpoint import read_weights_into, save_tensors
from utils.errors import UserError
from utils.hub import model_folder
from utils.run_folder import find_weights, weights_folder

MODEL_TYPE = "Vocoder"
Generator = Vocos | TrainableHiFiGAN


@typed
class VocoderSettings:
    """What a vocoder's pipeline.json holds."""

    mel: MelConfig
    vocos: VocosConfig | None = None  # one of the two
    hifigan: HiFiGANConfig | None = None

    @classmethod
    def of(cls, config: VocoderExperiment) -> VocoderSettings:
        """Those of a training."""
        name = config.model.generator
        return cls(config.preprocess.mel, **{name: getattr(config.model, name)})

    @classmethod
    def read(cls, folder: Path) -> VocoderSettings:
        return read_settings(folder, MODEL_TYPE, cls)

    def make(self) -> Generator:
        """A network of this shape with random weights; UserError where there can be none."""
        shape = self.vocos
        if shape is None:
            return TrainableHiFiGAN(self.mel, self.hifigan)
        if self.mel.hop_size >= self.mel.win_size:
            raise UserError(
                f"Vocos needs frames that overlap: hop_size {self.mel.hop_size} must be less than"
                f" win_size {self.mel.win_size}"
            )
        return Vocos(self.mel, shape.dim, shape.intermediate_dim, shape.num_layers)


class TrainedVocos(nn.Module):
    """A frozen Vocos, whose samples stay within [-1, 1]. The same mel gives the same wav."""

    def __init__(self, generator: Generator, settings: VocoderSettings) -> None:
        super().__init__()
        self.generator, self.settings = generator, settings
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]"""
        generator, hop = self.generator, self.settings.mel.hop_size
        noise = generator.noise(mel.shape[2])

        def wav_of(first: int, last: int) -> torch.Tensor:
            return generator.sound(mel[:, :, first:last], noise[first * hop : last * hop])

        return by_pieces(wav_of, mel.shape[2], generator.context)

    def save(self, folder: Path) -> None:
        """Writes what `load_trained` takes."""
        folder.mkdir(parents=True, exist_ok=True)
        save_trained(folder, self.settings, self.generator)


def load_trained(folder: Path, mel: MelConfig) -> TrainedVocos | HiFiGAN:
    """The vocoder in `folder`, for mels of these settings.

    Raises:
        UserError: damaged, or made for another mel.
    """
    settings = VocoderSettings.read(folder)
    check_mel(mel, settings.mel, f"vocoder {folder}")
    generator, weights = settings.make(), folder / "vocoder.safetensors"
    read_weights_into(generator, weights)
    if isinstance(generator, TrainableHiFiGAN):
        return generator.frozen()
    return TrainedVocos(generator, settings)


def save_trained(folder: Path, settings: VocoderSettings, generator: Generator) -> None:
    """Writes what `load_trained` takes."""
    write_settings(folder, MODEL_TYPE, settings)
    save_tensors(folder / "vocoder.safetensors", generator.state_dict())


def take_weights(generator: Generator, name: str, log_dir: str, mel: MelConfig) -> Path:
    """Gives a generator the weights to start from; returns the folder that they are in.

    Args:
        name: a run of such a generator, or a HiFi-GAN's folder as `load_hifigan` reads it.

    Raises:
        UserError: there are none, or they are of another shape or another mel.
    """
    folder = model_folder(name)
    if not weights_folder(folder, MODEL_TYPE) and (folder / "config.json").is_file():
        if isinstance(generator, TrainableHiFiGAN):
            generator.take(load_hifigan(folder, mel), folder)
            return folder
        raise UserError(
            f"train.init_from {name}: a HiFi-GAN; to go on with one, use"
            " --config egs/tta/vocoder/exp_config_hifigan.json"
        )
    start = find_weights(name, log_dir, MODEL_TYPE)
    check_mel(mel, VocoderSettings.read(start).mel, start)
    weights = start / "vocoder.safetensors"
    read_weights_into(generator, weights)
    return start
