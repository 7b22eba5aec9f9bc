"""The log of a run: lines on stderr and in log.txt."""

from __future__ import annotations

import logging
from pathlib import Path

from utils.progress import write_line


def open_log(run: Path | None, level: int = logging.INFO) -> logging.Logger:
    """The logger "arion": lines on stderr, and in <run>/log.txt where a run is given.

    Warnings of libraries go the same way. Where the file is gone or the disk is full, a line is
    lost and the run goes on.
    """
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = [_AboveProgressBar()]
    if run is not None:
        handlers.append(logging.FileHandler(run / "log.txt", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("arion")
    for logger, least in ((log, level), (logging.getLogger(), logging.WARNING)):
        logger.setLevel(least)
        logger.handlers = list(handlers)
    log.propagate = False
    return log


class _AboveProgressBar(logging.Handler):
    """Prints a line without tearing the progress bar below it."""

    def emit(self, record: logging.LogRecord) -> None:
        write_line(self.format(record))
