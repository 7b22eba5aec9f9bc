"""AudioCaps: the official CSVs beside a folder of wavs.

AudioCaps (Kim et al., 2019): audiocap_id,youtube_id,start_time,caption; a clip is 10 s of a video.
Validation and test hold five captions a clip, which share one Uid and one mel. Clips that are no
longer on YouTube are missing in every copy: they are counted and left out.
"""

from __future__ import annotations

import re
from collections import Counter

from preprocessors.folder import SoundFolder
from preprocessors.source import Source
from preprocessors.table import read_table, usable_caption
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


def read_audiocaps(folder: SoundFolder, dataset: str) -> Source:
    """Records and sound files of the CSVs in `folder`."""
    tables = csv_files(folder)
    source = Source(origin=tables)
    stems: dict[str, dict[str, str]] = {}  # Uid -> names that its file may go by, see `stems_of`
    for split, name in tables.items():
        for where, row in read_table(folder.path(name), COLUMNS, source.skipped):
            record = _record(row, where, dataset, source)
            if record is not None:
                source.records.append((split, record))
                known = stems.setdefault(record["Uid"], stems_of(record["Uid"]))
                known[row["audiocap_id"]] = "<audiocap_id>"
    find_files(folder, stems, source)
    return source


def _record(row: dict, where: str, dataset: str, source: Source) -> dict | None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", row["youtube_id"]):
        source.skipped.add("youtube_id with other characters than A-Z a-z 0-9 _ -", where)
        return None
    if not re.fullmatch(r"[0-9]{1,7}", row["start_time"]):
        source.skipped.add("start_time that is not a whole number of seconds", where)
        return None
    caption = usable_caption(row["caption"], where, source.skipped)
    if caption is None:
        return None
    start = int(row["start_time"]) * 1000
    uid = f"{row['youtube_id']}_{start}_{start + CLIP_MS}"
    return {"Dataset": dataset, "Uid": uid, "Caption": caption}


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


def find_files(folder: SoundFolder, stems: dict[str, dict[str, str]], source: Source) -> None:
    """Notes in `source` the file of each Uid: the first of its names that there is a file for."""
    naming: Counter[str] = Counter()
    splits = {record["Uid"]: split for split, record in source.records}
    for uid, kinds in stems.items():
        csv_stem = CSV_FILES[splits[uid]][0].removesuffix(".csv")
        for stem, kind in kinds.items():
            file = folder.find_stem(stem, csv_stem)
            if file is not None:
                source.files[uid] = file
                naming[kind] += 1
                break
    source.naming = dict(naming.most_common())
