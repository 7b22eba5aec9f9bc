"""Files written whole or not at all, and folders with one writer at a time."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from utils.errors import UserError

LOCK_FILE = ".lock"
GOES_ON = "what was made so far is kept, and the same command goes on from there"


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; one that holds the text already is left alone."""
    content = text.encode("utf-8", "backslashreplace")
    if not (path.is_file() and path.read_bytes() == content):
        write_bytes(path, content)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file whole or not at all. Raises OSError of `path`, and leaves nothing behind."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in `folder` and below."""
    for path in folder.rglob(".????????????????.part"):
        path.unlink()


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file whole or not at all. Raises OSError."""
    content = io.BytesIO()  # into a file, numpy reports a full disk without its reason
    np.save(content, array)
    write_bytes(path, content.getbuffer())


def hold(folder: Path, who: str = "process", patience: float = -1) -> FileLock:
    """Makes `folder` this process's own, until it ends or drops what this returns.

    Where another one holds it, this says so and waits `patience` seconds (-1: as long as it takes);
    then it is a UserError.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.stat(lock.lock_file).st_mtime))
        busy = f"{folder}: another {who} is at work there since {since}"
        how_long = f"{patience:g} s " if patience >= 0 else ""
        print(f"{busy}; waiting {how_long}for it to stop", file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise UserError(f"{busy}; stop it, or choose another --exp_name") from None
    os.utime(lock.lock_file)  # since when, for the next one that waits
    return lock


@contextlib.contextmanager
def one_writer(folder: Path, advice: str = GOES_ON) -> Iterator[None]:
    """Makes `folder` and holds it within the `with` block.

    Raises UserError with the `advice` where something in it cannot be written (a full disk).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder)
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        place, reason = error.filename or folder, error.strerror or error
        raise UserError(f"{place}: cannot be written: {reason}; {advice}") from error
