"""Seconds a step, and the share of them that is spent waiting for batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Runs from `start`, and again from each `read`.

    Attributes: since_step, the number of steps that were done then.
    """

    def __init__(self) -> None:
        self.start(0)

    def start(self, step: int) -> None:
        self._since, self.since_step, self._waited = time.perf_counter(), step, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done within the `with` block is waiting for batches."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within the `with` block is not part of a step's time."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def read(self, step: int, device_seconds: float) -> tuple[float, float]:
        """Seconds a step since the last call, and the share of waiting, [0, 1].

        `device_seconds` is how long the metrics' values were waited for just before. The device was
        behind by that much, so it had work while the loop waited for batches.
        """
        elapsed = max(1e-9, time.perf_counter() - self._since)
        waiting = max(0.0, self._waited - device_seconds) / elapsed
        seconds = elapsed / max(1, step - self.since_step)
        self.start(step)
        return seconds, waiting
