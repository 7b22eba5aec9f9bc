"""Residual blocks and changes of resolution, shared by the autoencoder and the U-Net.

Parameters carry the names that diffusers gives them, so that weights are interchangeable. With
weights and input in channels_last, every module gives channels_last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Norm(NamedTuple):
    """What the group norms of a network have in common."""

    groups: int
    eps: float

    def over(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups, channels, self.eps)


class ResnetBlock(nn.Module):
    """x + conv2(SiLU(norm2(conv1(SiLU(norm1(x))) + time))), He et al. 2016 with pre-activation.

    Args:
        in_channels, out_channels: a 1x1 convolution carries x over where they differ.
        norm: of both group norms.
        time_channels: width of the time embedding that is added; None: there is none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: Norm, time_channels: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = norm.over(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, out_channels) if time_channels else None
        self.norm2 = norm.over(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.conv_shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, time_emb: torch.Tensor | None = None) -> torch.Tensor:
        """x [B, C_in, H, W], time_emb [B, time_channels] after its SiLU -> [B, C_out, H, W]."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            h = h + self.time_emb_proj(time_emb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return x + h


class Downsample(nn.Module):
    """Halves height and width with a strided 3x3 convolution.

    Args:
        pad_end: pad one row below and one column to the right, as LDM's autoencoder does, so that
            odd sizes round down; else pad all sides, as its U-Net does, so that they round up.
    """

    def __init__(self, channels: int, pad_end: bool) -> None:
        super().__init__()
        self.pad_end = pad_end
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if pad_end else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pad_end:
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest neighbour to twice the size, or one less, then a 3x3 convolution.

    Args:
        crop_last: what is too much for an odd size is cut off behind the convolution, which has
            then seen it, and not before.
    """

    def __init__(self, channels: int, crop_last: bool = False) -> None:
        super().__init__()
        self.crop_last = crop_last
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, size: tuple[int, int] = (None, None)) -> torch.Tensor:
        """x [B, C, h, w] -> [B, C, *size], 2h x 2w unless the skip's size was odd."""
        # Not F.interpolate: its backward pass is compiled (torch 2.13) to an indexed sum, which may
        # come after what reads it, and then the gradient is 0; a test has the case.
        x = torch.stack([x, x], dim=4).flatten(3)
        x = torch.stack([x, x], dim=3).flatten(2, 3)
        if self.crop_last:
            return self.conv(x)[:, :, : size[0], : size[1]]
        return self.conv(x[:, :, : size[0], : size[1]])
