"""A moving average of weights, which samples better than the weights of any one step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EACH_STEP = 1000  # steps from the start that are averaged one by one
EVERY = 10  # steps from then on, of which the last one is averaged for all


class EMA:
    """Exponential moving average of the parameters of a module that learn, in float32.

    Step s (counted from 0) is averaged by d = min(decay, (1 + s) / (10 + s)):

        shadow <- d shadow + (1 - d) parameter

    The second term lets the average leave the random start behind within the first steps. After
    EACH_STEP steps, only every tenth step is averaged, with the product of ten d: the average spans
    1 / (1 - decay) steps, thousands at such lengths, and a pass over all weights costs a large
    model several per cent of a step on a CPU.

    Attributes:
        shadow: the averages by name of parameter; all the state there is.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        named = module.named_parameters()
        self.parameters = {name: p for name, p in named if p.requires_grad}
        self.shadow = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Averages the weights as they are after `step`."""
        if step >= EACH_STEP and (step + 1) % EVERY:
            return
        since = range(step - EVERY + 1, step + 1) if step >= EACH_STEP else [step]
        kept = math.prod(min(self.decay, (1 + s) / (10 + s)) for s in since)
        current = [parameter.float() for parameter in self.parameters.values()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1.0 - kept)

    @torch.no_grad()
    def load(self, averages: dict[str, Tensor]) -> None:
        """Sets the averages to tensors by name of parameter."""
        for name, average in self.shadow.items():
            average.copy_(averages[name])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the `with` block, the parameters hold the averages."""
        current = [parameter.detach() for parameter in self.parameters.values()]
        kept = [tensor.clone() for tensor in current]
        torch._foreach_copy_(current, list(self.shadow.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(current, kept)
