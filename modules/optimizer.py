"""AdamW as both stages use it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from config.schema import AdamConfig, TrainConfig


def adamw(parameters: Iterable[nn.Parameter], adam: AdamConfig) -> torch.optim.AdamW:
    """One fused kernel for all parameters, on CPU and GPU."""
    return torch.optim.AdamW(
        parameters,
        lr=adam.lr,
        betas=tuple(adam.betas),
        eps=adam.eps,
        weight_decay=adam.weight_decay,
        fused=True,
    )


def learning_rate(train: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant, or falling to 0 at max_steps."""
    if step < train.warmup_steps:
        return train.adam.lr * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.max_steps - train.warmup_steps)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }
    return train.adam.lr * factor[train.lr_schedule]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Of all gradients together, unread."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def update(
    optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, largest: float, skip: Tensor
) -> None:
    """One optimizer step, left out where `skip` (a tensor, 0 or 1) is 1, and fresh gradients.

    Gradients of a `norm` above `largest` are scaled down to it. The fused kernel does that on its
    way, and reads the flag on the device (both are meant for loss scaling), so nobody waits.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale, optimizer.found_inf = (norm / largest).clamp(min=1), skip
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
