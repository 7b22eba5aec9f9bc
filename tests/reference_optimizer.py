"""The optimizer, its learning rate and the average of weights as the papers have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def learning_rate(train: dict, step: int) -> float:
    """Linear warm-up (Goyal et al. 2017, arXiv:1706.02677, section 2.2), then the schedule.

    The cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, with one period down to
    zero; `step` counts from 0.
    """
    largest, warmup, steps = train["adam"]["lr"], train["warmup_steps"], train["max_steps"]
    if step < warmup:
        return largest * (step + 1) / warmup
    share = (step - warmup) / (steps - warmup)
    if train["lr_schedule"] == "linear":
        return largest * (1 - share)
    if train["lr_schedule"] == "cosine":
        return largest * (1 + math.cos(math.pi * share)) / 2
    return largest


class AdamW:
    """Algorithm 2 of Loshchilov & Hutter 2019, arXiv:1711.05101, with alpha = 1 and eta_t = rate.

    Before it, gradients are scaled to a global norm of at most `grad_clip` (Pascanu et al. 2013,
    arXiv:1211.5063, algorithm 1).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], train: dict) -> None:
        self.parameters, self.largest, adam = list(parameters), train["grad_clip"], train["adam"]
        (self.beta1, self.beta2), self.eps = adam["betas"], adam["eps"]
        self.weight_decay = adam["weight_decay"]
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]
        self.t = 0
        self.norms: list[float] = []  # before clipping, one a step

    def gradients(self, loss: Tensor) -> list[Tensor | None]:
        return torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)

    @torch.no_grad()
    def step(self, gradients: list[Tensor | None], rate: float) -> None:
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))
        self.norms.append(norm)
        self.t += 1
        for theta, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            if g is None:
                continue
            g = g * min(1.0, self.largest / norm)
            m.copy_(self.beta1 * m + (1 - self.beta1) * g)  # line 7
            v.copy_(self.beta2 * v + (1 - self.beta2) * g * g)  # line 8
            m_hat = m / (1 - self.beta1**self.t)  # line 9
            v_hat = v / (1 - self.beta2**self.t)  # line 10
            decayed = m_hat / (v_hat.sqrt() + self.eps) + self.weight_decay * theta
            theta.copy_(theta - rate * decayed)  # line 12


class Average:
    """Moving average of weights: shadow <- d shadow + (1 - d) weight after every step.

    d = min(decay, (1 + s) / (10 + s)) at step s, from 0: TensorFlow's ExponentialMovingAverage with
    its num_updates.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.shadow = [p.detach().clone() for p in self.parameters]

    def step(self, s: int) -> None:
        d = min(self.decay, (1 + s) / (10 + s))
        for shadow, weight in zip(self.shadow, self.parameters, strict=True):
            shadow.copy_(d * shadow + (1 - d) * weight.detach())
