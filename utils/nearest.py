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
    return _nearest(name, {other: other for other in known}, likeness)


def nearest_path(path: Path, known: Iterable[Path]) -> str:
    """The same of paths, told apart by their last parts."""
    return _nearest(path.name, {other.name: other for other in known}, 0.6)


def _nearest(name: str, known: dict[str, str | Path], likeness: float) -> str:
    """What stands under the name that is likest."""
    found = {other.lower(): known[other] for other in sorted(known)}
    like = difflib.get_close_matches(name.lower(), found, 1, likeness)
    return f"; nearest: {found[like[0]]}" if like else ""
