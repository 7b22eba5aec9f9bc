"""Which records go into train, valid and test, once it is known which clips have a mel."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from processors.clips import Outcome
from processors.metadata import SPLITS


@dataclass(frozen=True)
class Leak:
    """A clip of `split` that stands in another split as well.

    It is removed from `split` unless that is the user's file, or only the sound is the same.
    """

    uid: str
    split: str
    also_in: str
    removed: bool


def compose(
    records: list[tuple[str, dict]],
    ready: dict[str, list[dict]],
    kept: dict[str, Outcome],
    seed: int,
    valid_fraction: float,
) -> tuple[dict[str, list[dict]], list[Leak]]:
    """The records of each split and the leaks between them.

    Splits that the user wrote (`ready`) stay as they are. Of the rest only records whose clip was
    `kept` go in, and where none is for validation, `valid_fraction` of the train clips are.
    A clip that would stand in two splits stays in the user's, else in test rather than in valid
    rather than in train.
    """
    ours: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for split, record in records:
        if record["Uid"] in kept:
            ours[split].append(record)
    if not (ours["valid"] or "valid" in ready or "train" in ready):
        drawn = draw_valid({record["Uid"] for record in ours["train"]}, seed, valid_fraction)
        ours["valid"] = [record for record in ours["train"] if record["Uid"] in drawn]
        ours["train"] = [record for record in ours["train"] if record["Uid"] not in drawn]
    return _without_leaks({**ours, **ready}, ready.keys())


def draw_valid(uids: set[str], seed: int, fraction: float) -> set[str]:
    """A share of the clips, at least one, by hash: a clip stays where it is as others come."""
    if fraction == 0 or len(uids) < 2:
        return set()
    place = {uid: _uniform(f"{seed}/{uid}") for uid in uids}
    return {uid for uid in uids if place[uid] < fraction} or {min(uids, key=place.__getitem__)}


def _uniform(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def _without_leaks(
    splits: dict[str, list[dict]], ready: Collection[str]
) -> tuple[dict[str, list[dict]], list[Leak]]:
    clean, leaks = {}, []
    holder: dict[str, str] = {}  # Uid -> the split that holds it
    for split in sorted(("test", "valid", "train"), key=lambda split: split not in ready):
        uids = dict.fromkeys(record["Uid"] for record in splits[split])
        in_both = [uid for uid in uids if uid in holder]
        leaks += [Leak(uid, split, holder[uid], split not in ready) for uid in in_both]
        clean[split] = [r for r in splits[split] if split in ready or r["Uid"] not in holder]
        holder = {**dict.fromkeys(uids, split), **holder}
    return {split: clean[split] for split in SPLITS}, leaks


def same_sounds(splits: dict[str, list[dict]], kept: dict[str, Outcome]) -> list[Leak]:
    """Clips of another name but equal to the last sample to one of another split."""
    holder: dict[str, tuple[str, str]] = {}  # sound -> Uid and split of the first that has it
    leaks = []
    for split in ("test", "valid", "train"):
        for uid in dict.fromkeys(record["Uid"] for record in splits[split]):
            if uid in kept:
                first, also_in = holder.setdefault(kept[uid].digest, (uid, split))
                if first != uid and also_in != split:
                    leaks.append(Leak(uid, split, also_in, removed=False))
    return leaks
