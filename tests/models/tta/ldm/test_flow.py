"""Sampling along a flow: known answers, and diffusers' own scheduler."""

import dataclasses

import diffusers
import numpy as np
import pytest
import torch

from config.typed_json import ConfigError
from models.tta.ldm.known import (
    Known,
    back,
    last_part,
    level,
    noised,
    part,
    sample_around,
    steps_of,
)
from models.tta.ldm.pipeline import PipelineSettings
from models.tta.ldm.sampling import FLOW_SAMPLERS, make_scheduler, sample, starting_noise
from tests import tiny
from tests.gaussian import CPU, MEAN, SCHEDULE, STD
from utils.errors import UserError

FLOW = dataclasses.replace(SCHEDULE, prediction_type="flow_prediction")
# How far from the closed form 50 steps may end: euler is of first order, and the others are told
# whole timesteps and begin a thousandth late.
ERRORS = {"euler": 0.05, "dpm++": 0.01, "unipc": 0.01}


def velocity(latent, timestep):
    """E[eps - x_0 | x_t] where the data are N(MEAN, STD^2), value by value.

    x_t is normal with the mean (1 - t) MEAN and the variance (1 - t)^2 STD^2 + t^2.
    """
    time = timestep.flatten()[0] / 1000  # where the step begins; euler tells its end, too
    error = (latent - (1 - time) * MEAN) / ((1 - time) ** 2 * STD**2 + time**2)
    return time * error - (MEAN + (1 - time) * STD**2 * error)


def left_known() -> Known:
    """8 columns: the first 5 known, the others to be made."""
    latent = 3 * torch.randn(2, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    return Known(latent, torch.arange(8).expand(4, 8) >= 5)


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_the_flow_ends_where_it_should(sampler, strength):
    """From the law at any time it leads to the data's, by scaling and shifting."""
    scheduler = last_part(make_scheduler(sampler, FLOW, 50), strength)
    noise = starting_noise((2, 4, 8), range(16), CPU)
    source = MEAN + STD * starting_noise((2, 4, 8), range(100, 116), CPU)
    start = noised(scheduler, source, noise)
    signal, deviation = level(scheduler, 0)
    assert signal + deviation == pytest.approx(1, abs=1e-6)
    if sampler == "euler":
        assert deviation == pytest.approx(strength)
    else:
        assert strength - 0.03 < deviation < strength
    torch.testing.assert_close(start, signal * source + deviation * noise)
    made = sample(velocity, scheduler, noise, start)
    spread = ((signal * STD) ** 2 + deviation**2) ** 0.5
    ends = MEAN + STD * (start - signal * MEAN) / spread
    assert (made - ends)[noise.abs() < 2.5].abs().max() < ERRORS[sampler]


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50])
def test_euler_is_diffusers_euler_with_steps_of_equal_length(steps):
    ours, theirs = make_scheduler("euler", FLOW, steps), diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(steps_of(ours) / 1000, 1 - torch.arange(steps) / steps)
    noise = starting_noise((2, 4, 8), [0, 1], CPU)
    expected = by_hand = noise
    for place, timestep in enumerate(theirs.timesteps):
        expected = theirs.step(velocity(expected, timestep), timestep, expected).prev_sample
        by_hand = by_hand - velocity(by_hand, torch.tensor(1000 * (1 - place / steps))) / steps
    found = sample(velocity, ours, noise)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_what_is_known_is_at_each_step_on_its_straight_path(sampler):
    known, noise, seen = left_known(), starting_noise((2, 4, 8), [3, 4], CPU), []

    def denoise(latent, timestep):
        seen.append(timestep.flatten()[0])
        expected = known.latent + seen[-1] / 1000 * (noise - known.latent)
        # A timestep that is a whole number is rounded.
        close = 1e-5 if sampler == "euler" else 0.02
        torch.testing.assert_close(latent[..., :5], expected[..., :5], rtol=0, atol=close)
        return latent.sin()

    made = sample_around(denoise, make_scheduler(sampler, FLOW, 6), noise, known)
    assert len(seen) == 6
    assert torch.equal(made[..., :5], known.latent[..., :5])


@pytest.mark.parametrize("steps", [1, 4])
def test_from_a_sound_few_steps_begin_at_the_strength(steps):
    """Where the grid of steps would have rounded it to none."""
    whole = make_scheduler("euler", FLOW, steps)
    assert (last_part(whole, 0.2).sigmas == torch.tensor([0.2, 0.0])).all()
    assert last_part(whole, 0.8).timesteps.tolist() == (
        [800.0] + [750.0, 500.0, 250.0] * (steps > 1)
    )
    assert torch.equal(last_part(whole, 1.0).timesteps, whole.timesteps)
    none = last_part(whole, 0.0)
    latent, noise = torch.randn(1, 2, 4, 8), torch.randn(3, 2, 4, 8)
    assert len(none.timesteps) == 0
    assert torch.equal(sample(None, none, noise, noised(none, latent, noise))[2], latent[0])


def test_parts_are_the_whole_way():
    noise, whole, latent = (
        starting_noise((2, 4, 8), [0, 1], CPU),
        make_scheduler("euler", FLOW, 9),
        None,
    )
    for first, last in ((0, 5), (5, 6), (6, None)):
        latent = sample(velocity, part(whole, first, last), noise, latent)
    assert torch.equal(latent, sample(velocity, whole, noise))


@pytest.mark.parametrize(("here", "there"), [(10, 5), (3, 0), (20, 15)])
def test_going_back_is_the_forward_process(here, there):
    scheduler = make_scheduler("euler", FLOW, 20)
    clean, noise, fresh = (torch.randn(64, 2, 4, 8) for _ in range(3))
    signal, deviation = level(scheduler, here)
    found, renewed = back(scheduler, here, there, signal * clean + deviation * noise, noise, fresh)
    time = 1 - there / 20
    torch.testing.assert_close(found, (1 - time) * clean + time * renewed, rtol=0, atol=1e-4)
    assert renewed.std().item() == pytest.approx(1, abs=0.03)


def test_a_sampler_that_cannot_go_by_the_prediction_is_refused(tmp_path):
    path = tiny.write_config(tmp_path, 2)
    flow = {"model": {"noise_scheduler": {"prediction_type": "flow_prediction"}}}
    settings = PipelineSettings.of(tiny.load(path, flow))
    assert settings.sampling_with(sampler="euler").sampler == "euler"
    with pytest.raises(ConfigError, match=r"sampler 'ddim' must be one of dpm\+\+, euler, unipc"):
        settings.sampling_with(sampler="ddim")
    for changes, message in (
        ({"inference": {"sampler": "euler"}}, r"inference.sampler 'euler' must be one of ddim"),
        ({**flow, "inference": {"sampler": "pndm"}}, r"inference.sampler 'pndm' must be one of"),
        ({"model": {**flow["model"], "snr_gamma": 5}}, "snr_gamma 5 must be null"),
        ({"model": {"flow_times": {"mean": 2.0}}}, "flow_times.mean 2 and flow_times.std 1 must"),
    ):
        with pytest.raises(UserError, match=message):
            tiny.load(path, changes)
