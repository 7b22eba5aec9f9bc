"""Own sounds: captions.csv with the columns file,caption and, if wanted, split.

More columns are kept in the records. A file may have several rows, one for each of its captions.
"""

from __future__ import annotations

from collections import Counter

from preprocessors.folder import SoundFolder, below_wav, without_suffix
from preprocessors.source import Source
from preprocessors.table import read_table, usable_caption
from processors.metadata import SPLITS, fault_of_uid
from utils.audio import AudioError
from utils.errors import UserError

CAPTIONS_FILE = "captions.csv"
SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "test": "test", "": "train"}
RECORD_KEYS = ("Dataset", "Uid", "Caption")


def read_own_sounds(folder: SoundFolder, dataset: str) -> Source:
    """Records and sound files of <folder>/captions.csv."""
    source = Source(origin=dict.fromkeys(SPLITS, CAPTIONS_FILE))
    path = folder.path(CAPTIONS_FILE)
    rows = read_table(path, ("file", "caption"), source.skipped)
    for name in RECORD_KEYS:
        if rows and name in rows[0][1]:
            raise UserError(f"{path}: the column {name} is made here; give yours another name")
    usable = []
    for where, row in rows:
        file = _file_of_row(folder, row["file"], source)
        caption = usable_caption(row["caption"], where, source.skipped)
        split = row.get("split", "").strip().lower()
        if split not in SPLIT_NAMES:
            source.skipped.add("split that is not train, valid, val or test", where)
        elif file is not None and caption is not None:
            usable.append((file, caption, SPLIT_NAMES[split], row))
    uids = unique_uids({file for file, *_ in usable})
    for file, caption, split, row in usable:
        if fault_of_uid(uids[file]):
            source.skipped.add("name too long", file)
            continue
        more = {name: row[name] for name in row if name not in ("file", "caption", "split")}
        record = {"Dataset": dataset, "Uid": uids[file], "Caption": caption, **more}
        source.records.append((split, record))
        source.files[uids[file]] = file
    return source


def _file_of_row(folder: SoundFolder, name: str, source: Source) -> str | None:
    try:
        return folder.look_up(name)
    except AudioError as error:
        source.skipped.add(error.reason, name)
        return None


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
