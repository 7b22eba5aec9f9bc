"""A data set from sounds and captions to mels, metadata and a report, value by value:

records -> clips -> outcomes of their mels -> splits -> report
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from config.schema import Config
from preprocessors.audiocaps import CSV_FILES, csv_files, read_audiocaps, stems_of
from preprocessors.folder import SoundFolder
from preprocessors.own_sounds import CAPTIONS_FILE, read_own_sounds
from preprocessors.records import Records, Skip
from preprocessors.report import REPORT_FILE, build_report, table
from preprocessors.splits import compose
from processors.clips import Clip, Outcome
from processors.mel_folder import MelFolder
from processors.metadata import SPLITS, dataset_dir, metadata_text, read_records, split_path
from utils.errors import UserError
from utils.files import one_writer, write_text


def prepare(config: Config, num_workers: int) -> Iterator[str]:
    """Prepares each data set of the config; yields its report for the terminal.

    All are read before the first is prepared. Raises UserError where none of the clips of one can
    be used.
    """
    found = [(dataset, *read_dataset(config, dataset)) for dataset in config.dataset]
    for dataset, folder, records in found:
        with one_writer(dataset_dir(config, dataset) / "mel"):
            yield _prepare(config, dataset, folder, records, num_workers)


def _prepare(
    config: Config, dataset: str, folder: SoundFolder, records: Records, num_workers: int
) -> str:
    here, settings = dataset_dir(config, dataset), config.preprocess
    clips, missing = find_sounds(folder, records)
    outcomes = MelFolder(here / "mel", folder.root, settings.mel).make(clips, num_workers, dataset)
    kept = {outcome.uid: outcome for outcome in outcomes if outcome.fault is None}
    skipped = [*records.skipped, *missing, *_unusable(clips, outcomes)]
    splits, leaks = compose(records, kept, config.train.random_seed, settings.valid_fraction)
    report = build_report(dataset, records, clips, skipped, kept, splits, leaks, settings)
    report["sounds_without_caption"] = folder.count_beside(clip.file for clip in clips)
    write_text(here / REPORT_FILE, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    if not kept:
        reasons = ", ".join(f"{entry['count']} {name}" for name, entry in report["skipped"].items())
        raise UserError(
            f"data set {dataset!r}: none of its clips can be used ({reasons}); names in"
            f" {here / REPORT_FILE}"
        )
    replaced = [line for split in SPLITS for line in _write_split(config, dataset, split, splits)]
    return "\n".join([table(report, here / REPORT_FILE), *replaced])


def _write_split(config: Config, dataset: str, split: str, splits: dict) -> list[str]:
    """Writes one metadata file; what it held before, if anything else, is kept beside it.

    A file that the user wrote holds its records already.
    """
    path, text = split_path(config, dataset, split), metadata_text(splits[split])
    if not path.exists():
        write_text(path, text)
        return []
    if path.read_bytes() == text.encode() or read_records(path, dataset) == splits[split]:
        return []
    before = path.with_name(f"{path.name}.old")
    path.replace(before)
    write_text(path, text)
    return [f"  {path.name} is written anew; what it held is in {before.name}"]


def read_dataset(config: Config, dataset: str) -> tuple[SoundFolder, Records]:
    """A data set's sound files, and its records.

    captions.csv or AudioCaps' CSVs are where train.json and the others come from; without them, the
    JSONs are the user's.
    """
    folder = _open_folder(config, dataset)
    if folder.path(CAPTIONS_FILE).exists():
        return folder, read_own_sounds(folder, dataset)
    if csv_files(folder):
        return folder, read_audiocaps(folder, dataset)
    theirs = {split: split_path(config, dataset, split) for split in SPLITS}
    theirs = {split: path for split, path in theirs.items() if path.exists()}
    if not theirs:
        raise UserError(
            f"data set {dataset!r}: {folder.root} holds no {CAPTIONS_FILE} (file,caption), no"
            " AudioCaps CSVs (train.csv, val.csv, test.csv), and there is no train.json"
        )
    splits = {split: read_records(path, dataset) for split, path in theirs.items()}
    origin = dict.fromkeys(theirs, "written by you")
    return folder, Records({s: splits.get(s, []) for s in SPLITS}, origin, theirs=True)


def _open_folder(config: Config, dataset: str) -> SoundFolder:
    """The folder with the data set's sounds."""
    prepared = dataset_dir(config, dataset)
    sounds = Path(config.dataset_path.get(dataset, prepared))
    if not sounds.is_dir():
        beside = prepared.parent.iterdir() if prepared.parent.is_dir() else ()
        known = ", ".join(sorted(path.name for path in beside if path.is_dir())) or "none"
        raise UserError(
            f"data set {dataset!r}: there is no folder {sounds}; data sets in {prepared.parent}:"
            f" {known}; sounds elsewhere are named by dataset_path.{dataset}=FOLDER"
        )
    return SoundFolder(sounds, apart="mel" if sounds.resolve() == prepared.resolve() else None)


def find_sounds(folder: SoundFolder, records: Records) -> tuple[list[Clip], list[Skip]]:
    """The sound file of every Uid, and the Uids without one."""
    clips, missing = [], []
    for uid, split in sorted(records.split_of().items()):
        file = records.files.get(uid) or _find_sound(folder, records, uid, split)
        if file is None:
            missing.append(Skip("missing", uid))
        else:
            clips.append(Clip(uid, file, *folder.size_and_time(file)))
    return clips, missing


def _find_sound(folder: SoundFolder, records: Records, uid: str, split: str) -> str | None:
    """The file of a Uid that the user wrote, or one named as AudioCaps' downloaders do."""
    if records.theirs and (file := folder.find_uid(uid)) is not None:
        return file
    favoured = tuple(name.removesuffix(".csv") for name in CSV_FILES[split])
    names = (folder.find_stem(s, favoured) for s in records.stems.get(uid) or stems_of(uid))
    return next((name for name in names if name is not None), None)


def _unusable(clips: list[Clip], outcomes: list[Outcome]) -> list[Skip]:
    pairs = zip(clips, outcomes, strict=True)
    return [Skip(outcome.fault, clip.file) for clip, outcome in pairs if outcome.fault]


def some_sounds(config: Config, dataset: str, count: int) -> list[Path]:
    """Paths of up to `count` of a data set's sounds, evenly from all of them."""
    folder, records = read_dataset(config, dataset)
    clips, _ = find_sounds(folder, records)
    count = min(count, len(clips))
    return [folder.path(clips[i * len(clips) // count].file) for i in range(count)]
