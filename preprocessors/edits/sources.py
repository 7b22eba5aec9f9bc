"""Prepared sounds as beds and events of mixtures, split so that no recording is on both sides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from config.schema import EditsExperiment
from preprocessors.edits.wording import clause, is_one_event, words_of
from preprocessors.prepare import find_sounds, read_dataset
from preprocessors.records import Skip
from preprocessors.splits import FAVOUR, draw_valid
from processors.mel_folder import read_index
from processors.metadata import SPLITS, dataset_dir, read_records, split_path
from utils.commands import SCRIPTS
from utils.errors import UserError

SEVERAL = re.compile("[,;+]")  # what joins several kinds in a label
HELD_OUT = "another clip of its recording, or the very sound, is held out"


@dataclass(frozen=True)
class Source:
    """A prepared clip that mixtures are made of."""

    dataset: str
    uid: str
    path: str  # of the sound
    made_from: tuple[int, int]  # bytes and time of change (ns) of the file
    digest: str  # equal for equal sounds
    recording: str  # clips of one recording stay on one side of a split
    split: str
    label: str | None  # what is heard in it, where the data set says so
    captions: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What is heard in it, in a few words."""
        return self.label or clause(self.captions[0])

    def sounds_like(self, other: Source) -> bool:
        """Whether one may be heard in the other, by their labels or else by common words."""
        if self.label and other.label:
            return self.label == other.label
        return not self.words.isdisjoint(other.words)

    @cached_property
    def words(self) -> set[str]:
        return words_of(self.label or "", *self.captions)


Pools = dict[str, list[Source]]  # split -> its sounds


def read_sources(config: EditsExperiment) -> tuple[Pools, Pools, list[Skip]]:
    """Beds and events of each split, and the clips that were left out.

    Raises UserError where a data set is not prepared.
    """
    edits = config.edits
    skipped: list[Skip] = []
    found = []
    for dataset in dict.fromkeys([*edits.beds, *edits.events]):
        found += _with_all_splits(config, _read(config, dataset, skipped))
    sources = []
    for source, split in zip(found, split_by_recording(found), strict=True):
        if source.split == split:
            sources.append(source)
        else:
            skipped.append(Skip(HELD_OUT, f"{source.dataset}/{source.uid}"))
    single = [s for s in sources if not (s.label and SEVERAL.search(s.label))]
    several = [s for s in sources if s.label and SEVERAL.search(s.label)]
    skipped += [Skip("a label of several kinds", f"{s.dataset}/{s.uid}") for s in several]
    beds = [source for source in single if source.dataset in edits.beds and source.captions]
    unsaid = [s for s in single if not s.captions and s.dataset in {*edits.beds} - {*edits.events}]
    skipped += [Skip("a bed without a caption", f"{s.dataset}/{s.uid}") for s in unsaid]
    events = []
    for source in single:
        if source.dataset in edits.events:
            event = _as_event(source, edits.event_words)
            if event is not None:
                events.append(event)
            else:
                reason = "not an event: no short caption of one sound (it may be a bed)"
                skipped.append(Skip(reason, f"{source.dataset}/{source.uid}"))
    return _by_split(beds), _by_split(events), skipped


def _by_split(sources: Iterable[Source]) -> Pools:
    pools: Pools = {split: [] for split in SPLITS}
    for source in sources:
        pools[source.split].append(source)
    return pools


def _as_event(source: Source, most_words: int) -> Source | None:
    """The source with those of its captions that stand for one event; None where nothing does."""
    captions = tuple(c for c in source.captions if is_one_event(c, most_words))
    return replace(source, captions=captions) if captions or source.label else None


def _read(config: EditsExperiment, dataset: str, skipped: list[Skip]) -> list[Source]:
    """A data set's clips, as its preprocessing left them, in the order of their Uids."""
    folder, found = read_dataset(config, dataset)
    here = dataset_dir(config, dataset)
    index = read_index(here / "mel")
    splits = {split: split_path(config, dataset, split) for split in SPLITS}
    records = {s: read_records(path, dataset) for s, path in splits.items() if path.exists()}
    if not index or not records:
        words = ["sh", SCRIPTS["mels"], f"dataset={dataset}"]
        words.append(f"preprocess.processed_dir={config.preprocess.processed_dir}")
        if dataset in config.dataset_path:
            words.append(f"dataset_path.{dataset}={config.dataset_path[dataset]}")
        raise UserError(f"data set {dataset!r}: not prepared in {here}; run: {shlex.join(words)}")
    clips, missing = find_sounds(folder, found)
    skipped += [Skip(skip.reason, f"{dataset}/{skip.name}") for skip in missing]
    clips_by_uid = {
        clip.uid: clip for clip in clips if not index.get(clip.uid, {"fault": 1})["fault"]
    }
    captions: dict[str, list[str]] = {}
    first: dict[str, tuple[str, dict]] = {}
    for split in FAVOUR:
        for record in records.get(split, []):
            if record["Uid"] in clips_by_uid:
                first.setdefault(record["Uid"], (split, record))
                said = [record["Caption"]] if record["Caption"] is not None else []
                captions.setdefault(record["Uid"], []).extend(said)
    return [
        Source(
            dataset,
            uid,
            str(folder.path(clips_by_uid[uid].file)),
            (clips_by_uid[uid].size, clips_by_uid[uid].mtime_ns),
            index[uid]["digest"],
            recording_of(record, config.edits.source),
            split,
            _label(record, config.edits.label),
            tuple(dict.fromkeys(captions[uid])),
        )
        for uid, (split, record) in sorted(first.items())
    ]


def _label(record: dict, key: str | None) -> str | None:
    """A record's label in words: "crying_baby" is crying baby."""
    label = str(record.get(key) or "") if key else ""
    return " ".join(label.replace("_", " ").split()) or None


def recording_of(record: dict, pattern: str) -> str:
    """The name of the recording that a clip was cut from.

    The record's "source"; or what the first group that takes part in a match of `pattern` finds in
    the Uid, over all data sets alike; or else the clip itself.
    """
    if record.get("source"):
        return str(record["source"])
    match = re.search(pattern, record["Uid"])
    found = next((group for group in match.groups() if group), None) if match else None
    return found or f"{record['Dataset']}/{record['Uid']}"


def _with_all_splits(config: EditsExperiment, sources: list[Source]) -> list[Source]:
    """The sources of one data set, with a test and a validation split.

    Where there is no test, the validation split is the test; where there is none either, and for
    validation, preprocess.valid_fraction of the recordings that are for training are drawn, of each
    label by itself.
    """
    seed, fraction = config.train.random_seed, config.preprocess.valid_fraction
    splits = {source.split for source in sources}
    if "test" not in splits and "valid" in splits:
        sources = [replace(s, split="test") if s.split == "valid" else s for s in sources]
    for number, split in enumerate(("test", "valid")):
        if split not in {source.split for source in sources}:
            by_label: dict[str | None, set[str]] = {}
            for source in sources:
                if source.split == "train":
                    by_label.setdefault(source.label, set()).add(source.recording)
            drawn = set().union(
                *(draw_valid(r, seed + number, fraction) for r in by_label.values())
            )
            sources = [
                replace(s, split=split) if s.split == "train" and s.recording in drawn else s
                for s in sources
            ]
    return sources


def split_by_recording(sources: list[Source]) -> list[str]:
    """The split that the recording of each source belongs to.

    Clips of one recording belong together, and so do recordings that share a sound. Together they
    belong to test rather than to valid rather than to train, where any of them is.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for source in sources:
        parent[root(f"recording {source.recording}")] = root(f"sound {source.digest}")
    groups = [root(f"sound {source.digest}") for source in sources]
    held: dict[str, str] = {}
    for group, source in zip(groups, sources, strict=True):
        held[group] = min(source.split, held.get(group, "train"), key=FAVOUR.index)
    return [held[group] for group in groups]
