"""The losses of the GAN-regularised autoencoder (Esser et al., 2021, arXiv:2012.09841)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tta.autoencoder.autoencoderkl import AutoencoderKL

PATCH = 8  # bands and frames


class AutoencoderObjective(nn.Module):
    """Reconstruction and regularisation of a batch; all that learns besides the discriminator.

    The L1 error has a learned log-variance s: the loss L1 / exp(s) + s is the negative
    log-likelihood of a Laplace distribution (up to a constant), and is least at exp(s) = L1.
    `level_weight` adds the level of patches to the L1 error: see level_loss.
    """

    def __init__(self, vae: AutoencoderKL, logvar_init: float, level_weight: float = 0.0) -> None:
        super().__init__()
        self.vae = vae
        self.level_weight = level_weight
        self.logvar = nn.Parameter(torch.tensor(logvar_init))

    def forward(self, mel: Tensor, noise: Tensor, added: Tensor | None = None) -> dict[str, Tensor]:
        """mel [B, 1, n_mel, frames], noise [B, z, n_mel/f, frames/f] -> tensors by name.

        `added`, of noise's shape, comes to the latent that the decoder gets to see.

        reconstruction, latent: as named; rec_loss: mean L1; nll_loss; kl_loss: mean over clips;
        level_loss where it counts.
        """
        posterior = self.vae.encode(mel)
        latent = posterior.sample(noise)
        reconstruction = self.vae.decode(latent if added is None else latent + added).float()
        rec_loss = error = F.l1_loss(reconstruction, mel)
        terms = {"reconstruction": reconstruction, "latent": latent, "rec_loss": rec_loss}
        if self.level_weight:
            terms["level_loss"] = level_loss(reconstruction, mel)
            error = rec_loss + self.level_weight * terms["level_loss"]
        terms["nll_loss"] = error / self.logvar.exp() + self.logvar
        terms["kl_loss"] = posterior.kl().mean()
        return terms


def level_loss(made: Tensor, real: Tensor) -> Tensor:
    """Mean difference of the levels of patches, as log amplitude; both [B, 1, n_mel, frames].

    The L1 error of a log is least at the median, and the median of a noise's power is 1.6 dB below
    its mean (an exponential distribution: 10 log10(ln 2)). So what is blurred comes back too quiet.
    The level of a patch is the log of its mean power, which the blurred patch has to keep.
    """
    of_made, of_real = (
        F.avg_pool2d((2 * mel).exp(), PATCH, ceil_mode=True).log() / 2 for mel in (made, real)
    )
    return F.l1_loss(of_made, of_real)


def hinge_generator_loss(logits_fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss (Lim & Ye, 2017, arXiv:1705.02894, eq. 11)."""
    return -logits_fake.mean()


def hinge_discriminator_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Half the hinge loss (Lim & Ye, 2017, arXiv:1705.02894, eq. 10)."""
    return 0.5 * (F.relu(1.0 - logits_real).mean() + F.relu(1.0 + logits_fake).mean())


def adaptive_weight(nll_gradient: Tensor, adversarial_gradient: Tensor, largest: float) -> Tensor:
    """Balances both terms at the decoder's last layer (arXiv:2012.09841, eq. 7)."""
    weight = nll_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return weight.clamp(max=largest)
