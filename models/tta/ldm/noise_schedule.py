"""How much signal and noise there is at every time, and what follows from it (Ho et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from config.schedule_schema import NoiseSchedulerConfig

SPREAD = 0.1  # standard deviation from its source [of a latent's 1] of a sound that is not edited


class NoiseSchedule(nn.Module):
    """Signal a_t and noise s_t of x_t = a_t x_0 + s_t eps at every time, and what follows from it.

    sqrt(abar_t) and sqrt(1 - abar_t) in diffusion, whose timesteps are whole numbers; 1 - t and t
    in rectified flow, whose timesteps are any, t = timestep / `num_train_timesteps`.
    """

    def __init__(self, config: NoiseSchedulerConfig) -> None:
        from diffusers import DDPMScheduler

        super().__init__()
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
        scheduler = DDPMScheduler(**{name: getattr(config, name) for name in names})
        self.prediction_type, self.steps = config.prediction_type, config.num_train_timesteps
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod, persistent=False)

    def timesteps(self, places: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Those at `places` [B] in [0, 1), shares of all that training draws: [B].

        Diffusion draws each alike. Flow draws t as the sigmoid of N(mean, std^2), 0 and 1 by Esser
        et al. 2024 (arXiv:2403.03206, section 3.1, rf/lognorm), since the ends are easy to tell.
        """
        if self.prediction_type == "flow_prediction":
            return self.steps * (mean + std * torch.special.ndtri(places)).sigmoid()
        return (places * self.steps).long().clamp(max=self.steps - 1)

    def level(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t, both [B, 1, 1, 1]."""
        if self.prediction_type == "flow_prediction":
            time = timesteps[:, None, None, None] / self.steps
            return 1 - time, time
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(self, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = a_t x_0 + s_t eps (eq. 4); all [B, z, h, w]."""
        signal, deviation = self.level(timesteps)
        return signal * latent + deviation * noise

    def target(self, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """eps; v = a_t eps - s_t x_0 (arXiv:2202.00512, section 4); or the flow's dx_t / dt =
        eps - x_0 (Liu et al. 2023, arXiv:2209.03003, eq. 1, with time from sounds to noise)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "flow_prediction":
            return noise - latent
        signal, deviation = self.level(timesteps)
        return signal * noise - deviation * latent

    def target_unchanged(self, noisy: Tensor, source: Tensor, timesteps: Tensor) -> Tensor:
        """What `target` is to be guessed to be, of the noisy latent of a sound that is its source.

        The mean of the target given x_t, where x_0 is N(source, SPREAD^2) and eps N(0, 1). Without
        a spread it is the target itself, (x_t - source) / t of a flow, which small times magnify.
        All [B, z, h, w].
        """
        signal, deviation = self.level(timesteps)
        noise = noisy - signal * source  # signal (x_0 - source) + deviation eps
        noise = noise / (deviation**2 + (signal * SPREAD) ** 2)
        return self.target(source + signal * SPREAD**2 * noise, deviation * noise, timesteps)

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / SNR for eps, / (SNR + 1) for v (arXiv:2303.09556, section 3.4)."""
        alpha = self.alphas_cumprod[timesteps]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=gamma) / (snr + 1 if self.prediction_type == "v_prediction" else snr)
