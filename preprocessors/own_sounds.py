"""Own sounds: captions.csv with the columns file,caption and, if wanted, split; or sounds alone.

More columns are kept in the records. A file may have several rows, one for each of its captions.
"""

from __future__ import annotations

import os
from collections import Counter

from preprocessors.folder import SoundFolder, below_wav, without_suffix
from preprocessors.records import Records, Skip, by_split
from preprocessors.table import fault_of_caption, one_line, read_table
from processors.metadata import SPLITS, fault_of_uid
from utils.decode import AudioError
from utils.errors import UserError

CAPTIONS_FILE = "captions.csv"
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "test": "test", "": "train"}


def read_own_sounds(folder: SoundFolder, dataset: str) -> Records:
    """Records and sound files of <folder>/captions.csv."""
    path = folder.path(CAPTIONS_FILE)
    rows, skipped = read_table(path, ("file", "caption"), enough=("file", "split"))
    for name in ("Dataset", "Uid", "Caption"):
        if rows and name in rows[0][1]:
            raise UserError(f"{path}: the column {name} is made here; give yours another name")
    usable = []
    for where, row in rows:
        caption, split = None, row.get("split", "").strip().lower()
        if "caption" in row:
            caption = one_line(row["caption"])
        fault = None if caption is None else fault_of_caption(caption)
        if fault is not None:
            skipped.append(Skip(fault, where))
        elif split not in SPLIT_NAMES:
            skipped.append(Skip("split that is not train, valid, val or test", where))
        else:
            try:
                usable.append((folder.look_up(row["file"]), caption, SPLIT_NAMES[split], row))
            except AudioError as error:
                hinted = error.reason in ("missing", "outside the folder")
                hint = folder.hint(row["file"]) if hinted else ""
                skipped.append(Skip(error.reason, row["file"], hint))
    uids = unique_uids({file for file, *_ in usable})
    records, files = [], {}
    for file, caption, split, row in usable:
        if fault_of_uid(uids[file]):
            skipped.append(_unnameable(file))
            continue
        more = {name: row[name] for name in row if name not in ("file", "caption", "split")}
        records.append((split, {"Dataset": dataset, "Uid": uids[file], "Caption": caption, **more}))
        files[uids[file]] = file
    origin = dict.fromkeys(SPLITS, CAPTIONS_FILE)
    return Records(by_split(records), origin, tuple(skipped), files)


def read_sounds_alone(folder: SoundFolder, dataset: str) -> Records:
    """Records without captions of all sound files of a folder."""
    files = {uid: file for file, uid in unique_uids({*folder.sounds}).items()}
    named = [(uid, file) for uid, file in sorted(files.items()) if not fault_of_uid(uid)]
    skipped = [_unnameable(file) for uid, file in files.items() if fault_of_uid(uid)]
    records = [("train", {"Dataset": dataset, "Uid": uid, "Caption": None}) for uid, _ in named]
    origin = dict.fromkeys(SPLITS, "the sounds, which have no captions")
    return Records(by_split(records), origin, tuple(skipped), dict(named))


def _unnameable(file: str) -> Skip:
    """A file whose path cannot be the Uid of a record."""
    readable = os.fsencode(file).decode("utf-8", "backslashreplace")
    return Skip("name too long" if readable == file else "name is not UTF-8", readable)


def unique_uids(files: set[str]) -> dict[str, str]:
    """Uid of each file: its path below wav/ without suffix, or as much more as tells all apart.

    >>> unique_uids({"wav/dog.wav", "wav/cat.wav", "wav/cat.ogg"})
    {'wav/dog.wav': 'dog', 'wav/cat.wav': 'cat.wav', 'wav/cat.ogg': 'cat.ogg'}
    """
    forms = {file: [without_suffix(below_wav(file)), below_wav(file), file] for file in files}
    while True:
        count = Counter(form[0] for form in forms.values())
        clashing = [file for file in files if count[forms[file][0]] > 1 and len(forms[file]) > 1]
        if not clashing:
            return {file: form[0] for file, form in sorted(forms.items())}
        for file in clashing:
            forms[file].pop(0)
