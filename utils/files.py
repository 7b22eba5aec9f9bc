"""Files written whole or not at all, and folders with one writer at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError

LOCK_FILE = ".lock"


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; one that holds the text already is left alone."""
    content = text.encode("utf-8", "backslashreplace")
    if not (path.is_file() and path.read_bytes() == content):
        write_bytes(path, content)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file whole or not at all. Raises OSError, and leaves nothing behind then."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in `folder` and below."""
    for path in folder.rglob(".????????????????.part"):
        path.unlink()


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds it for this process; another one waits, saying so, for its turn.

    Raises UserError where the folder, or something in it, cannot be written (a full disk).
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{folder}: another process is at work there; waiting for it", file=sys.stderr)
            lock.acquire()
        with contextlib.closing(contextlib.ExitStack()) as stack:
            stack.callback(lock.release)
            yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{error.filename or folder}: cannot be written: {reason}; what was made so far is"
            " kept, and the same command goes on from there"
        ) from error
