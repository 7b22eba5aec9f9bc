"""What is to be given where a sound stays as it was, beside a regression on drawn numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from models.tta.ldm.noise_schedule import SPREAD, NoiseSchedule
from tests.gaussian import SCHEDULE


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow_prediction"])
@pytest.mark.parametrize("timestep", [5, 300, 950])
def test_the_guess_for_what_stays_is_the_best_of_all_linear_ones(kind, timestep):
    """Least squares of the target on the noisy latent and the source, 400,000 of each."""
    schedule = NoiseSchedule(dataclasses.replace(SCHEDULE, prediction_type=kind))
    random = np.random.default_rng(0)
    source, spread, noise = random.normal(size=(3, 400_000))
    sound = source + SPREAD * spread
    time = torch.tensor([timestep])
    signal, deviation = (float(level) for level in schedule.level(time))
    noisy = signal * sound + deviation * noise
    target = {
        "epsilon": noise,
        "v_prediction": signal * noise - deviation * sound,
        "flow_prediction": noise - sound,
    }[kind]
    expected, *_ = np.linalg.lstsq(np.stack([noisy, source], 1), target, rcond=None)
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    found = [float(schedule.target_unchanged(*pair, time)) for pair in ((one, zero), (zero, one))]
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_of_what_did_stay_it_is_the_target_but_for_little_noise():
    schedule = NoiseSchedule(dataclasses.replace(SCHEDULE, prediction_type="flow_prediction"))
    source, noise = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    for timestep, most in ((200, 0.06), (500, 1e-3), (1000, 1e-9)):
        times = torch.full((3,), float(timestep))
        noisy = schedule.add_noise(source, noise, times)
        error = schedule.target_unchanged(noisy, source, times) - (noise - source)
        assert error.square().mean() < most
