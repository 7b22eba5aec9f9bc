import pytest
import torch
from torch.distributions import Normal, kl_divergence

from modules.distributions import DiagonalGaussian


@pytest.fixture
def moments():
    return torch.randn(3, 8, 2, 5, generator=torch.Generator().manual_seed(0))


def test_kl_is_that_of_torch_summed_over_each_latent(moments):
    posterior = DiagonalGaussian(moments)
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl(), expected.sum(dim=(1, 2, 3)))


def test_sample_is_mean_plus_std_times_noise(moments):
    posterior = DiagonalGaussian(moments)
    mean, logvar = moments[:, :4], moments[:, 4:]
    noise = torch.full_like(mean, -2.0)
    torch.testing.assert_close(posterior.sample(noise), mean - 2.0 * (logvar / 2).exp())
    torch.testing.assert_close(posterior.mode(), mean)


def test_extreme_log_variances_are_clamped_and_stay_finite():
    moments = torch.tensor([0.0, 0.0, -1e6, 1e6], dtype=torch.bfloat16).reshape(1, 4, 1, 1)
    posterior = DiagonalGaussian(moments)
    assert posterior.logvar.flatten().tolist() == [-30.0, 20.0]
    assert posterior.kl().isfinite().all()
    assert posterior.std.dtype == torch.float32
