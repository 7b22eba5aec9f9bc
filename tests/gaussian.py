"""A denoiser that is exact: for data that are normal, with neighbouring columns that correlate."""

from __future__ import annotations

import torch
from torch import Tensor

from config.schedule_schema import NoiseSchedulerConfig
from models.tta.ldm.noise_schedule import NoiseSchedule

MEAN, STD = 0.8, 0.5
CPU = torch.device("cpu")
SCHEDULE = NoiseSchedulerConfig(
    1000, 0.00085, 0.012, "scaled_linear", "epsilon", False, 1, True, True
)


class Correlated:
    """E[noise | x_t] where rows are N(MEAN, STD^2) and columns i, j correlate by r^|i - j|.

    x_t = a x_0 + s noise is then normal with the covariance a^2 C + s^2, and E[noise | x_t] =
    s (a^2 C + s^2)^-1 (x_t - a MEAN). For any number of columns: a window of such data is such.
    """

    def __init__(self, schedule: NoiseSchedulerConfig, correlation: float) -> None:
        self.alphas_cumprod = NoiseSchedule(schedule).alphas_cumprod.double()
        self.correlation = correlation

    def covariance(self, columns: int) -> Tensor:
        place = torch.arange(columns, dtype=torch.float64)
        return STD**2 * self.correlation ** (place[:, None] - place).abs()

    def data(self, noise: Tensor) -> Tensor:
        """Such data, of noise [..., columns]."""
        factor = torch.linalg.cholesky(self.covariance(noise.shape[-1]))
        return MEAN + noise @ factor.T.float()

    def __call__(self, latent: Tensor, timestep: Tensor) -> Tensor:
        alpha = self.alphas_cumprod[timestep]
        noisy = alpha * self.covariance(latent.shape[-1])
        noisy += (1 - alpha) * torch.eye(latent.shape[-1], dtype=torch.float64)
        inverse = ((1 - alpha).sqrt() * torch.linalg.inv(noisy)).float()
        return (latent - alpha.sqrt().float() * MEAN) @ inverse
