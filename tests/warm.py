"""Programs in processes of their own that start at once: forked from one that imported everything.

They can be killed like any process. Programs started the ordinary way are in tests/tiny.py.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import ROOT

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "models.base.run",
        "models.base.dry_run",
        "models.tta.autoencoder.training",
        "models.tta.editing.training",
        "models.tta.ldm.training",
        "models.vocoders.training",
        "bins.tta.train",
        "torch.utils.tensorboard",
        "diffusers",
    ]
)
SAVES = ("/step-", "/.step-", "/final", "/.final")  # in the paths of a checkpoint and of final/


@dataclass
class Trap:
    """Sends its own process a signal at the `count`-th file operation (from 1) on such paths."""

    paths: tuple[str, ...]
    count: int
    signal: int = signal.SIGKILL
    group: bool = False  # to all its children as well

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            return
        if any(part in str(arguments[0]) for part in self.paths):
            self.count -= 1
            if self.count == 0:
                (os.killpg if self.group else os.kill)(os.getpid(), self.signal)


def start(log: Path, *arguments: object, trap: Trap | None = None, **environment: str):
    """Starts bins/tta/train.py with its output in `log`; returns the process."""
    texts = [str(argument) for argument in arguments]
    process = FORKS.Process(target=_train, args=(log, texts, trap, environment))
    process.start()
    return process


def run(log: Path, *arguments: object, trap: Trap | None = None) -> int:
    """Trains to the end; the exit status."""
    process = start(log, *arguments, trap=trap)
    process.join()
    return process.exitcode


def run_together(log: Path, count: int, *arguments: object) -> list[int]:
    """As a launcher does it: `count` processes that train together; their exit statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start(log, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(count)
    ]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _train(log: Path, arguments: list[str], trap: Trap | None, environment: dict) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    os.chdir(ROOT)
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["train.py", *arguments]
    if trap is not None:
        sys.addaudithook(trap)
    from bins.tta.train import main
    from utils.cli import run_main

    run_main(main)
