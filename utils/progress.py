"""What a command shows while it works: a bar on a terminal, a line now and then elsewhere.

No output device ends a run: where stderr cannot be written to (the `tee` behind it was stopped, the
terminal was closed), what is said is lost and the work goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

SECONDS = 30  # between two lines where there is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} to go, {rate_fmt}{postfix}"


class _Stderr:
    """sys.stderr as a file that never fails, and that is written in whole lines off a terminal."""

    encoding = "utf-8"

    @property
    def terminal(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def write(self, text: str) -> None:
        if not self.terminal:  # a bar is redrawn and cleared by "\r" and blanks
            text = text.strip("\r\n ")
            text = f"{text}\n" if text else ""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            _to_nowhere(sys.stderr)

    def flush(self) -> None:
        """Each `write` has flushed."""


def _to_nowhere(stream) -> None:
    """From here on, what is written to `stream` is lost, libraries' output included."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


STDERR = _Stderr()


def progress(items: Iterable | None = None, *, title: str, unit: str, **settings) -> tqdm:
    """A progress bar over `items`, or to be updated by hand; `settings` are tqdm's.

    `set_postfix` wants refresh=False, or it makes a line of its own off a terminal.
    """
    if STDERR.terminal:
        look = {"dynamic_ncols": True}
    else:
        look = {"mininterval": SECONDS, "maxinterval": SECONDS, "bar_format": LINE}
    return tqdm(items, desc=title, unit=unit, file=STDERR, **look, **settings)


def print_line(text: str) -> None:
    """Prints a result to stdout, above the progress bar where that is on a terminal."""
    with tqdm.external_write_mode(STDERR) if STDERR.terminal else contextlib.nullcontext():
        print(text, flush=True)


def write_line(text: str) -> None:
    """Writes a line to stderr, above the progress bar where there is one."""
    if STDERR.terminal:
        tqdm.write(text, file=STDERR)
    else:
        STDERR.write(text)
