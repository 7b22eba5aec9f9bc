"""A Vocos as the vocoder of an exported model; `vocos.py` beside this file has the network.

Needs torch, torchaudio and diffusers.
"""

from types import SimpleNamespace

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from models.vocoders.vocos import Vocos  # beside this file, in an export


class ExportedVocos(ModelMixin, ConfigMixin):
    """log mel [B, frames, n_mel] -> wav [B, frames * hop_size] in [-1, 1].

    Args:
        mel: sample_rate (Hz), n_fft, win_size, hop_size (samples), n_mel, fmin, fmax (Hz).
        dim, intermediate_dim, num_layers: the network's shape.
    """

    @register_to_config
    def __init__(self, mel: dict, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.generator = Vocos(SimpleNamespace(**mel), dim, intermediate_dim, num_layers)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        noise = self.generator.noise(log_mel.shape[1])
        return self.generator.sound(log_mel.transpose(1, 2), noise)
