"""A moving average of weights, which samples better than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """Exponential moving average of parameters, in float32 whatever their own precision.

    Args:
        parameters: those to average, in an order that every later call repeats.
        decay: share of the average that a step keeps, once warmed up. [0, 1)

    Attributes:
        shadow: the averages, one tensor per parameter; all the state there is.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.shadow = [
            parameter.detach().to(torch.float32, copy=True, memory_format=torch.preserve_format)
            for parameter in parameters
        ]

    @torch.no_grad()
    def update(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """shadow <- d shadow + (1 - d) parameter, where d = min(decay, (1 + step) / (10 + step)).

        The second term lets the average leave the random start behind within the first steps.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [parameter.detach().float() for parameter in parameters]
        torch._foreach_lerp_(self.shadow, current, 1.0 - decay)

    @contextmanager
    def swapped(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Within the `with` block, the parameters hold the averages."""
        current = [parameter.detach() for parameter in parameters]
        kept = [tensor.clone() for tensor in current]
        torch._foreach_copy_(current, self.shadow)
        try:
            yield
        finally:
            torch._foreach_copy_(current, kept)
