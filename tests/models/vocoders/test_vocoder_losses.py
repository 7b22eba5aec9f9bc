import math

import pytest
import torch

from models.vocoders.losses import (
    MEL_SCALES,
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)


def judgement(*values: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits = torch.tensor([values])
    return logits, [logits]


def test_hinge_losses_on_known_numbers():
    real = [judgement(2.0, 0.5), judgement(-1.0)]
    fake = [judgement(-2.0, 0.0), judgement(3.0)]
    # First: (0 + 0.5) / 2 + (0 + 1) / 2 = 0.75; second: 2 + 4 = 6.
    assert discriminator_loss(real, fake).item() == pytest.approx((0.75 + 6) / 2)
    assert adversarial_loss(fake).item() == pytest.approx((1.0 - 3.0) / 2)


def test_feature_matching_is_the_mean_over_layers_and_asks_nothing_of_the_real():
    first = torch.tensor([[1.0, 2.0]], requires_grad=True)
    real = [(first, [first, torch.zeros(1, 3)])]
    fake_first = torch.tensor([[0.0, 4.0]], requires_grad=True)
    fake = [(fake_first, [fake_first, torch.full((1, 3), 0.5)])]
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(((1 + 2) / 2 + 0.5) / 2)
    loss.backward()
    assert first.grad is None
    assert fake_first.grad.tolist() == [[-0.25, 0.25]]


def test_mel_loss_of_a_louder_copy_is_the_logarithm_of_its_gain_at_every_scale():
    wav = 0.1 * torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
    loss = MultiScaleMelLoss(16000)
    assert loss(wav, wav).item() == 0
    assert loss(1.5 * wav, wav).item() == pytest.approx(math.log(1.5), rel=1e-3)


def test_no_band_of_a_scale_is_empty():
    for extract in MultiScaleMelLoss(16000).extract:
        mel = extract(0.1 * torch.ones(1, 8192).cumsum(1).sin())
        assert mel.shape[1] == MEL_SCALES[extract.mel.n_fft]
        assert (mel.amax(2) > math.log(1e-5)).all()


def test_mel_loss_leads_a_wav_towards_its_target():
    random = torch.Generator().manual_seed(0)
    target = 0.1 * torch.randn(1, 4096, generator=random)
    wav = (0.01 * torch.randn(1, 4096, generator=random)).requires_grad_()
    loss = MultiScaleMelLoss(16000)
    first = loss(wav, target)
    (gradient,) = torch.autograd.grad(first, wav)
    assert gradient.isfinite().all()
    assert loss(wav - 0.01 * gradient / gradient.abs().max(), target) < first


def test_the_energy_distance_of_noise_is_least_for_other_noise():
    random = torch.Generator().manual_seed(0)
    real, one, other = 0.1 * torch.randn(3, 4, 8192, generator=random)
    loss = MultiScaleMelLoss(16000)
    energy, error = loss.energy(torch.stack([one, other]), real)
    assert error == pytest.approx((loss(one, real).item() + loss(other, real).item()) / 2)
    assert energy == pytest.approx(error.item() - loss(one, other).item() / 2, rel=1e-5)
    # As far from each other as from the real: half of what two equal ones would cost.
    twice, _ = loss.energy(torch.stack([one, one]), real)
    assert energy < 0.6 * twice
    louder, _ = loss.energy(torch.stack([1.5 * one, 1.5 * other]), real)
    assert energy < louder
