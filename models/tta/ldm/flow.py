"""Euler's steps along a flow, by diffusers' scheduler; to be imported when a sampler is made."""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor


class FlowEuler(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler with what its others have besides, and steps of equal length.

    x_b = x_a + (b - a) v(x_a, a), from time 1, noise, to 0; a timestep is `num_train_timesteps`
    times the time.
    """

    init_noise_sigma = 1.0

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Steps of 1 / num_inference_steps; diffusers' own leave a last one of a thousandth."""
        super().set_timesteps(sigmas=np.linspace(1, 0, num_inference_steps, endpoint=False))

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def add_noise(self, latent: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The latent at the step that comes next, which `timesteps` [1] tells."""
        return self.scale_noise(latent, timesteps, noise)

    def span(self, timestep: Tensor) -> Tensor:
        """[2]: the timesteps where the step from `timestep` begins and ends."""
        place = int((self.timesteps == timestep).nonzero())
        return torch.stack([timestep, self.sigmas[place + 1] * self.config.num_train_timesteps])

    def starting_at(self, time: float) -> FlowEuler:
        """The rest of the way from this time on: its first step is a shorter one."""
        scheduler = copy.deepcopy(self)
        keep = self.sigmas < time
        scheduler.sigmas = self.sigmas.new_tensor([time, *self.sigmas[keep].tolist()])
        scheduler.timesteps = scheduler.sigmas[:-1] * self.config.num_train_timesteps
        return scheduler
