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
    """Norm of all gradients together, on their device: reading it would wait for the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def optimizer_step(
    optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, max_norm: float, skip: Tensor
) -> None:
    """One step at learning rate `rate`, with gradients clipped to `max_norm`; then no gradients.

    Args:
        norm: of this optimizer's gradients together.
        skip: a tensor, 0 or 1; 1 leaves weights and moments as they are.

    The fused kernel has two inputs for loss scaling, a divisor of the gradients and a flag to leave
    the step out. Here they clip and skip, which needs no pass over the gradients and no wait for
    the device.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale, optimizer.found_inf = (norm / max_norm).clamp(min=1), skip
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
