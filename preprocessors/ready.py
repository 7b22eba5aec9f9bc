"""train.json, valid.json and test.json that the user wrote: used as they are.

Those that preprocessing wrote itself are told apart by their hashes, which its report notes. An
edit makes such a file the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from config.schema import Config
from preprocessors.audiocaps import stems_of
from preprocessors.folder import SoundFolder
from processors.metadata import SPLITS, dataset_dir, read_records, split_path
from utils.errors import UserError

REPORT_FILE = "preprocess_report.json"


def read_ready(config: Config, dataset: str) -> dict[str, list[dict]]:
    """The records of each split whose file the user wrote."""
    ours = own_hashes_in_use(config, dataset)
    return {
        split: read_records(path, dataset)
        for split, path, content in _existing(config, dataset)
        if content not in ours
    }


def own_hashes_in_use(config: Config, dataset: str) -> set[str]:
    """Hashes of those metadata files that a run, perhaps one that was killed, wrote."""
    report = dataset_dir(config, dataset) / REPORT_FILE
    try:
        written = set(json.loads(report.read_text(encoding="utf-8"))["written"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()  # without a report that says otherwise, a file is the user's
    return written.intersection(content for _, _, content in _existing(config, dataset))


def _existing(config: Config, dataset: str) -> Iterator[tuple[str, Path, str]]:
    """(split, path, hash of the content) of the metadata files that are there."""
    for split in SPLITS:
        path = split_path(config, dataset, split)
        try:
            if os.path.lexists(path):
                yield split, path, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def find_sound(folder: SoundFolder, uid: str, split: str) -> str | None:
    """The sound file of a Uid: <uid>.*, or one named as AudioCaps' downloaders do."""
    names = [folder.find_uid(uid), *(folder.find_stem(stem, split) for stem in stems_of(uid))]
    return next((name for name in names if name is not None), None)
