import math

import pytest
import torch

from config.model_schema import AutoencoderKLConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.losses import (
    AutoencoderObjective,
    adaptive_weight,
    hinge_discriminator_loss,
    level_loss,
)


@pytest.fixture(scope="module")
def objective():
    torch.manual_seed(0)
    vae = AutoencoderKL(AutoencoderKLConfig(32, [1, 1], 1, False, 1, 1, 2, True))
    return AutoencoderObjective(vae, logvar_init=0.7)


def test_terms_are_the_textbook_ones(objective):
    mel, noise = torch.randn(3, 1, 8, 8), torch.randn(3, 2, 4, 4)
    terms = objective(mel, noise)
    posterior = objective.vae.encode(mel)
    mean, std = posterior.mean, posterior.std
    reconstruction = objective.vae.decode(mean + std * noise)
    l1 = (reconstruction - mel).abs().mean()
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["rec_loss"], l1)
    torch.testing.assert_close(terms["nll_loss"], l1 / math.exp(0.7) + 0.7)
    normal = torch.distributions.Normal(mean, std)
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(terms["kl_loss"], kl.sum((1, 2, 3)).mean())


def test_log_variance_learns_and_is_least_at_the_log_of_the_error(objective):
    error = torch.tensor(0.3)
    nll = [
        error / math.exp(s) + s for s in (math.log(0.3) - 0.1, math.log(0.3), math.log(0.3) + 0.1)
    ]
    assert nll[1] < nll[0]
    assert nll[1] < nll[2]
    terms = objective(torch.randn(2, 1, 8, 8), torch.randn(2, 2, 4, 4))
    (gradient,) = torch.autograd.grad(terms["nll_loss"], objective.logvar)
    torch.testing.assert_close(gradient, 1 - terms["rec_loss"].detach() / math.exp(0.7))


def test_hinge_loss_on_known_numbers():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, -0.25, 1.0])
    # real: 0, 0.5, 2; fake: 0, 0.75, 2
    expected = 0.5 * (2.5 / 3 + 2.75 / 3)
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert hinge_discriminator_loss(torch.zeros(5), torch.zeros(5)).item() == 1


def test_adaptive_weight_is_the_ratio_of_norms_up_to_its_clamp():
    nll, gan = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert adaptive_weight(nll, gan, 10.0).item() == pytest.approx(5 / (2 + 1e-4))
    assert adaptive_weight(nll, gan, 2.0).item() == 2.0
    assert adaptive_weight(nll, torch.zeros(2), 10.0).item() == 10.0


def test_level_of_patches_is_that_of_their_mean_power():
    real = torch.full((2, 1, 8, 20), math.log(0.5))
    # 40 of a whole patch's 64 values lose all; the last patch is 4 frames wide, and stays as it is.
    made = real.clone()
    made[..., :5, :16] = -20.0
    patches = torch.tensor([0.5 * math.log(24 / 64)] * 2 + [0.0])
    torch.testing.assert_close(level_loss(made, real), patches.abs().mean(), rtol=1e-4, atol=0)
    # Louder is as wrong as quieter, by as much: in log amplitude.
    torch.testing.assert_close(level_loss(real + 0.3, real), torch.tensor(0.3))


def test_a_blurred_noise_is_too_quiet_by_the_median_and_right_by_the_level():
    """Half the log of an exponential distribution: the L1 error alone is least at its median."""
    torch.manual_seed(0)
    noise = torch.empty(1, 1, 400, 400).exponential_().log() / 2
    levels = torch.linspace(-0.6, 0.4, 101)
    l1 = [(noise - level).abs().mean().item() for level in levels]
    both = [level_loss(level + 0 * noise, noise).item() for level in levels]
    assert levels[l1.index(min(l1))].item() == pytest.approx(math.log(math.log(2)) / 2, abs=0.015)
    assert levels[both.index(min(both))].item() == pytest.approx(0, abs=0.015)
