"""The losses of the GAN-regularised autoencoder (Esser et al., 2021, arXiv:2012.09841)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tta.autoencoder.autoencoderkl import AutoencoderKL


class AutoencoderObjective(nn.Module):
    """Reconstruction and regularisation of a batch; all that learns besides the discriminator.

    The L1 error has a learned log-variance s: the loss L1 / exp(s) + s is the negative
    log-likelihood of a Laplace distribution (up to a constant), and is least at exp(s) = L1.
    """

    def __init__(self, vae: AutoencoderKL, logvar_init: float) -> None:
        super().__init__()
        self.vae = vae
        self.logvar = nn.Parameter(torch.tensor(logvar_init))

    def forward(self, mel: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """mel [B, 1, n_mel, frames], noise [B, z, n_mel/f, frames/f] -> tensors by name.

        reconstruction, latent: as named; rec_loss: mean L1; nll_loss; kl_loss: mean over clips.
        """
        posterior = self.vae.encode(mel)
        latent = posterior.sample(noise)
        reconstruction = self.vae.decode(latent).float()
        rec_loss = F.l1_loss(reconstruction, mel)
        return {
            "reconstruction": reconstruction,
            "latent": latent,
            "rec_loss": rec_loss,
            "nll_loss": rec_loss / self.logvar.exp() + self.logvar,
            "kl_loss": posterior.kl().mean(),
        }


def hinge_discriminator_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Half the hinge loss (Lim & Ye, 2017, arXiv:1705.02894, eq. 10)."""
    return 0.5 * (F.relu(1.0 - logits_real).mean() + F.relu(1.0 + logits_fake).mean())


def adaptive_weight(nll_gradient: Tensor, adversarial_gradient: Tensor, largest: float) -> Tensor:
    """Balances both terms at the decoder's last layer (arXiv:2012.09841, eq. 7)."""
    weight = nll_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return weight.clamp(max=largest)
