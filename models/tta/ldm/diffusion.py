"""The forward process, the U-Net's target and its loss (Ho et al., 2020, arXiv:2006.11239)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config.model_schema import NoiseSchedulerConfig
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet


class NoiseSchedule(nn.Module):
    """alpha-bar of every timestep, and what follows from it."""

    def __init__(self, config: NoiseSchedulerConfig) -> None:
        from diffusers import DDPMScheduler

        super().__init__()
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
        scheduler = DDPMScheduler(**{name: getattr(config, name) for name in names})
        self.predicts_velocity = config.prediction_type == "v_prediction"
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod, persistent=False)

    def add_noise(self, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (eq. 4); all [B, z, h, w]."""
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        return alpha.sqrt() * latent + (1 - alpha).sqrt() * noise

    def target(self, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """eps, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (arXiv:2202.00512, section 4)."""
        if not self.predicts_velocity:
            return noise
        alpha = self.alphas_cumprod[timesteps][:, None, None, None]
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latent

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / SNR for eps, / (SNR + 1) for v (arXiv:2303.09556, section 3.4)."""
        alpha = self.alphas_cumprod[timesteps]
        snr = alpha / (1 - alpha)
        return snr.clamp(max=gamma) / (snr + 1 if self.predicts_velocity else snr)


class DiffusionObjective(nn.Module):
    """The loss of a batch; all that learns in stage 2, with the text encoder where that learns."""

    def __init__(
        self,
        unet: UNet,
        text_encoder: TextEncoder | None,
        schedule: NoiseSchedule,
        snr_gamma: float | None,
    ) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.schedule = unet, text_encoder, schedule
        self.snr_gamma = snr_gamma

    def forward(
        self,
        latent: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_mask: Tensor,
        source: Tensor | None = None,
    ) -> Tensor:
        """Squared error of every clip, [B].

        latent (scaled), noise [B, z, h, w]; timesteps [B]; text: states [B, L, D], or token ids
        [B, L] where the text encoder learns; text_mask [B, L]; source: of an editor, the scaled
        latent of the sound to edit [B, z, h, w], which the U-Net reads behind the noisy one.
        """
        if self.text_encoder is not None:
            text = self.text_encoder(text, text_mask)
        noisy = self.schedule.add_noise(latent, noise, timesteps)
        if source is not None:
            noisy = torch.cat([noisy, source], dim=1)
        prediction = self.unet(noisy, timesteps, text, text_mask)
        target = self.schedule.target(latent, noise, timesteps)
        error = F.mse_loss(prediction.float(), target, reduction="none").mean((1, 2, 3))
        if self.snr_gamma is not None:
            error = error * self.schedule.min_snr_weight(timesteps, self.snr_gamma)
        return error
