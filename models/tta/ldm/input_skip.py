"""What of an editor's source needs no network."""

from __future__ import annotations

import torch
from torch import nn

from config.model_schema import UNetConfig
from models.tta.ldm.noise_schedule import NoiseSchedule
from modules.patches import from_patches


class InputSkip(nn.Module):
    """An editor's way past its network: what it is to give where the sound stays as it was.

    That follows from the noisy latent, the source and the time alone (`target_unchanged`). The
    network says in a gate, for each value, how much of it is taken, none at first.
    """

    def __init__(self, config: UNetConfig, width: int, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.patch_size, self.schedule = config.patch_size, schedule
        self.gate = nn.Conv2d(width, config.out_channels * self.patch_size**2, 3, padding=1)

    def forward(
        self, latent: torch.Tensor, timesteps: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """latent [B, 2 z, h, w], timesteps [B], and the network's last features
        [B, width, h / p, w / p] -> [B, z, h, w] float32"""
        gate = from_patches(self.gate(features), self.patch_size, latent.shape[2:])
        noisy, source = latent.float().chunk(2, dim=1)
        return gate.float() * self.schedule.target_unchanged(noisy, source, timesteps)
