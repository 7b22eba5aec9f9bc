"""train.json, valid.json and test.json: lists of {"Dataset", "Uid", "Caption", ...} records.

A Caption is null where a sound has none, which models that learn from sounds alone do not need.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from config.schema import Config
from utils.checkpoint import file_hash, read_json
from utils.commands import command, remake
from utils.errors import UserError
from utils.nearest import nearest

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
REPORT_FILE = "preprocess_report.json"  # what preprocessing kept, and of which files it made this
MADE_OF = "made_of"  # in the report: hashes of the tables of captions, by path from its folder on
IN_A_DATASET = ("captions.csv", "train.csv", "train.json", "mel")  # and in no folder of several
LONGEST_CAPTION = 10_000  # characters; a longer one is a file that went wrong


def read_records(path: Path, dataset: str) -> list[dict]:
    """The records of one metadata file; more keys than the three are kept as they are.

    Raises UserError naming the file, the record (counted from 1) and the rule that it breaks; one
    rule is that all are of `dataset`.
    """
    records = read_json(path, list, f"; to make it, run: {remake(path)}")
    for number, record in enumerate(records, start=1):
        fault = _fault_of_record(record, dataset)
        if fault:
            raise UserError(f"{path}: record {number}: {fault}")
    return records


def _fault_of_record(record: object, dataset: str) -> str | None:
    if not isinstance(record, dict):
        return f"must be an object {{...}}, not {_shown(record)}"
    for name in ("Dataset", "Uid", "Caption"):
        if name not in record:
            return f"{name} is missing"
        if name == "Caption" and record[name] is None:
            continue
        if not isinstance(record[name], str):
            return f"{name} must be text, not {_shown(record[name])}"
        if record[name].encode("utf-8", "replace").decode() != record[name]:
            return f"{name} {_shown(record[name])} holds half of a character (a lone surrogate)"
    if record["Dataset"] != dataset:
        return (
            f"Dataset {_shown(record['Dataset'])} must be {dataset!r}, the data set whose folder"
            " the file is in"
        )
    if fault := fault_of_uid(record["Uid"]):
        return f"Uid {_shown(record['Uid'])} {fault}"
    if record["Caption"] is not None and not record["Caption"].strip():
        return "Caption must not be empty; null where there is none"
    if len(record["Caption"] or "") > LONGEST_CAPTION:
        return f"Caption has {len(record['Caption'])} characters, more than {LONGEST_CAPTION}"
    return None


def fault_of_uid(uid: str) -> str | None:
    """Why `uid` cannot name a file below a data set's folder; None where it can.

    A Uid is a relative path without its suffix ("dogs/bark 1"), any characters but NUL.
    """
    parts = uid.split("/")
    if "\0" in uid:
        return "must not hold a NUL character"
    if uid.encode("utf-8", "replace").decode() != uid:
        return "must be whole characters of UTF-8"
    if not uid or uid.startswith("/"):
        return "must be a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return 'must not hold "..", "." or empty parts'
    if any(len(part.encode("utf-8", "replace")) > 250 for part in parts):
        return "must not have a part of more than 250 bytes"
    if len(uid.encode("utf-8", "replace")) > 1000:
        return "must not have more than 1000 bytes"
    return None


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def metadata_text(records: list[dict]) -> str:
    """The records as JSON text, one record a line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return f"[\n{lines}\n]\n" if records else "[]\n"


def dataset_dir(config: Config, dataset: str) -> Path:
    return Path(config.preprocess.processed_dir) / dataset


def meant_by(folder: Path) -> str:
    """Of a data set's folder that is not there: what was likely meant, as the end of an error."""
    place = folder.parent
    if any((place / name).exists() for name in IN_A_DATASET):
        place = place.resolve()
        settings = f"dataset={place.name}", f"preprocess.processed_dir={place.parent}"
        return f"; {place} is a data set itself: give {shlex.join(settings)}"
    return nearest(folder.name, (beside.name for beside in place.glob("*/")))


def split_path(config: Config, dataset: str, split: str) -> Path:
    """Path of a data set's train.json, valid.json or test.json (`split` of SPLITS)."""
    return dataset_dir(config, dataset) / f"{split}.json"


def mel_path(config: Config, record: dict) -> Path:
    """Path of a record's mel, float32 [n_mel, frames of the whole clip]."""
    folder = config.preprocess.processed_dir
    return Path(folder, record["Dataset"], "mel", f"{record['Uid']}.npy")  # quicker than with "/"


def own_sound(record: dict) -> list[str]:
    """The Uid whose mel a record of a sound needs."""
    return [record["Uid"]]


def load_split(
    config: Config, split: str, sounds_of: Callable[[dict], list[str]] = own_sound
) -> list[dict]:
    """The records of `split` over all data sets of the config, those whose mel was made.

    A record without a mel (its clip is missing, or could not be used) is left out; how many is
    logged. `sounds_of` names the Uids that a record needs mels of. Raises UserError where a file is
    missing or where no record of "train" is left.
    """
    if split == "train":
        for dataset in config.dataset:
            tell_of_changes(dataset_dir(config, dataset))
    kept, left_out = usable_records(config, split, sounds_of)
    check_kept(config, split, len(kept), left_out)
    return kept


def usable_records(
    config: Config, split: str, sounds_of: Callable[[dict], list[str]]
) -> tuple[list[dict], int]:
    """The records of all data sets whose mels are there, and the number of the others."""
    kept, left_out = [], 0
    for dataset in config.dataset:
        records = read_records(split_path(config, dataset, split), dataset)
        mels = _uids_with_mel(dataset_dir(config, dataset) / "mel")
        usable = [record for record in records if mels.issuperset(sounds_of(record))]
        left_out += len(records) - len(usable)
        kept += usable
    return kept, left_out


def check_kept(config: Config, split: str, kept: int, left_out: int) -> None:
    """Logs how many records have no mel. Raises UserError where none of "train" has one."""
    if left_out:
        log.warning("%s: %d records left out, their clips have no mel", split, left_out)
    if split == "train" and not kept:
        raise UserError(
            f"no clip of {', '.join(config.dataset)} has a mel in"
            f" {config.preprocess.processed_dir}; to make them, run:"
            f" {remake(dataset_dir(config, config.dataset[0]))}"
        )


def read_report(folder: Path) -> dict:
    """What preprocessing reported of a data set; empty where there is none that can be read."""
    try:
        return read_json(folder / REPORT_FILE)
    except UserError:
        return {}


def made_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Those of the files that are there, by their paths from the folder on, with their hashes."""
    return {os.path.relpath(file, folder): file_hash(file) for file in files if file.is_file()}


def tell_of_changes(folder: Path) -> None:
    """Warns of files that are others now than when the data set in `folder` was made of them."""
    before = read_report(folder).get(MADE_OF, {})
    now = made_of(folder, (folder / name for name in before))
    for name in now:
        if now[name] != before[name]:
            log.warning(
                "%s has changed since %s was made of it; to take it as it is now, run: %s",
                os.path.normpath(folder / name),
                folder.name,
                command("Edits" if name.endswith(".json") else "mels"),
            )


def _uids_with_mel(mel_dir: Path) -> set[str]:
    """All Uids below a folder of mels; listing it is far quicker than asking for each file."""
    uids = set()
    for folder, _, names in os.walk(mel_dir):
        relative = PurePosixPath(Path(folder).relative_to(mel_dir).as_posix())
        uids.update(str(relative / name[:-4]) for name in names if name.endswith(".npy"))
    return uids
