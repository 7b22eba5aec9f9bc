"""The name that a mistyped one was likely meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """ "; nearest: NAME", to end an error with, or "" where none is like it; case aside.

    Args:
        likeness: of difflib's, from 0 to 1, that is enough.
    """
    names = {other.lower(): other for other in sorted(known)}
    found = difflib.get_close_matches(name.lower(), names, 1, likeness)
    return f"; nearest: {names[found[0]]}" if found else ""


def nearest_path(path: Path, known: Iterable[Path]) -> str:
    """The same of paths, told apart by their last parts."""
    names = {other.name: other for other in known}
    found = nearest(path.name, names).removeprefix("; nearest: ")
    return f"; nearest: {names[found]}" if found else ""
