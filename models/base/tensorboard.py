"""TensorBoard's curves, pictures and audio of a run, and the sounds in samples/."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from processors.mel_picture import mel_rgb
from utils.audio import write_wav

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from models.base.task import Sample


class TensorBoard:
    """Writes below a run's folder; what cannot be written is one line in the log.

    Without a folder (in all processes but the main one) nothing is written.
    """

    def __init__(self, run: Path | None, step: int, log: logging.Logger) -> None:
        """TensorBoard hides what an earlier process of this run wrote past `step`."""
        self.run, self.log = run, log
        self._purge_step = step + 1 if step else 0
        self._writer: SummaryWriter | None = None
        threading.excepthook = _without_tensorboard(threading.excepthook)

    def scalars(self, group: str, metrics: dict[str, float], step: int) -> None:
        def write(writer: SummaryWriter) -> None:
            for name, value in metrics.items():
                writer.add_scalar(f"{group}/{name}", value, step)

        self._try(write, step)

    def sounds(self, samples: Sequence[Sample], rate: int, step: int) -> None:
        """Pictures and audio, and samples/step-N/000.wav, 001.wav, ... at `rate` Hz."""

        def write(writer: SummaryWriter) -> None:
            folder = self.run / "samples" / f"step-{step:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            for number, (name, mel, wav) in enumerate(samples):
                writer.add_image(f"mel/{name}", mel_rgb(mel), step, dataformats="HWC")
                writer.add_audio(f"audio/{name}", wav[None], step, rate)
                write_wav(folder / f"{number:03d}.wav", wav, rate)

        self._try(write, step)

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        self._writer = None

    def _try(self, write: Callable[[SummaryWriter], None], step: int) -> None:
        """Writes to disk. After an error it is tried again: a full disk may have room later."""
        if self.run is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                folder = str(self.run / "tensorboard")
                self._writer = SummaryWriter(folder, purge_step=self._purge_step)
            write(self._writer)
            self._writer.flush()
        except OSError as error:
            self.log.warning(
                "step %d: not written for TensorBoard: %s; training goes on", step, error
            )
            self.close()
            self._purge_step = step + 1


def _without_tensorboard(hook: Callable) -> Callable:
    """An error in TensorBoard's own thread is raised at the next call, so it is not printed."""

    def show(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard"):
            hook(arguments)

    return show
