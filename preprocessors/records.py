"""What a data set consists of: its records, and where their sounds are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from processors.metadata import SPLITS


class Skip(NamedTuple):
    """Something that was left out."""

    reason: str  # the same for all of a kind
    name: str
    hint: str = ""


@dataclass(frozen=True)
class Records:
    """The records of each split, as one source gives them; nothing is added to it later."""

    splits: dict[str, list[dict]]
    origin: dict[str, str]  # split -> the file that its records were read from
    skipped: tuple[Skip, ...] = ()
    files: dict[str, str] = field(default_factory=dict)  # Uid -> path below the sound folder
    # Uid -> file names without suffix that its sound may have, the surest first -> kind of name
    stems: dict[str, dict[str, str]] = field(default_factory=dict)
    # Splits that the user wrote, which are used as they are in place of the source's.
    theirs: dict[str, list[dict]] = field(default_factory=dict)

    def split_of(self) -> dict[str, str]:
        """Uid -> the last of train, valid and test that has it."""
        return {
            record["Uid"]: split
            for splits in (self.splits, self.theirs)
            for split in SPLITS
            for record in splits.get(split, [])
        }


def by_split(records: list[tuple[str, dict]]) -> dict[str, list[dict]]:
    """(split, record) pairs -> the records of each split."""
    return {split: [r for s, r in records if s == split] for split in SPLITS}
