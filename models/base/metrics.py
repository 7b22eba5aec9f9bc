"""What is measured at every step."""

from __future__ import annotations

import torch
from accelerate import Accelerator


class Metrics:
    """Tensors measured at every step, read together at a summary: nothing waits before."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._values: dict[str, list[torch.Tensor]] = {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Notes metrics of one step or micro-batch, tensors without dimensions."""
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value)

    def read(self) -> dict[str, float]:
        """Means of the finite values since the last call, over steps and processes.

        A metric without a finite value is left out.
        """
        if not self._values:
            return {}
        rows = [_sum_and_count(torch.stack(values).float()) for values in self._values.values()]
        sums = self.accelerator.reduce(torch.stack(rows), reduction="sum").tolist()
        names, self._values = list(self._values), {}
        return {n: total / count for n, (total, count) in zip(names, sums, strict=True) if count}


def _sum_and_count(values: torch.Tensor) -> torch.Tensor:
    finite = values.isfinite()
    return torch.stack([values.where(finite, 0).sum(), finite.sum()])


def shown(metrics: dict[str, float]) -> str:
    """{"loss": 0.51234} -> "loss 0.5123"."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
