"""Flow maps: what is learnt and how it is sampled, against normal data, where all is known."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from models.tta.ldm.flow_map import LENGTHS, FlowMapObjective, Teacher
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.sampling import make_scheduler, sample, starting_noise
from tests.gaussian import CPU, MEAN, SCHEDULE, STD

FLOW = dataclasses.replace(SCHEDULE, prediction_type="flow_prediction")


def law(time):
    """Mean and deviation of (1 - t) x_0 + t eps where x_0 is from N(MEAN, STD^2)."""
    return (1 - time) * MEAN, (((1 - time) * STD) ** 2 + time**2) ** 0.5


def velocity(latent, time):
    """dx/dt of x_t = m_t + s_t z, which keeps z."""
    mean, spread = law(time)
    return -MEAN + (time - (1 - time) * STD**2) / spread**2 * (latent - mean)


class ExactMap(nn.Module):
    """The mean velocity from one time to another, in closed form; beside it what it was told."""

    def forward(self, latent, timesteps, text=None, mask=None):
        begin, end = (timesteps.double() / 1000).view(-1, 2, 1, 1, 1).unbind(1)
        latent = latent.double()
        (mean, spread), (mean_there, spread_there) = law(begin), law(end)
        there = mean_there + spread_there / spread * (latent - mean)
        jump = (there - latent) / (end - begin)
        return jump.where(begin != end, velocity(latent, begin)).float()


class Telling(nn.Module):
    """A network whose prediction tells what it read: latent, text and source, one by one."""

    def forward(self, inputs, timesteps, text, mask):
        assert timesteps.shape == (len(inputs),)
        latent, source = inputs[:, :2], inputs[:, 2:]
        said = (text * mask[..., None]).sum((1, 2))[:, None, None, None]
        heard = source if source.shape[1] else 0.0
        return latent + 10 * said + 100 * heard + timesteps[:, None, None, None]


def texts():
    """Four, with the empty one; its state is 0.5, of one token."""
    states = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1).repeat(1, 3, 1)
    return states, torch.ones(4, 3).bool(), (torch.full((1, 1, 1), 0.5), torch.ones(1, 1))


def test_the_teacher_is_guided_by_text_and_by_sound():
    """Ho & Salimans 2022, eq. 6, and Brooks et al. 2023, eq. 3, term by term."""
    states, mask, empty = texts()
    latent, source = torch.randn(2, 4, 2, 3, 5)
    timesteps = torch.tensor([100.0, 200.0, 300.0, 400.0])
    unet, time = Telling(), timesteps[:, None, None, None]
    of_text, of_none = 10 * 3 * states[:, :1, :, None], 10 * 0.5
    expected = latent + of_none + 2.5 * (of_text - of_none) + time
    found = Teacher(unet, empty, 2.5, 1.0)(latent, timesteps, states, mask, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    found = Teacher(unet, empty, 2.5, 1.0)(latent, timesteps, states, mask, source)
    torch.testing.assert_close(found, expected + 100 * source, rtol=1e-4, atol=1e-3)
    found = Teacher(unet, empty, 2.5, 1.5)(latent, timesteps, states, mask, source)
    torch.testing.assert_close(found, expected + 1.5 * 100 * source, rtol=1e-4, atol=1e-3)
    found = Teacher(unet, empty, 2.5, 1.0, 0.5)(latent, timesteps, states, mask, None)
    half = 0.5 * 1.5 * (of_text - of_none)  # which is the same at all places
    torch.testing.assert_close(found, expected - half, rtol=1e-4, atol=1e-3)
    # What is not needed is not run.
    assert [len(Teacher(unet, empty, *w).terms) for w in ((1, 1), (3, 1), (2, 2), (3, 2))] == [
        *(1, 2, 2, 3),
    ]


def test_the_exact_map_is_what_every_jump_wants_to_be():
    """Its halves give the whole; but for the shortest, whose halves are Euler's steps."""
    jumps = [(1.0, 0.0), (1.0, 0.5), (0.7, 0.2), (0.31, 0.06), (0.9, 0.775), (0.5, 0.5 - 1 / 32)]
    times = torch.tensor([pair for jump in jumps for pair in (jump, (jump[0],) * 2, (0.3, 0.3))])
    noisy = torch.randn(18, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    schedule, exact = NoiseSchedule(FLOW), ExactMap()
    objective = FlowMapObjective(exact, schedule, lambda x, t, *_: x + t[:, None, None, None], 3)
    target = objective.target_velocity(noisy, 1000 * times, None, None, None)
    torch.testing.assert_close(target[0:15:3], exact(noisy[0:15:3], 1000 * times[0:15:3]))
    begin, latent = times[15, 0].double(), noisy[15].double()
    first = velocity(latent, begin)
    second = velocity(latent - first / 64, begin - 1 / 64)
    torch.testing.assert_close(target[15], ((first + second) / 2).float())
    assert (target[15] - exact(noisy[15:16], 1000 * times[15:16])[0]).abs().max() > 1e-5
    others = torch.arange(18) % 3 > 0  # the teacher's, at the time where they begin
    expected = noisy[others] + 1000 * times[others][:, :1, None, None]
    torch.testing.assert_close(target[others], expected)
    assert LENGTHS == 6


def test_the_loss_is_the_error_at_the_noised_latent_and_no_gradient_goes_to_the_target():
    class Learns(ExactMap):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(0.25))

        def forward(self, *given):
            return super().forward(*given) + self.bias

    latent, noise = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([[1.0, 0.0], [0.4, 0.4], [0.8, 0.55], [0.1, 0.1]])
    unet, schedule = Learns(), NoiseSchedule(FLOW)

    def teacher(noisy, timesteps, *_):
        return velocity(noisy, (timesteps / 1000)[:, None, None, None])

    errors = FlowMapObjective(unet, schedule, teacher, 2)(latent, noise, 1000 * times, None, None)
    # Of velocities the bias is all the error; of a jump, what it shifts in the second half.
    torch.testing.assert_close(errors[1::2], torch.full((2,), 0.0625))
    noisy = schedule.add_noise(latent, noise, 1000 * times[:, 0])
    middle = times.mean(1)
    with torch.no_grad():
        first = unet(noisy, 1000 * torch.stack([times[:, 0], middle], 1))
        there = noisy + (middle - times[:, 0])[:, None, None, None] * first
        second = unet(there, 1000 * torch.stack([middle, times[:, 1]], 1))
        missed = unet(noisy, 1000 * times) - (first + second) / 2
    torch.testing.assert_close(errors[::2], missed.square().mean((1, 2, 3))[::2])
    errors.mean().backward()
    expected = (2 * missed.mean((1, 2, 3))[::2].sum() + 2 * 2 * 0.25) / 4
    torch.testing.assert_close(unet.bias.grad, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_of_the_exact_map_end_where_the_whole_way_does(steps):
    noise, exact = starting_noise((2, 4, 8), range(4), CPU), ExactMap()
    told = []

    def denoise(latent, timestep):
        told.append(timestep.tolist())
        return exact(latent, timestep.expand(len(latent), 2))

    found = sample(denoise, make_scheduler("euler", FLOW, steps), noise)
    torch.testing.assert_close(found, MEAN + STD * noise, rtol=1e-4, atol=1e-4)
    grid = [1000 - 1000 * place / steps for place in range(steps + 1)]
    torch.testing.assert_close(told, [list(pair) for pair in itertools.pairwise(grid)])
