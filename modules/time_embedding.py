"""What a network is told of the time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def timestep_embedding(timesteps: torch.Tensor, dim: int) -> torch.Tensor:
    """[cos(t w_0), ..., sin(t w_0), ...] with w_i = 10000^(-2i / dim) (Ho et al. 2020, appendix B).

    timesteps [B] -> [B, dim], in float32: half precision cannot tell neighbouring steps apart.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(10000.0) / half * index)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids, in float32 even under autocast.

    With `spans`, sinusoids of a step's length are added by a matrix, which begins at zero.
    """

    def __init__(self, channels: int, time_channels: int, spans: bool) -> None:
        super().__init__()
        self.channels = channels
        self.cond_proj = nn.Linear(channels, channels, bias=False) if spans else None
        self.linear_1 = nn.Linear(channels, time_channels)
        self.linear_2 = nn.Linear(time_channels, time_channels)

    def forward(self, begin: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """timesteps [B] of a step's begin and end, where spans are told -> [B, time_channels]"""
        with torch.autocast(begin.device.type, enabled=False):
            h = timestep_embedding(begin, self.channels)
            if self.cond_proj is not None:
                h = h + self.cond_proj(timestep_embedding(begin - end, self.channels))
            return self.linear_2(F.silu(self.linear_1(h)))
