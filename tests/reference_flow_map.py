"""A flow map's training steps, written out clip by clip beside tests/reference.py."""

from __future__ import annotations

import torch
from scipy.special import expit, ndtri
from torch import Tensor, nn

from tests.reference import Stage2, Text, generator, moments
from tests.reference_optimizer import learning_rate


class FlowMap(Stage2):
    """Progressive self-distillation with midpoints (Boffi et al. 2025, arXiv:2505.18825).

    Every `every`-th clip learns a jump as the mean of its halves, the others the teacher's guided
    velocity (Ho & Salimans 2022, arXiv:2207.12598, eq. 6), of which the mean of a channel is guided
    by half.
    """

    def __init__(self, teacher: nn.Module, scale: float, every: int, *arguments) -> None:
        super().__init__(*arguments)
        self.teacher, self.scale, self.every = teacher, scale, every
        text = self.text  # whose states no cache holds in half precision
        self.empty = Text(text.model, text.tokenizer, text.max_tokens, frozen=False)

    def velocity(self, x: Tensor, begin: float, end: float, text: tuple) -> Tensor:
        return self.unet(x, torch.tensor([[1000 * begin, 1000 * end]]), *text)

    def target(self, x: Tensor, begin: float, end: float, text: tuple) -> Tensor:
        if begin == end:
            time = torch.tensor([1000 * begin])
            empty, prompted = (self.teacher(x, time, *t) for t in (self.empty([""]), text))
            more = (self.scale - 1) * (prompted - empty)
            return prompted + more - more.mean((2, 3), keepdim=True) / 2
        middle = (begin + end) / 2
        # The shortest jumps, 1/32, have two steps of Euler's for their halves.
        euler = begin - end < 1 / 20
        first = self.velocity(x, begin, begin if euler else middle, text)
        x = x - (begin - middle) * first
        return (first + self.velocity(x, middle, middle if euler else end, text)) / 2

    def step(self, step: int) -> None:
        mel, captions, seen = self.batch(step)
        random, count = generator(self.train["random_seed"], "diffusion", step), len(mel)
        with torch.no_grad():
            mean, logvar = moments(self.vae, mel)
            mean, std = mean.half().float(), (logvar / 2).exp().half().float()
        places = (torch.rand(1, generator=random) + torch.arange(count) / count) % 1
        spread = torch.randn(mean.shape, generator=random)
        noise = torch.randn(mean.shape, generator=random)
        x_0 = (mean + std * spread) / self.vae.latent_std
        first = int(torch.randint(6, (1,), generator=random))
        ends = torch.rand(count, generator=random)
        errors, seen["lengths"] = [], []
        for n in range(count):
            begin = end = float(expit(ndtri(float(places[n]))))
            if n % self.every == 0:
                length = 0.5 ** ((first + n // self.every) % 6)
                end = (1 - length) * float(ends[n])
                begin = end + length
            x = (1 - begin) * x_0[n : n + 1] + begin * noise[n : n + 1]
            text = self.text(captions[n : n + 1])
            with torch.no_grad():
                target = self.target(x, begin, end, text)
            errors.append((self.velocity(x, begin, end, text) - target).square().mean())
            seen["lengths"].append(begin - end)
        loss, rate = torch.stack(errors).mean(), learning_rate(self.train, step)
        self.adam.step(self.adam.gradients(loss), rate)
        self.average.step(step)
        of_velocities = [
            float(e.detach())
            for e, length in zip(errors, seen["lengths"], strict=True)
            if not length
        ]
        seen["error_velocity"] = sum(of_velocities) / len(of_velocities)
        self.seen.append({**seen, "loss": float(loss.detach()), "learning_rate": rate})
