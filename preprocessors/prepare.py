"""A data set from sounds and captions to mels, metadata and a report, value by value:

records -> clips -> outcomes of their mels -> splits -> report
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from config.schema import Config
from preprocessors.audiocaps import CSV_FILES, csv_files, read_audiocaps, stems_of
from preprocessors.folder import SoundFolder
from preprocessors.own_sounds import CAPTIONS_FILE, read_own_sounds, read_sounds_alone
from preprocessors.records import Records, Skip
from preprocessors.report import build_report, table
from preprocessors.splits import compose
from processors.clips import Clip
from processors.mel_folder import MelFolder
from processors.metadata import (
    MADE_OF,
    REPORT_FILE,
    SPLITS,
    dataset_dir,
    made_of,
    meant_by,
    metadata_text,
    read_records,
    read_report,
    split_path,
)
from utils.checkpoint import file_hash
from utils.commands import PAIRS_FILE, command
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
    mels = MelFolder(here / "mel", folder.root, settings.mel, settings.keep_wavs)
    outcomes = mels.make(clips, num_workers, dataset)
    kept = {outcome.uid: outcome for outcome in outcomes if outcome.fault is None}
    pairs = zip(clips, outcomes, strict=True)
    unusable = [Skip(outcome.fault, clip.file) for clip, outcome in pairs if outcome.fault]
    skipped = [*records.skipped, *missing, *unusable]
    splits, leaks = compose(records, kept, config.train.random_seed, settings.valid_fraction)
    report = build_report(dataset, records, clips, skipped, kept, splits, leaks, settings)
    report[MADE_OF] = made_of(here, map(folder.path, sorted({*records.origin.values()})))
    report["sounds_without_caption"] = folder.count_beside(clip.file for clip in clips)
    # The hashes come first: stopped between report and metadata, the next run knows both as ours.
    texts = [metadata_text(splits[split]) for split in SPLITS if split not in records.theirs]
    hashes = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    report["written"] = sorted(hashes | written_before(config, dataset))
    write_text(here / REPORT_FILE, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    if not kept:
        reasons = ", ".join(f"{entry['count']} {name}" for name, entry in report["skipped"].items())
        raise UserError(
            f"data set {dataset!r}: none of its clips can be used ({reasons}); names in"
            f" {here / REPORT_FILE}"
        )
    for split in sorted(splits.keys() - records.theirs.keys()):
        write_text(split_path(config, dataset, split), metadata_text(splits[split]))
    return table(report, here / REPORT_FILE)


def read_dataset(config: Config, dataset: str) -> tuple[SoundFolder, Records]:
    """A data set's sound files, and its records.

    A train.json, valid.json or test.json that is there and that no preprocessing wrote is the
    user's: its records stand for the split, whatever captions.csv or AudioCaps' CSVs say of it.
    """
    here = dataset_dir(config, dataset)
    if (here / PAIRS_FILE).is_file():
        raise UserError(f"{here}: holds triplets, which are made by: {command('Edits')}")
    folder = _open_folder(config, dataset)
    paths = {split: split_path(config, dataset, split) for split in SPLITS}
    theirs = {split: path for split, path in paths.items() if path.exists()}
    if folder.path(CAPTIONS_FILE).exists():
        records = read_own_sounds(folder, dataset)
    elif csv_files(folder):
        records = read_audiocaps(folder, dataset)
    elif any(r["Caption"] for path in theirs.values() for r in read_records(path, dataset)):
        records = Records({split: [] for split in SPLITS}, {})
    elif folder.sounds:
        records = read_sounds_alone(folder, dataset)
    else:
        raise UserError(
            f"data set {dataset!r}: {folder.root} holds no {CAPTIONS_FILE} (file,caption), no"
            " AudioCaps CSVs (train.csv, val.csv, test.csv), no sounds, and there is no train.json"
        )
    if records.origin:  # what was made from the CSVs before is made anew
        ours = written_before(config, dataset)
        theirs = {split: path for split, path in theirs.items() if file_hash(path) not in ours}
    return folder, dataclasses.replace(
        records,
        origin=records.origin | dict.fromkeys(theirs, "written by you"),
        theirs={split: read_records(path, dataset) for split, path in theirs.items()},
    )


def written_before(config: Config, dataset: str) -> set[str]:
    """Hashes of the metadata files that an earlier preprocessing wrote."""
    report = read_report(dataset_dir(config, dataset))
    return set(report.get("written", ()))  # where it does not say otherwise, a file is the user's


def _open_folder(config: Config, dataset: str) -> SoundFolder:
    """The folder with the data set's sounds."""
    prepared = dataset_dir(config, dataset)
    sounds = Path(config.dataset_path.get(dataset, prepared))
    if not sounds.is_dir():
        beside = prepared.parent.iterdir() if prepared.parent.is_dir() else ()
        known = ", ".join(sorted(path.name for path in beside if path.is_dir())) or "none"
        raise UserError(
            f"data set {dataset!r}: there is no folder {sounds}; data sets in {prepared.parent}:"
            f" {known}{meant_by(sounds)}; sounds elsewhere are named by"
            f" dataset_path.{dataset}=FOLDER"
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
    if split in records.theirs and (file := folder.find_uid(uid)) is not None:
        return file
    favoured = tuple(name.removesuffix(".csv") for name in CSV_FILES[split])
    names = (folder.find_stem(s, favoured) for s in records.stems.get(uid) or stems_of(uid))
    return next((name for name in names if name is not None), None)


def some_sounds(config: Config, dataset: str, count: int) -> list[Path]:
    """Paths of up to `count` of a data set's sounds, evenly from all of them."""
    folder, records = read_dataset(config, dataset)
    clips, _ = find_sounds(folder, records)
    count = min(count, len(clips))
    return [folder.path(clips[i * len(clips) // count].file) for i in range(count)]
