"""A moving average of weights, which samples better than the weights of any one step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

TURNS = 10  # steps until every average has been renewed


class EMA:
    """Exponential moving average of parameters, in float32 whatever their own precision.

    Each step averages a tenth of them, in turn: all of them would move as many bytes as half an
    optimizer step, and over the 1 / (1 - decay) steps of the average, every tenth is as good.

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
        self.turns = even_shares([average.numel() for average in self.shadow], TURNS)

    @torch.no_grad()
    def update(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """shadow <- D shadow + (1 - D) parameter, for those whose turn it is at `step`.

        D is the product of d = min(decay, (1 + s) / (10 + s)) over the steps s since their last
        turn. The second term lets the average leave the random start behind within the first steps.
        """
        turn = self.turns[step % TURNS]
        if not turn:
            return
        since = range(max(0, step - TURNS + 1), step + 1)
        kept = math.prod(min(self.decay, (1 + s) / (10 + s)) for s in since)
        parameters = list(parameters)
        current = [parameters[number].detach().float() for number in turn]
        torch._foreach_lerp_([self.shadow[number] for number in turn], current, 1.0 - kept)

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


def even_shares(sizes: list[int], count: int) -> list[list[int]]:
    """Numbers of `sizes` in `count` shares whose sums differ little: the largest come first."""
    shares: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for number in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        smallest = sums.index(min(sums))
        shares[smallest].append(number)
        sums[smallest] += sizes[number]
    return shares
