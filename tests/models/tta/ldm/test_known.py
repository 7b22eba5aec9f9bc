"""Sampling around what is known, and from a sound: known answers for every sampler."""

import diffusers
import pytest
import torch

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
from models.tta.ldm.sampling import SAMPLERS, make_scheduler, sample, starting_noise
from tests.gaussian import CPU, MEAN, SCHEDULE, STD, Correlated

# How far from the closed form 50 steps may end; see tests/models/tta/ldm/test_pipeline.py.
ERRORS = {"ddim": 0.065, "dpm++": 0.01, "pndm": 0.055, "unipc": 0.01}
FORWARD = diffusers.DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear")


def left_known(batch: int = 2) -> Known:
    """8 columns: the first 5 known, the others to be made."""
    latent = 3 * torch.randn(batch, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    return Known(latent, torch.arange(8).expand(4, 8) >= 5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_known_is_at_each_step_at_its_noise_level(sampler):
    known, noise = left_known(), starting_noise((2, 4, 8), [3, 4], CPU)
    seen = []

    def denoise(latent, timestep):
        seen.append(int(timestep))
        expected = FORWARD.add_noise(known.latent, noise, timestep[None])
        # Karras' noise levels lie between two timesteps, of which the nearer is told.
        error = (
            0.03 if "Karras" in str(SAMPLERS[sampler]) or sampler in ("dpm++", "unipc") else 1e-4
        )
        torch.testing.assert_close(
            latent[..., :5], expected[..., :5], rtol=0, atol=error, check_stride=False
        )
        return latent.sin()

    made = sample_around(denoise, make_scheduler(sampler, SCHEDULE, 20), noise, known)
    assert len(seen) == 20 + (sampler == "pndm")
    assert torch.equal(made[..., :5], known.latent[..., :5])
    assert (made[..., 5:] - known.latent[..., 5:]).abs().min() > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.2, 0.4, 0.7])
def test_from_a_sound_the_probability_flow_ends_where_it_should(sampler, strength):
    """From the law of noised data at any level, it leads to the data's, by scaling and shifting."""
    scheduler = last_part(make_scheduler(sampler, SCHEDULE, 50), strength)
    steps = steps_of(scheduler)
    assert steps[0] < 1000 * strength
    assert len(steps) == (steps_of(make_scheduler(sampler, SCHEDULE, 50)) < 1000 * strength).sum()
    noise = starting_noise((2, 4, 8), range(16), CPU)
    source = MEAN + STD * starting_noise((2, 4, 8), range(100, 116), CPU)
    start = noised(scheduler, source, noise)
    expected = FORWARD.add_noise(source, noise, steps[:1])
    torch.testing.assert_close(start, expected, rtol=0, atol=0.01)
    signal, deviation = level(scheduler, 0)
    assert signal**2 + deviation**2 == pytest.approx(1, abs=1e-5)
    made = sample(Correlated(SCHEDULE, 0.0), scheduler, noise, start)
    spread = ((signal * STD) ** 2 + deviation**2) ** 0.5
    ends = MEAN + STD * (start - signal * MEAN) / spread
    assert (made - ends).abs().max() < 2 * ERRORS[sampler]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_0_takes_no_step_and_1_takes_all(sampler):
    whole = make_scheduler(sampler, SCHEDULE, 10)
    assert torch.equal(last_part(whole, 1.0).timesteps, whole.timesteps)
    none = last_part(whole, 0.0)
    assert len(none.timesteps) == 0
    latent, noise = torch.randn(1, 2, 4, 8), torch.randn(3, 2, 4, 8)
    assert torch.equal(sample(None, none, noise, noised(none, latent, noise))[2], latent[0])


def test_parts_of_first_order_are_the_whole_way():
    noise, denoise = starting_noise((2, 4, 8), [0, 1], CPU), Correlated(SCHEDULE, 0.5)
    whole = make_scheduler("ddim", SCHEDULE, 12)
    latent = None
    for first, last in ((0, 5), (5, 6), (6, None)):
        latent = sample(denoise, part(whole, first, last), noise, latent)
    assert torch.equal(latent, sample(denoise, whole, noise))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("here", "there"), [(10, 5), (3, 2), (20, 15)])
def test_going_back_is_the_forward_process(sampler, here, there):
    """What is a x_0 + s noise here is a' x_0 + s' noise' there, with noise' of unit variance."""
    scheduler = make_scheduler(sampler, SCHEDULE, 20)
    clean, noise, fresh = (torch.randn(64, 2, 4, 8) for _ in range(3))
    signal, deviation = level(scheduler, here)
    latent = signal * clean + deviation * noise
    found, renewed = back(scheduler, here, there, latent, noise, fresh)
    expected = FORWARD.add_noise(clean, renewed, steps_of(scheduler)[there : there + 1])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    assert renewed.std().item() == pytest.approx(1, abs=0.03)
    kept = torch.corrcoef(torch.stack([renewed.flatten(), noise.flatten()]))[0, 1].item()
    assert kept == pytest.approx(deviation * signal_ratio(scheduler, here, there), abs=0.04)


def signal_ratio(scheduler, here: int, there: int) -> float:
    (signal, _), (before, deviation) = level(scheduler, here), level(scheduler, there)
    return before / signal / deviation


@pytest.mark.parametrize("sampler", ["dpm++", "pndm"])
def test_jumps_fit_what_is_made_to_what_is_known(sampler):
    """Neighbours in the data correlate by 0.9; where one is known and one made, less so."""
    seeds = range(48)
    denoise = Correlated(SCHEDULE, 0.9)
    data = denoise.data(starting_noise((2, 4, 8), range(1000, 1048), CPU))
    known = Known(data, (torch.arange(8) >= 4).expand(4, 8))
    noise, scheduler = starting_noise((2, 4, 8), seeds, CPU), make_scheduler(sampler, SCHEDULE, 20)
    found = []
    for resample in (1, 4):
        made = sample_around(denoise, scheduler, noise, known, None, resample, seeds)
        assert torch.equal(made[..., :4], data[..., :4])
        assert made[..., 4:].mean().item() == pytest.approx(MEAN, abs=0.1)
        pair = torch.stack([made[..., 3].flatten(), made[..., 4].flatten()])
        found.append(torch.corrcoef(pair)[0, 1].item())
    assert found[0] + 0.05 < found[1] < 0.95


def test_a_sound_s_jumps_do_not_depend_on_its_batch():
    scheduler, known = make_scheduler("ddim", SCHEDULE, 10), left_known()
    seeds, noise = [5, 6], starting_noise((2, 4, 8), [5, 6], CPU)
    denoise = Correlated(SCHEDULE, 0.5)
    both = sample_around(denoise, scheduler, noise, known, None, 2, seeds)
    second = Known(known.latent[1:], known.remade)
    alone = sample_around(denoise, scheduler, noise[1:], second, None, 2, seeds[1:])
    torch.testing.assert_close(both[1:], alone)
    other = sample_around(denoise, scheduler, noise[1:], second, None, 2, [7])
    assert (other - alone)[..., 5:].abs().max() > 0.01
