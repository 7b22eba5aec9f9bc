"""What a vocoder is trained on: multi-scale log-mel error, hinge losses, feature matching."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config.schema import MelConfig
from models.vocoders.discriminators import Judgement
from processors.mel import MelExtractor

# Window in samples: bands (Kumar et al. 2023, arXiv:2306.06546, section 3.4).
MEL_SCALES = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}


class MultiScaleMelLoss(nn.Module):
    """Mean over windows of the L1 distance of log-mels (arXiv:2306.06546, section 3.4).

    Short windows hear clicks where they are, long ones tones. The mels are those of
    `processors.mel` with hops of a quarter of the window, and in natural logarithms.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.extract = [
            MelExtractor(MelConfig(sample_rate, n, n, n // 4, bands, 0.0, sample_rate / 2))
            for n, bands in MEL_SCALES.items()
        ]

    def forward(self, wav: Tensor, target: Tensor) -> Tensor:
        """wav and target [B, T] -> scalar"""
        errors = [F.l1_loss(mel(wav), mel(target)) for mel in self.extract]
        return torch.stack(errors).mean()

    def energy(self, wavs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Two wavs of one mel against the real one: wavs [2, B, T], target [B, T].

        Returns:
            Half the energy distance d(wav 1, real) + d(wav 2, real) - d(wav 1, wav 2) (Gritsenko et
            al. 2020, arXiv:2008.01160, eq. 5), with this loss as d; and the mean of the first two.
            The error alone would have noise replaced by its median, which is no noise. With what
            the wavs differ by taken away, the least value is reached by the sounds' own
            distribution.
        """
        errors, spreads = [], []
        for mel in self.extract:
            real, one, other = mel(torch.cat([target, *wavs])).chunk(3)
            errors.append((F.l1_loss(one, real) + F.l1_loss(other, real)) / 2)
            spreads.append(F.l1_loss(one, other))
        error = torch.stack(errors).mean()
        return error - torch.stack(spreads).mean() / 2, error


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Mean over the discriminators of the hinge loss (Lim & Ye 2017, arXiv:1705.02894, eq. 10)."""
    losses = [
        F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean()
        for (logits_real, _), (logits_fake, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(fake: Sequence[Judgement]) -> Tensor:
    """Mean over the discriminators of -D(G(s)) (arXiv:1705.02894, eq. 11)."""
    return torch.stack([-logits.mean() for logits, _ in fake]).mean()


def feature_matching_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Mean over discriminators and layers of the L1 distance of activations.

    Kong et al. 2020 (arXiv:2010.05646), eq. 5, who sum over layers and discriminators.
    """
    distances = [
        F.l1_loss(layer_fake, layer_real.detach())
        for (_, layers_real), (_, layers_fake) in zip(real, fake, strict=True)
        for layer_real, layer_fake in zip(layers_real, layers_fake, strict=True)
    ]
    return torch.stack(distances).mean()
