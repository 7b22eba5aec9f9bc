"""The discriminator that sharpens the autoencoder's mels."""

from __future__ import annotations

import torch
from torch import nn


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, section 6.1.2): a logit for each patch of a mel.

    GroupNorm stands in for BatchNorm: a clip's logits do not depend on the other clips of the
    batch, so a batch may be split over processes and steps.

    Args:
        channels: after the first layer; doubled by each further layer, up to eight times.
        num_layers: strided layers; a patch is 70 x 70 mel values with three.
    """

    def __init__(self, channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for index in range(1, num_layers + 1):
            width_in, width = width, channels * min(2**index, 8)
            stride = 2 if index < num_layers else 1
            layers += [
                nn.Conv2d(width_in, width, 4, stride=stride, padding=1),
                nn.GroupNorm(8, width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, 1, n_mel, frames] -> logits [B, 1, h, w], positive where it seems real."""
        return self.layers(mel)
