"""Seconds, FLOPs, memory and the machine: what every part of the benchmark measures with."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from utils.device import peak_memory, precision, synchronise

CLEAR_PEAK = "5"  # to /proc/self/clear_refs (man 5 proc)
MATRIX = 2048  # rows and columns, to measure the matrix rate with
SHOWN = {"bf16": "bf16", "no": "fp32"}
PRECISIONS = {"bf16": torch.bfloat16, "no": torch.float32}


@dataclass
class Line:
    """One way to do a thing."""

    name: str
    seconds: float  # the fastest of all rounds: what else the machine does only adds
    clips: int = 1
    gflop: float | None = None
    gib: float | None = None  # peak memory


@dataclass
class Ratio:
    """A figure to reach."""

    name: str
    value: float
    wanted: str


@dataclass
class Part:
    """What was measured of one part of the recipe."""

    name: str
    about: str
    lines: list[Line] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def compare(self, slow: str, fast: str, name: str, wanted: str) -> None:
        """Notes how many times as long as `fast` the line `slow` takes."""
        seconds = {line.name: line.seconds for line in self.lines}
        self.ratios.append(Ratio(name, seconds[slow] / seconds[fast], wanted))


def alternate(
    ways: dict[str, Callable[[], object]], clips: int, rounds: int, device: torch.device
) -> list[Line]:
    """Times each way once a round, one after the other, so that all meet the same machine.

    FLOPs are those of a first call and memory that of a second, which are not timed.
    """
    lines = []
    for name, way in ways.items():
        gflop = count_gflop(way)
        reset_peak(device)
        way()
        synchronise(device)
        lines.append(Line(name, float("inf"), clips, gflop, peak_memory(device) / 2**30))
    for _ in range(rounds):
        for line in lines:
            line.seconds = min(line.seconds, seconds_of(ways[line.name], device))
    return lines


def seconds_of(way: Callable[[], object], device: torch.device) -> float:
    """To the end of the device's work."""
    synchronise(device)
    began = time.perf_counter()
    way()
    synchronise(device)
    return time.perf_counter() - began


def count_gflop(way: Callable[[], object]) -> float:
    """Of matrix products and convolutions, an addition and a multiplication being two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        way()
    return counter.get_total_flops() / 1e9


def reset_peak(device: torch.device) -> None:
    """From here on `peak_memory` counts, what others have left behind not included."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps what was freed
            libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)


def matrix_gflops(name: str, device: torch.device, rounds: int = 10) -> float:
    """The rate [GFLOP/s] of a large matrix product in a precision, "bf16" or "no"."""
    a, b = torch.randn(2, MATRIX, MATRIX, device=device).to(PRECISIONS[name])
    a @ b
    seconds = min(seconds_of(lambda: [a @ b for _ in range(4)], device) for _ in range(rounds))
    return 4 * 2 * MATRIX**3 / seconds / 1e9


def machine(device: torch.device) -> dict[str, object]:
    """What was measured on."""
    best = precision("auto", device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "precision": SHOWN[best],
        "matrix_gflops": {
            SHOWN[p]: round(matrix_gflops(p, device)) for p in dict.fromkeys([best, "no"])
        },
    }


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor() or platform.machine()
