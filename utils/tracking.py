"""What a run tells: its log, TensorBoard's curves, pictures and audio, the progress bar."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np


def open_log(run: Path | None) -> logging.Logger:
    """The logger "arion": lines on stderr, and in <run>/log.txt where a run is given."""
    log = logging.getLogger("arion")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    handlers: list[logging.Handler] = [_AboveProgressBar()]
    if run is not None:
        handlers.append(logging.FileHandler(run / "log.txt", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
    return log


class _AboveProgressBar(logging.Handler):
    """Prints a line without tearing the progress bar below it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class Board:
    """TensorBoard files of a run; what a killed run had logged past `step` is struck out."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=step)
        self.folder = run / "samples"

    def scalars(self, group: str, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def sounds(
        self, sounds: list[tuple[str, np.ndarray, np.ndarray]], rate: int, step: int
    ) -> None:
        """(name, mel [n_mel, frames], wav [T] in [-1, 1]) as picture and audio, and as files."""
        from utils.pictures import mel_rgb

        from utils.audio import write_wav

        folder = self.folder / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, mel, wav) in enumerate(sounds):
            self.writer.add_image(f"mel/{name}", mel_rgb(mel), step, dataformats="HWC")
            self.writer.add_audio(f"audio/{name}", wav[None], step, rate)
            write_wav(folder / f"{number:03d}.wav", wav, rate)

    def close(self) -> None:
        self.writer.close()
