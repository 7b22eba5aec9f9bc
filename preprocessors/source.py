"""What a data set consists of: its records, their sounds, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from processors.clips import Clip, Outcome


class Skipped:
    """Names of what was left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}  # dict as a set that keeps its order

    def add(self, reason: str, name: str) -> None:
        self._names.setdefault(reason, {})[name] = None

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))

    def by_reason(self) -> Iterator[tuple[str, list[str]]]:
        """(reason, names) pairs, the most frequent reason first."""
        order = sorted(self._names, key=lambda reason: (-len(self._names[reason]), reason))
        return ((reason, list(self._names[reason])) for reason in order)


@dataclass
class Source:
    """Records with their split, and the sound file of each of their Uids."""

    origin: dict[str, str]  # split -> the file that its records were read from
    records: list[tuple[str, dict]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # Uid -> path below the sound folder
    skipped: Skipped = field(default_factory=Skipped)
    naming: dict[str, int] = field(default_factory=dict)  # how sound files are named -> clips
    without_caption: int = 0  # sound files that no record names
    kept: dict[str, Outcome] = field(default_factory=dict)  # Uid -> what is known of its mel

    def note(self, clip: Clip, outcome: Outcome) -> None:
        """Takes in what became of a clip."""
        if outcome.fault is None:
            self.kept[clip.uid] = outcome
        else:
            self.skipped.add(outcome.fault, clip.file)
