"""Stage 2's loss (Ho et al. 2020, arXiv:2006.11239)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet


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
