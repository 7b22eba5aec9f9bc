"""The processes that share a step out, where a launcher started several (accelerate, torchrun)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Ranks:
    """This process's number among `count`; `wait` returns once all have called it."""

    number: int
    count: int
    wait: Callable[[], None]

    @property
    def first(self) -> bool:
        return self.number == 0


def find_ranks() -> Ranks:
    """The ranks that a launcher set up in the environment; a single one without a launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks(0, 1, lambda: None)
    from accelerate import PartialState

    state = PartialState(cpu=True, timeout=timedelta(days=7))  # ranks wait for the slowest one
    return Ranks(state.process_index, state.num_processes, state.wait_for_everyone)
