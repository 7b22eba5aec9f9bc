"""AudioCaps: the official CSVs beside a folder of wavs.

AudioCaps (Kim et al., 2019): audiocap_id,youtube_id,start_time,caption; a clip is 10 s of a video.
Validation and test hold five captions a clip, which share one Uid and one mel. Clips that are no
longer on YouTube are missing in every copy: they are counted and left out.
"""

from __future__ import annotations

import re

from preprocessors.folder import SoundFolder
from preprocessors.records import Records, Skip, by_split
from preprocessors.table import fault_of_caption, one_line, read_table
from utils.errors import UserError

CSV_FILES = {"train": ("train.csv",), "valid": ("val.csv", "valid.csv"), "test": ("test.csv",)}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
CLIP_MS = 10_000


def csv_files(folder: SoundFolder) -> dict[str, str]:
    """The CSV of each split that there is one for."""
    found = {}
    for split, names in CSV_FILES.items():
        there = [name for name in names if folder.path(name).is_file()]
        if len(there) > 1:
            raise UserError(f"{folder.root}: both {' and '.join(there)}; keep one of them")
        if there:
            found[split] = there[0]
    return found


def read_audiocaps(folder: SoundFolder, dataset: str) -> Records:
    """Records of the CSVs in `folder`, and how the file of each may be called."""
    origin = csv_files(folder)
    records, skipped, stems = [], [], {}
    for split, name in origin.items():
        rows, left_out = read_table(folder.path(name), COLUMNS)
        skipped += left_out
        for where, row in rows:
            row = {column: one_line(text) for column, text in row.items()}
            fault = _fault_of_row(row)
            if fault is not None:
                skipped.append(Skip(fault, where))
                continue
            start = int(row["start_time"]) * 1000
            uid = f"{row['youtube_id']}_{start}_{start + CLIP_MS}"
            records.append((split, {"Dataset": dataset, "Uid": uid, "Caption": row["caption"]}))
            stems.setdefault(uid, stems_of(uid))[row["audiocap_id"]] = "<audiocap_id>"
    return Records(by_split(records), origin, tuple(skipped), stems=stems)


def _fault_of_row(row: dict[str, str]) -> str | None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", row["youtube_id"]):
        return "youtube_id with other characters than A-Z a-z 0-9 _ -"
    if not re.fullmatch(r"[0-9]{1,7}", row["start_time"]):
        return "start_time that is not a whole number of seconds"
    return fault_of_caption(row["caption"])


def stems_of(uid: str) -> dict[str, str]:
    """File names without suffix that downloaders give a clip, the surest first -> kind of name.

    Empty for a Uid of another form.
    """
    parts = re.fullmatch(r"(.+)_([0-9]+)_([0-9]+)", uid)
    if parts is None:
        return {}
    youtube_id, start = parts[1], int(parts[2]) // 1000
    return {
        uid: "<youtube_id>_<start ms>_<end ms>",
        f"{youtube_id}_{start}": "<youtube_id>_<start s>",
        youtube_id: "<youtube_id>",
        f"Y{youtube_id}": "Y<youtube_id>",
    }
