"""What a run tells: its figures, its log, TensorBoard's curves, pictures and audio."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import torch


class Figures:
    """Tensors measured at every step, read together at a summary: nothing waits before."""

    def __init__(self, accelerator, unread: dict[str, torch.Tensor] | None = None) -> None:
        """`unread` is what `unread()` gave when the run was saved."""
        self.accelerator = accelerator
        self._values: dict[str, list[torch.Tensor]] = {
            name: list(values.to(accelerator.device)) for name, values in (unread or {}).items()
        }

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        """Notes one step's figures, tensors without dimensions."""
        for name, value in figures.items():
            self._values.setdefault(name, []).append(value)

    def unread(self) -> dict[str, torch.Tensor]:
        """All values since the last `read`, [steps] by name, means over processes."""
        return {
            name: self.accelerator.reduce(torch.stack(values).float(), reduction="mean")
            for name, values in self._values.items()
        }

    def read(self) -> dict[str, float]:
        """Means of the finite values since the last call, over steps and processes.

        A figure without a finite value is left out.
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


def open_log(run: Path | None) -> logging.Logger:
    """The logger "arion": lines on stderr, and in <run>/log.txt where a run is given.

    Warnings of other parts and libraries go the same way.
    """
    handlers: list[logging.Handler] = [_AboveProgressBar()]
    if run is not None:
        handlers.append(logging.FileHandler(run / "log.txt", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("arion")
    for logger, level in ((log, logging.INFO), (logging.getLogger(), logging.WARNING)):
        logger.setLevel(level)
        logger.handlers = handlers
    log.propagate = False
    return log


class _AboveProgressBar(logging.Handler):
    """Prints a line without tearing the progress bar below it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class Board:
    """TensorBoard files of a run, and its samples."""

    def __init__(self, run: Path, step: int) -> None:
        """What a killed run had written past `step`, where it goes on, is struck out."""
        from torch.utils.tensorboard import SummaryWriter

        for file in sorted((run / "tensorboard").glob("events.out.tfevents.*")):
            strike_out(file, step)
        self.writer = SummaryWriter(str(run / "tensorboard"))
        self.folder = run / "samples"

    def scalars(self, group: str, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def sounds(
        self, sounds: list[tuple[str, np.ndarray, np.ndarray]], rate: int, step: int
    ) -> None:
        """(name, mel [n_mel, frames], wav [T] in [-1, 1]) as picture and audio, and as files."""
        from processors.mel_picture import mel_rgb
        from utils.audio import write_wav

        folder = self.folder / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, mel, wav) in enumerate(sounds):
            self.writer.add_image(f"mel/{name}", mel_rgb(mel), step, dataformats="HWC")
            self.writer.add_audio(f"audio/{name}", wav[None], step, rate)
            write_wav(folder / f"{number:03d}.wav", wav, rate)

    def flush(self) -> None:
        """Returns once all is in the files: a checkpoint must not be ahead of them."""
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def strike_out(file: Path, step: int) -> None:
    """Rewrites an event file without events past `step` and without a torn end."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    temporary = file.with_name(f".{file.name}.part")
    with open(temporary, "wb") as kept:
        writer = RecordWriter(kept)
        for record in RawEventFileLoader(str(file)).Load():
            if Event.FromString(record).step <= step:
                writer.write(record)
    os.replace(temporary, file)
