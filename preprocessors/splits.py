"""Which records go into train, valid and test, once it is known which clips have a mel."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass

from preprocessors.records import Records
from processors.clips import Outcome
from processors.metadata import SPLITS

Splits = dict[str, list[dict]]
FAVOUR = ("test", "valid", "train")  # where a clip of two splits stays


@dataclass(frozen=True)
class Leak:
    """A clip of `split` that stands in another split as well, or in `split` under another name.

    It is removed from `split` unless that is the user's file, or only the sound is the same.
    """

    uid: str
    split: str
    also_in: str
    removed: bool


def compose(
    records: Records, kept: dict[str, Outcome], seed: int, valid_fraction: float
) -> tuple[Splits, list[Leak]]:
    """The records of each split and the leaks between them.

    Splits that the user wrote stay as they are. Else only records whose clip was `kept` go in, and
    where none is for validation, `valid_fraction` of the train clips are. A clip of two splits
    stays in test rather than in valid rather than in train.
    """
    splits = {
        split: [record for record in records.splits[split] if record["Uid"] in kept]
        for split in SPLITS
    }
    if not splits["valid"] and "valid" not in records.theirs:
        drawn = draw_valid({record["Uid"] for record in splits["train"]}, seed, valid_fraction)
        splits["valid"] = [record for record in splits["train"] if record["Uid"] in drawn]
        splits["train"] = [record for record in splits["train"] if record["Uid"] not in drawn]
    splits |= records.theirs
    leaks = _leaks(splits, records.theirs.keys())
    gone = {(leak.split, leak.uid) for leak in leaks if leak.removed}
    return {
        split: [record for record in splits[split] if (split, record["Uid"]) not in gone]
        for split in SPLITS
    }, leaks


def draw_valid(uids: set[str], seed: int, fraction: float) -> set[str]:
    """A share of the clips, at least one, by hash: a clip stays where it is as others come."""
    if fraction == 0 or len(uids) < 2:
        return set()
    place = {}  # even in [0, 1)
    for uid in uids:
        digest = hashlib.sha256(f"{seed}/{uid}".encode()).hexdigest()
        place[uid] = int(digest[:12], 16) / 16**12
    return {uid for uid in uids if place[uid] < fraction} or {min(uids, key=place.__getitem__)}


def _leaks(splits: Splits, theirs: Set[str]) -> list[Leak]:
    leaks = []
    holder: dict[str, str] = {}  # Uid -> the split that holds it; what the user wrote comes first
    for split in sorted(FAVOUR, key=lambda split: split not in theirs):  # False comes first
        uids = dict.fromkeys(record["Uid"] for record in splits[split])
        ours = split not in theirs
        leaks += [Leak(uid, split, holder[uid], removed=ours) for uid in uids if uid in holder]
        holder = {**dict.fromkeys(uids, split), **holder}
    return leaks


def same_sounds(splits: Splits, kept: dict[str, Outcome]) -> list[Leak]:
    """Clips of another name but equal to the last sample to one of the same or another split."""
    holder: dict[str, tuple[str, str]] = {}  # sound -> Uid and split of the first that has it
    leaks = []
    for split in FAVOUR:
        for uid in dict.fromkeys(record["Uid"] for record in splits[split]):
            if uid in kept:
                first, also_in = holder.setdefault(kept[uid].digest, (uid, split))
                if first != uid:
                    leaks.append(Leak(uid, split, also_in, removed=False))
    return leaks
