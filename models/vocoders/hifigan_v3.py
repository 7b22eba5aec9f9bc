"""HiFi-GAN with the plain residual blocks of its variant V3 (Kong et al. 2020, appendix A.1).

Needs nothing of this repository: an exported model carries this file beside its vocoder.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig


class PlainResidualBlock(nn.Module):
    """x + conv(leaky_relu(x)) for each dilation: "resblock 2" of the paper's code."""

    def __init__(
        self, channels: int, kernel_size: int, dilations: list[int], leaky_relu_slope: float
    ) -> None:
        super().__init__()
        self.leaky_relu_slope = leaky_relu_slope
        self.convs = nn.ModuleList(
            nn.Conv1d(
                channels,
                channels,
                kernel_size,
                dilation=dilation,
                padding=dilation * (kernel_size - 1) // 2,
            )
            for dilation in dilations
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, channels, T] -> [B, channels, T]"""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, self.leaky_relu_slope))
        return x


class HifiGanV3(SpeechT5HifiGan):
    """SpeechT5HifiGan, whose own blocks have two convolutions a dilation, with plain ones."""

    def __init__(self, config: SpeechT5HifiGanConfig) -> None:
        super().__init__(config)
        sizes = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        widths = [up.out_channels for up in self.upsampler]
        self.resblocks = nn.ModuleList(
            PlainResidualBlock(width, kernel_size, dilations, config.leaky_relu_slope)
            for width in widths
            for kernel_size, dilations in sizes
        )
