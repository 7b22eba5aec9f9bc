"""train.json, valid.json and test.json: lists of {"Dataset", "Uid", "Caption", ...} records."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path, PurePosixPath

from config.schema import Config
from utils.errors import UserError

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
LONGEST_CAPTION = 10_000  # characters; a longer one is a file that went wrong
PREPARE = "sh egs/tta/preprocess/run_preprocess.sh"


def read_metadata(path: str | Path) -> list[dict]:
    """The records of one metadata file, checked; more keys than the three are kept as they are.

    Raises UserError naming the file, the record (counted from 1) and the rule that it breaks.
    """
    path = Path(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; to make it, run: {PREPARE}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON in UTF-8: {error}") from None
    if not isinstance(records, list):
        raise UserError(f"{path}: must hold a list of records, not {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        fault = _fault_of_record(record)
        if fault:
            raise UserError(f"{path}: record {number}: {fault}")
    return records


def read_records(path: str | Path, dataset: str) -> list[dict]:
    """As `read_metadata`, and every record must be of `dataset`."""
    records = read_metadata(path)
    for number, record in enumerate(records, start=1):
        if record["Dataset"] != dataset:
            raise UserError(
                f"{path}: record {number}: Dataset {_shown(record['Dataset'])} must be {dataset!r},"
                " the data set whose folder the file is in"
            )
    return records


def _fault_of_record(record: object) -> str | None:
    if not isinstance(record, dict):
        return f"must be an object {{...}}, not {_shown(record)}"
    for name in ("Dataset", "Uid", "Caption"):
        if name not in record:
            return f"{name} is missing"
        if not isinstance(record[name], str):
            return f"{name} must be text, not {_shown(record[name])}"
        if not is_utf8(record[name]):
            return f"{name} {_shown(record[name])} holds half of a character (a lone surrogate)"
    fault = fault_of_uid(record["Uid"])
    if fault:
        return f"Uid {_shown(record['Uid'])} {fault}"
    if not record["Caption"].strip():
        return "Caption must not be empty"
    if len(record["Caption"]) > LONGEST_CAPTION:
        return f"Caption has {len(record['Caption'])} characters, more than {LONGEST_CAPTION}"
    return None


def fault_of_uid(uid: str) -> str | None:
    """Why `uid` cannot name a file below a data set's folder; None where it can.

    A Uid is a relative path without its suffix ("dogs/bark 1"), any characters but NUL.
    """
    parts = uid.split("/")
    if "\0" in uid:
        return "must not hold a NUL character"
    if not uid or uid.startswith("/"):
        return "must be a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return 'must not hold "..", "." or empty parts'
    if any(len(part.encode("utf-8", "replace")) > 250 for part in parts):
        return "must not have a part of more than 250 bytes"
    if len(uid.encode("utf-8", "replace")) > 1000:
        return "must not have more than 1000 bytes"
    return None


def is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def metadata_text(records: list[dict]) -> str:
    """The records as JSON text, one record a line."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return f"[\n{lines}\n]\n" if records else "[]\n"


def dataset_dir(config: Config, dataset: str) -> Path:
    return Path(config.preprocess.processed_dir) / dataset


def split_path(config: Config, dataset: str, split: str) -> Path:
    """Path of a data set's train.json, valid.json or test.json (`split` of SPLITS)."""
    return dataset_dir(config, dataset) / f"{split}.json"


def mel_path(config: Config, record: dict) -> Path:
    """Path of a record's mel, float32 [n_mel, frames of the whole clip]."""
    return dataset_dir(config, record["Dataset"]) / "mel" / f"{record['Uid']}.npy"


def load_split(config: Config, split: str) -> list[dict]:
    """The records of `split` over all data sets of the config, those whose mel was made.

    A record without a mel (its clip is missing, or could not be used) is left out; how many is
    logged. Raises UserError where a file is missing or where no record of "train" is left.
    """
    kept, left_out = [], 0
    for dataset in config.dataset:
        records = read_records(split_path(config, dataset, split), dataset)
        mels = _uids_with_mel(dataset_dir(config, dataset) / "mel")
        kept += [record for record in records if record["Uid"] in mels]
        left_out += sum(record["Uid"] not in mels for record in records)
    if left_out:
        log.warning("%s: %d records left out, their clips have no mel", split, left_out)
    if split == "train" and not kept:
        raise UserError(
            f"no clip of {', '.join(config.dataset)} has a mel in"
            f" {config.preprocess.processed_dir}; to make them, run: {PREPARE}"
        )
    return kept


def _uids_with_mel(mel_dir: Path) -> set[str]:
    """All Uids below a folder of mels; listing it is far quicker than asking for each file."""
    uids = set()
    for folder, _, names in os.walk(mel_dir):
        relative = PurePosixPath(Path(folder).relative_to(mel_dir).as_posix())
        uids.update(str(relative / name[:-4]) for name in names if name.endswith(".npy"))
    return uids
