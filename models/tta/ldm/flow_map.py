"""From a model that goes along a flow to a flow map, for which few steps are enough, unguided.

A flow map knows the mean velocity u(x_a, a, b) of the way from time a to time b: the step x_b = x_a
+ (b - a) u is then as long as one likes. It is learnt from a frozen teacher:

    u(x, t, t) = v(x, t)                                    the teacher's velocity under guidance
    u(x, t, r) = (u(x, t, s) + u(x_s, s, r)) / 2            s half way, x_s = x + (s - t) u(x, t, s)

which is progressive self-distillation with midpoints (Boffi et al. 2025, arXiv:2505.18825, section
3; Frans et al. 2024, arXiv:2410.12557, eq. 4, on a grid of times). Of the ways to learn a flow map
it is the one without a derivative: two more forward passes, in any precision, through any
attention, compiled or checkpointed; and as a target is a mean of two predictions, it cannot grow by
itself. Derivatives in time (MeanFlow, Lagrangian) need forward-mode AD or float32 differences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tta.ldm.diffusion import DiffusionObjective
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.sampling import with_mean
from models.tta.ldm.unet import UNet
from utils.device import memory_format

LENGTHS = 6  # of the jumps that are learnt: all of the way, 1/2, ..., 1/32
SHORTEST = 0.5 ** (LENGTHS - 1)


def beside(latent: Tensor, source: Tensor | None) -> Tensor:
    """What a U-Net reads: the latent, of an editor with that of the sound to edit behind it."""
    return latent if source is None else torch.cat([latent, source], dim=1)


class Teacher:
    """A frozen U-Net's velocity, guided by the text, of an editor also by the sound to edit.

    As `sampling.guided` and `editing.pipeline.guided_by_both` have it.
    """

    def __init__(
        self,
        unet: nn.Module,
        empty: tuple[Tensor, Tensor],
        text_scale: float,
        source_scale: float,
        mean_share: float = 1.0,
    ) -> None:
        """`empty`: states [1, L, D] and mask [1, L] of the empty text."""
        self.unet, self.empty, self.mean_share = unet, empty, mean_share
        terms = [  # weight, and whether the text and the source are there
            (text_scale, True, True),
            (source_scale - text_scale, False, True),
            (1 - source_scale, False, False),
        ]
        self.terms = [term for term in terms if term[0] != 0]

    def to(self, device: torch.device) -> None:
        self.unet.to(device, memory_format=memory_format(device))
        self.empty = tuple(tensor.to(device) for tensor in self.empty)

    @torch.no_grad()
    def __call__(
        self, latent: Tensor, timesteps: Tensor, text: Tensor, mask: Tensor, source: Tensor | None
    ) -> Tensor:
        """[B, z, h, w], of latents at timesteps [B], texts [B, L, D] with mask [B, L]."""
        longer = text.shape[1] - self.empty[0].shape[1]
        empty = F.pad(self.empty[0], (0, 0, 0, longer)).to(text.dtype).expand_as(text)
        no_mask = F.pad(self.empty[1].bool(), (0, longer)).expand_as(mask)
        inputs, texts, masks = [], [], []
        for _, said, heard in self.terms:
            inputs.append(beside(latent, source if source is None else heard * source))
            texts.append(text if said else empty)
            masks.append(mask.bool() if said else no_mask)
        times = timesteps.repeat(len(self.terms))
        predictions = self.unet(torch.cat(inputs), times, torch.cat(texts), torch.cat(masks))
        parts = predictions.float().chunk(len(self.terms))
        total = sum(weight * part for (weight, *_), part in zip(self.terms, parts, strict=True))
        return with_mean(total, parts[0], self.mean_share)


class FlowMapObjective(DiffusionObjective):
    """The loss of a batch: of every `jump_every`-th clip, the first included, for a jump, of the
    others for the velocity."""

    def __init__(
        self, unet: UNet, schedule: NoiseSchedule, teacher: Teacher, jump_every: int
    ) -> None:
        super().__init__(unet, None, schedule, None)
        self.teacher, self.jump_every = teacher, jump_every  # no module: it does not learn

    def forward(
        self,
        latent: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_mask: Tensor,
        source: Tensor | None = None,
    ) -> Tensor:
        """Squared error of every clip's mean velocity, [B].

        timesteps [B, 2]: where a jump begins and ends, the same one for a velocity; the rest is as
        in `DiffusionObjective`, with states as the text.
        """
        noisy = self.schedule.add_noise(latent, noise, timesteps[:, 0])
        # First what learns: autocast keeps the weights it has cast, with or without a gradient.
        prediction = self.unet(beside(noisy, source), timesteps, text, text_mask)
        with torch.no_grad():
            target = self.target_velocity(noisy, timesteps, text, text_mask, source)
        return F.mse_loss(prediction.float(), target, reduction="none").mean((1, 2, 3))

    def target_velocity(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, mask: Tensor, source: Tensor | None
    ) -> Tensor:
        """What the network is to predict, [B, z, h, w]."""
        every = self.jump_every
        given = (noisy, timesteps, text, mask, source)
        groups = [None if x is None else x.unflatten(0, (-1, every)) for x in given]
        jumps = (None if x is None else x[:, 0] for x in groups)
        others = [None if x is None else x[:, 1:].flatten(0, 1) for x in groups]
        of_jumps = self.two_halves(*jumps)
        velocities = self.teacher(others[0], others[1][:, 0], *others[2:])
        both = [of_jumps[:, None], velocities.unflatten(0, (-1, every - 1))]
        return torch.cat(both, dim=1).flatten(0, 1)

    def two_halves(
        self, latent: Tensor, timesteps: Tensor, text: Tensor, mask: Tensor, source: Tensor | None
    ) -> Tensor:
        """The mean of the velocities of a jump's halves, [B, z, h, w].

        Halves of the shortest jumps are Euler's steps, by the velocity at their beginning.
        """
        begin, end = timesteps.unbind(1)
        middle, shortest = (begin + end) / 2, begin - end < 1.5 * SHORTEST * self.schedule.steps

        def velocity(latent: Tensor, begin: Tensor, end: Tensor) -> Tensor:
            times = torch.stack([begin, begin.where(shortest, end)], dim=1)
            return self.unet(beside(latent, source), times, text, mask).float()

        first = velocity(latent, begin, middle)
        second = velocity(self.step(latent, first, begin, middle), middle, end)
        return (first + second) / 2

    def step(self, latent: Tensor, velocity: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """The latent at timesteps `end` [B], from `begin` on by this mean velocity."""
        return latent + ((end - begin) / self.schedule.steps)[:, None, None, None] * velocity
