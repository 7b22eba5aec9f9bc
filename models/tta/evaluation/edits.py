"""Edited sounds beside their targets: was the instruction followed, and was the rest kept?

What is to change and what is to stay is learnt from the real sounds before and after each edit: the
class of an event's kind is the one of a tagger's classes whose probability changes most, in the
direction of the edit, on average over all triplets of that kind. The class of a bed is the one that
is heard most both before and after.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from config.schema import Config
from models.tta.evaluation.clips import Clip, Noise
from models.tta.evaluation.evaluate import Evaluation
from models.tta.evaluation.features import Features
from models.tta.evaluation.protocol import PROTOCOLS
from models.tta.evaluation.scores import Row, row_scores
from models.tta.evaluation.spectra import frames_outside, log_spectral_distance
from processors.metadata import SPLITS, dataset_dir, meant_by, read_records, split_path
from utils.commands import command
from utils.errors import UserError
from utils.progress import progress

IDENTITY = "identity"
# Direction of each of a record's events, by task: 1 comes, -1 goes.
EVENTS = {
    "add": {"EventKind": 1},
    "drop": {"EventKind": -1},
    "replace": {"EventKind": -1, "EventKind2": 1},
}
LEAST = 0.1  # probability by which a class must change, or be heard, for a triplet to be judged
HALF = 0.5  # of the real change makes an edit followed, of the bed's probability makes it kept
COLUMNS = ("clips", "FD", "KL", "LSD", "LSD outside", "judged", "followed", "kept", "both")
NOTE = (
    "LSD: log-spectral distance to the target; outside: to the source, in frames where source and"
    " target are the same. judged: triplets whose change and whose rest the tagger hears in the"
    " real sounds; of these, followed: at least half of the real change of the event's class; kept:"
    " the class of the rest at half its probability or more; both: followed and kept."
)


@dataclass(frozen=True)
class Triplet:
    """An instruction, the sound before and the sound after."""

    uid: str
    task: str
    caption: str  # of the sound after
    source: Path
    target: Path
    events: Mapping[str, int]  # kind of event -> 1 where it comes, -1 where it goes
    bed: str


def read_triplets(name: str, config: Config, split: str | None) -> tuple[list[Triplet], str]:
    """The triplets of a data set, and their split: test where there is one, else valid.

    Raises:
        UserError: there is no such data set or split, or its records are no triplets.
    """
    paths = {each: split_path(config, name, each) for each in SPLITS}
    there = [each for each in ("test", "valid", "train") if paths[each].is_file()]
    if not there or split not in (None, *there):
        found = ", ".join(there) or f"none{meant_by(dataset_dir(config, name))}"
        raise UserError(
            f"--triplets {name}: splits in {dataset_dir(config, name)}: {found}; to make triplets,"
            f" run: {command('Edits')}"
        )
    split = split or there[0]
    wavs = dataset_dir(config, name) / "wav"
    return [_triplet(r, paths[split], wavs) for r in read_records(paths[split], name)], split


def _triplet(record: dict, path: Path, wavs: Path) -> Triplet:
    missing = [key for key in ("Task", "Input", "Output") if not isinstance(record.get(key), str)]
    if missing:
        raise UserError(f"{path}: record {record['Uid']!r} has no {', '.join(missing)}: no triplet")
    own = f"of {record['Uid']}"  # without a kind, an event is the only one of its kind
    events = {
        f"{record.get(key) or f'{key} {own}'}": direction
        for key, direction in EVENTS.get(record["Task"], {}).items()
    }
    source, target = (wavs / f"{record[key]}.wav" for key in ("Input", "Output"))
    bed = str(record.get("BedKind") or own)
    return Triplet(record["Uid"], record["Task"], record["Caption"], source, target, events, bed)


def clips_of(triplets: Sequence[Triplet], folder: Path) -> list[Clip]:
    """What a folder has of <Uid>.wav; UserError where that is nothing."""
    paths = [folder / f"{one.uid}.wav" for one in triplets]
    found = [
        Clip(one.uid, path) for one, path in zip(triplets, paths, strict=True) if path.is_file()
    ]
    if not found:
        raise UserError(f"{folder}: no sound is named after a triplet, such as {paths[0].name}")
    return found


def targets_of(triplets: Sequence[Triplet]) -> list[Clip]:
    return [Clip(one.uid, one.target, (one.caption,)) for one in triplets]


def sources_of(triplets: Sequence[Triplet]) -> list[Clip]:
    return [Clip(one.uid, one.source) for one in triplets]


def edit_table(evaluation: Evaluation, triplets: Sequence[Triplet], rate: int) -> list[list[str]]:
    """For each task and row of an evaluation: its figures, as text; the first row has names.

    Args:
        evaluation: one that has run, of the edits against the targets, with a control IDENTITY.
        rate: Hz, at which the LSD is measured.
    """
    judge = Judge(evaluation, triplets)
    names = [name for name in evaluation.heard if name not in ("reference", "silence")]
    tasks = list(dict.fromkeys(one.task for one in triplets))
    table = [["edits", *COLUMNS]]
    distances = {name: dict(_distances(evaluation, triplets, name, rate)) for name in names}
    for task in tasks:
        uids = {one.uid for one in triplets if one.task == task}
        for name in names:
            figures = judge.figures(name, uids)
            lsd = [value for uid, value in distances[name].items() if uid in uids]
            figures |= {
                "LSD": _mean(each for each, _ in lsd),
                "LSD outside": _mean(each for _, each in lsd),
            }
            cells = ["–" if (x := figures.get(c)) is None else _shown(c, x) for c in COLUMNS]
            table.append([f"{task}, {name}", *cells])
    return table


def _shown(column: str, value: float) -> str:
    if column in ("clips", "judged"):
        return str(int(value))
    return f"{100 * value:.0f}%" if column in ("followed", "kept", "both") else f"{value:.3f}"


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _distances(
    evaluation: Evaluation, triplets: Sequence[Triplet], name: str, rate: int
) -> Iterator[tuple[str, tuple[float, float | None]]]:
    """Uid, LSD to the target, and to the source outside the edit; None where nothing is outside."""
    by_uid = {one.uid: one for one in triplets}
    real = ({c.uid for c in evaluation.heard[each].clips} for each in ("reference", IDENTITY))
    readable = set.intersection(*real)
    clips = [clip for clip in evaluation.heard[name].clips if clip.uid in readable]
    for clip in progress(clips, title=f"LSD, {name}", unit="clip"):
        one = by_uid[clip.uid]
        wavs = [_wav(x, rate) for x in (clip, Clip("", one.source), Clip("", one.target))]
        edited, source, target = (wav[: min(map(len, wavs))] for wav in wavs)
        outside = frames_outside(source, target, rate)
        to_source = log_spectral_distance(edited, source, rate)[outside]
        lsd = float(log_spectral_distance(edited, target, rate).mean())
        yield clip.uid, (lsd, float(to_source.mean()) if outside.any() else None)


def _wav(clip: Clip | Noise, rate: int) -> Tensor:
    return torch.from_numpy(PROTOCOLS["arion"].prepare(*clip.read(), rate))


class Judge:
    """The first tagger of an evaluation, which says what was followed and what was kept."""

    def __init__(self, evaluation: Evaluation, triplets: Sequence[Triplet]) -> None:
        self.evaluation = evaluation
        taggers = [n for n, of in evaluation.features.items() if of["reference"].logits is not None]
        self.name = taggers[0] if taggers else None
        if self.name is None:
            return
        after, before = (self._heard(each) for each in ("reference", IDENTITY))
        self.triplets = {t.uid: t for t in triplets if t.uid in after and t.uid in before}
        self.after, self.before = after, before
        self.classes, self.beds = self._classes()

    def _features(self, name: str) -> Features:
        return self.evaluation.features[self.name][name]

    def _heard(self, name: str) -> dict[str, Tensor]:
        """Uid -> probability of each class [C]."""
        clips = self.evaluation.heard[name].clips
        probabilities = self._features(name).logits.double().sigmoid()
        return {clip.uid: row for clip, row in zip(clips, probabilities, strict=True)}

    def _classes(self) -> tuple[dict[str, int], dict[str, int]]:
        """The tagger's class of each kind of event, and of each kind of bed."""
        changes, stays = defaultdict(list), defaultdict(list)
        for uid, one in self.triplets.items():
            for kind, direction in one.events.items():
                changes[kind].append(direction * (self.after[uid] - self.before[uid]))
        classes = {kind: _loudest(rows) for kind, rows in changes.items()}
        for uid, one in self.triplets.items():
            both = torch.minimum(self.before[uid], self.after[uid])
            for kind in one.events:  # of which something may be left
                both[classes[kind]] = 0
            stays[one.bed].append(both)
        return classes, {kind: _loudest(rows) for kind, rows in stays.items()}

    def verdict(self, uid: str, edited: Tensor) -> tuple[bool, bool] | None:
        """(followed, kept) of an edit that is heard with these probabilities [C].

        None where the tagger does not hear the change, or the rest, in the real sounds.
        """
        one, before, after = self.triplets[uid], self.before[uid], self.after[uid]
        bed = self.beds[one.bed]
        rest = min(before[bed], after[bed])
        followed = []
        for kind, direction in one.events.items():
            of_kind = self.classes[kind]
            real = direction * (after - before)[of_kind]
            if real < LEAST:
                return None
            followed.append(direction * (edited - before)[of_kind] >= HALF * real)
        if not followed or rest < LEAST:
            return None
        return bool(all(followed)), bool(edited[bed] >= HALF * rest)

    def figures(self, name: str, uids: set[str]) -> dict[str, float | None]:
        """The figures of COLUMNS, LSD excepted, of one row over these triplets."""
        clips = self.evaluation.heard[name].clips
        places = [place for place, clip in enumerate(clips) if clip.uid in uids]
        found: dict[str, float | None] = {"clips": len(places)}
        if self.name is None or not places:
            return found
        targets = {c.uid: p for p, c in enumerate(self.evaluation.heard["reference"].clips)}
        of_task = [place for uid, place in targets.items() if uid in uids]
        order = {place: index for index, place in enumerate(of_task)}
        pairs = [
            (index, order[targets[clips[place].uid]])
            for index, place in enumerate(places)
            if clips[place].uid in targets
        ]
        row = Row(self._features(name).take(places), pairs)
        known, protocol = self._features("reference").take(of_task), self.evaluation.protocol
        scores = row_scores(self.name, row, known, protocol, 0)
        found |= {metric: scores[metric].value for metric in ("FD", "KL") if metric in scores}
        heard = self._heard(name)
        verdicts = [
            self.verdict(clips[p].uid, heard[clips[p].uid])
            for p in places
            if clips[p].uid in self.triplets
        ]
        judged = [verdict for verdict in verdicts if verdict is not None]
        found["judged"] = len(judged)
        if judged:
            followed, kept = (torch.tensor(each).double() for each in zip(*judged, strict=True))
            found |= {"followed": float(followed.mean()), "kept": float(kept.mean())}
            found["both"] = float((followed * kept).mean())
        return found


def _loudest(rows: Sequence[Tensor]) -> int:
    """The class that has the most, on average over rows [C]."""
    return int(torch.stack(list(rows)).mean(0).argmax())
