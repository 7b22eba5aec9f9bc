"""A trained vocoder on disk: pipeline.json (its shape and its mel) and vocoder.safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from config.model_schema import VocosConfig
from config.schema import MelConfig
from config.typed_json import typed
from models.tta.pipeline_json import read_settings, write_settings
from models.vocoders.vocos import Vocos
from processors.mel import check_mel
from utils.checkpoint import load_tensors, load_weights, save_tensors

MODEL_TYPE = "Vocoder"


@typed
class VocoderSettings:
    """What a vocoder's pipeline.json holds."""

    mel: MelConfig
    vocos: VocosConfig

    @classmethod
    def read(cls, folder: Path) -> VocoderSettings:
        return read_settings(folder, MODEL_TYPE, cls)

    def make(self) -> Vocos:
        """A network of this shape with random weights."""
        shape = self.vocos
        return Vocos(self.mel, shape.dim, shape.intermediate_dim, shape.num_layers)


class TrainedVocos(nn.Module):
    """A frozen Vocos, whose samples stay within [-1, 1]. The same mel gives the same wav."""

    def __init__(self, generator: Vocos) -> None:
        super().__init__()
        self.generator = generator
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, mel: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]

        `seed`: of the noise, which is the same for all in a batch.
        """
        samples = mel.shape[2] * self.generator.hop_size
        noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
        noise = noise.to(mel.device).expand(1, len(mel), -1)
        return self.generator(mel.float(), noise)[0].clamp(-1.0, 1.0)


def load_vocos(folder: Path, mel: MelConfig) -> TrainedVocos:
    """The vocoder in `folder`, for mels of these settings.

    Raises:
        UserError: damaged, or made for another mel.
    """
    settings = VocoderSettings.read(folder)
    check_mel(mel, settings.mel, f"vocoder {folder}")
    generator, weights = settings.make(), folder / "vocoder.safetensors"
    load_weights(generator, load_tensors(weights), weights)
    return TrainedVocos(generator)


def save_vocos(folder: Path, settings: VocoderSettings, generator: Vocos) -> None:
    """Writes what `load_vocos` takes."""
    write_settings(folder, MODEL_TYPE, settings)
    save_tensors(folder / "vocoder.safetensors", generator.state_dict())
