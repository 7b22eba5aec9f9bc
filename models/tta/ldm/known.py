"""Sampling around what is known: a part of a latent, and a sound to start from.

A denoiser is any callable (`sampling.Denoiser`), so text-to-audio models and editors share this.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.tta.ldm.sampling import Denoiser, sample, starting_noise
from utils.seeds import derived_seed

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

JUMP = 5  # steps that RePaint goes before it goes back


class Known(NamedTuple):
    """A latent of which a part stays as it is."""

    latent: Tensor  # [B or 1, z, h, w], clean, scaled
    remade: Tensor  # bool, to be broadcast to that: True where the latent is made anew

    def kept(self, made: Tensor, known: Tensor) -> Tensor:
        """`made` where it is made anew, else `known`; both [B, z, h, w]."""
        return torch.where(self.remade, made, known)


def steps_of(scheduler: SchedulerMixin) -> Tensor:
    """The timestep of each step; pndm's list has the second one twice."""
    times = scheduler.timesteps
    return torch.cat([times[:1], times[2:]]) if is_pndm(scheduler) else times


def is_pndm(scheduler: SchedulerMixin) -> bool:
    return hasattr(scheduler, "plms_timesteps")


def part(scheduler: SchedulerMixin, first: int, last: int | None = None) -> SchedulerMixin:
    """A scheduler that takes the steps first, ..., last - 1 (None: to the end) of a fresh one.

    It has no memory of predictions before, as diffusers' own `set_begin_index` leaves it.
    """
    scheduler, steps = copy.deepcopy(scheduler), steps_of(scheduler)[first:last]
    # pndm takes its first step twice, so that the second timestep is seen twice
    scheduler.timesteps = torch.cat([steps[:2], steps[1:]]) if is_pndm(scheduler) else steps
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = scheduler.sigmas[first : None if last is None else last + 1]
    return scheduler


def last_part(scheduler: SchedulerMixin, strength: float) -> SchedulerMixin:
    """Its steps at timesteps below `strength` times the schedule's number of them.

    `strength` is SDEdit's t_0 (Meng et al. 2022, arXiv:2108.01073, section 3): a share of the time
    and not of the steps, so that it means the same noise to every sampler. A flow by Euler's steps
    begins there exactly, which keeps few steps from rounding it away.
    """
    if hasattr(scheduler, "starting_at"):
        return scheduler.starting_at(strength)
    most = strength * scheduler.config.num_train_timesteps
    return part(scheduler, int((steps_of(scheduler) >= most).sum()))


def noised(scheduler: SchedulerMixin, latent: Tensor, noise: Tensor) -> Tensor:
    """The clean latent at the noise level of the scheduler's first step, or clean without steps."""
    if not len(scheduler.timesteps):
        return latent.expand_as(noise)
    return scheduler.add_noise(latent, noise, scheduler.timesteps[:1])


def sample_around(
    denoise: Denoiser,
    scheduler: SchedulerMixin,
    noise: Tensor,
    known: Known,
    start: Tensor | None = None,
    resample: int = 1,
    seeds: Sequence[int] = (),
) -> Tensor:
    """The latent that `sample` makes around what is known, which is exact in it.

    Args:
        denoise, scheduler, noise, known, start: as in `sample`.
        resample: how often each `JUMP` steps are taken, with RePaint's jumps back between (Lugmayr
            et al. 2022, arXiv:2201.09865, section 4.2): what is made then fits better to what is
            known. 1: no jumps. As a solver's memory ends with a jump, its order is lower.
        seeds: of the B sounds, for the noise of the jumps.

    Returns:
        [B, z, h, w]
    """
    count, latent = len(steps_of(scheduler)), start
    jump = JUMP if resample > 1 else max(count, 1)
    for first in range(0, count, jump):
        last = min(first + jump, count)
        for again in range(resample):
            if again:
                fresh = [derived_seed(seed, "resample", first, again) for seed in seeds]
                fresh = starting_noise(noise.shape[1:], fresh, noise.device)
                latent, noise = back(scheduler, last, first, latent, noise, fresh)
            latent = sample(denoise, part(scheduler, first, last), noise, latent, known)
    return known.kept(latent, known.latent)


def back(
    scheduler: SchedulerMixin, here: int, there: int, latent: Tensor, noise: Tensor, fresh: Tensor
) -> tuple[Tensor, Tensor]:
    """From before the step `here` to before the earlier step `there`, with fresh noise.

    x_t = (a_t / a_s) x_s + sqrt(s_t^2 - (a_t / a_s)^2 s_s^2) fresh, the forward process from one
    level to another (Lugmayr et al. 2022, section 4.2, over several steps).

    Returns:
        the latent there; and the noise that what is known has there, where it had `noise` here
    """
    (signal, deviation), (signal_there, deviation_there) = (
        level(scheduler, step) for step in (here, there)
    )
    ratio = signal_there / signal
    added = (deviation_there**2 - (ratio * deviation) ** 2) ** 0.5
    noise = (ratio * deviation * noise + added * fresh) / deviation_there
    return ratio * latent + added * fresh, noise


def level(scheduler: SchedulerMixin, step: int) -> tuple[float, float]:
    """Share of the signal and deviation of the noise before a step; after the last: (1, 0)."""
    timesteps = (rest := part(scheduler, step)).timesteps[:1]
    if not len(timesteps):
        return 1.0, 0.0
    one, zero = torch.ones(1), torch.zeros(1)
    signal, deviation = (
        rest.add_noise(*pair, timesteps).item() for pair in ((one, zero), (zero, one))
    )
    return signal, deviation
