"""The autoencoder's posterior over latents."""

from __future__ import annotations

import torch


class DiagonalGaussian:
    """A normal distribution per latent value, independent of the others.

    Args:
        moments: [B, 2z, h, w], the mean and then the log-variance, which is clamped to -30..20.
            Kept in float32, since exp overflows and small variances vanish in half precision.
    """

    def __init__(self, moments: torch.Tensor) -> None:
        self.mean, logvar = moments.float().chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> torch.Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """mean + std x noise (Kingma & Welling 2014, sec. 2.4); noise [B, z, h, w] from N(0, 1)."""
        return self.mean + self.std * noise

    def mode(self) -> torch.Tensor:
        return self.mean

    def kl(self) -> torch.Tensor:
        """KL to N(0, 1), summed over each latent (Kingma & Welling 2014, appendix B) -> [B]"""
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))
