"""Whether torch's threads help: on a busy machine they wait for each other at every operation."""

from __future__ import annotations

import logging
import math
import os
import time

import torch

NUMBERS = 1 << 17  # enough for torch to share an addition out to all threads
ADDITIONS = 100
ROUNDS = 3
TOO_SLOW = 1.5  # times what one thread takes
SLOWER_STEP = 2.0  # times the fastest step so far, from which on threads are measured again


class ThreadWatch:
    """Measures at the start, and where steps became slow, whether one thread is faster than all.

    If it is, torch goes on with one, unless the user chose a number by OMP_NUM_THREADS; either way
    the log says so, once.
    """

    def __init__(self, log: logging.Logger, device: torch.device) -> None:
        self.log = log
        self.watching = device.type == "cpu" and torch.get_num_threads() > 1
        self.fastest = math.inf
        self.measure()

    def check(self, seconds: float) -> None:
        """`seconds` is the time of a step, a mean since the last call."""
        if seconds > SLOWER_STEP * self.fastest:
            self.measure()
        self.fastest = min(self.fastest, seconds)

    def measure(self) -> None:
        if not self.watching:
            return
        threads = torch.get_num_threads()
        ratio = slowdown(threads)
        if ratio < TOO_SLOW:
            return
        self.watching = False
        chosen = os.environ.get("OMP_NUM_THREADS")
        self.log.warning(
            "the machine is busy: torch's %d threads take %.1f times as long as one; %s",
            threads,
            ratio,
            "stop this run, and start it again with OMP_NUM_THREADS=1"
            if chosen
            else f"going on with one (to keep all: OMP_NUM_THREADS={threads})",
        )
        torch.set_num_threads(threads if chosen else 1)


def slowdown(threads: int) -> float:
    """Seconds of additions with `threads` threads, by seconds with one; torch keeps `threads`."""
    numbers, seconds = torch.ones(NUMBERS), {1: 0.0, threads: 0.0}
    for _ in range(ROUNDS):
        for count in seconds:
            torch.set_num_threads(count)
            numbers + numbers
            began = time.perf_counter()
            for _ in range(ADDITIONS):
                numbers + numbers
            seconds[count] += time.perf_counter() - began
    return seconds[threads] / seconds[1]
