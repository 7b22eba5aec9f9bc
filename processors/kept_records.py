"""The records of a split that have their mels, read once: what a training starts with.

train.json and valid.json stay the contract. What is kept of them, in the folder of caches, is made
anew when one of these files or of the folders of mels is another, by its size, time of change or
inode: then they are read as `load_split` reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from config.schema import Config
from processors.cache import content_key, main_first
from processors.json_lines import Arrays, JsonLines, keep, mapped
from processors.metadata import (
    check_kept,
    dataset_dir,
    own_sound,
    split_path,
    tell_of_changes,
    usable_records,
)
from utils.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

SETTLED = 2.0  # seconds after which another change gives another time, on any file system
Form = Callable[[list[dict]], Sequence[dict]]


def captioned(records: Sequence[dict]) -> Sequence[dict]:
    """The records as they are.

    Raises UserError where there are clips without a caption, of which a T5 learns nothing.
    """
    bare = [record["Uid"] for record in records if record["Caption"] is None]
    if bare:
        raise UserError(
            f"{len(bare)} of {len(records)} records have no caption, such as {bare[0]!r}: caption"
            " them (captions.csv: file,caption), or learn from the sounds alone"
            " (egs/tta/audioldm/exp_config_clap.json, model.conditioner=clap)"
        )
    return records


def cache_dir(config: Config) -> Path:
    """Folder of all caches of the config."""
    return Path(config.preprocess.cache_dir or Path(config.preprocess.processed_dir) / "cache")


def kept_records(
    config: Config,
    split: str,
    accelerator: Accelerator,
    form: Form,
    sounds_of: Callable[[dict], list[str]] = own_sound,
) -> JsonLines:
    """What `form`, a function of a module, makes of the records that `load_split` gives.

    Raises what both raise. A machine's first process looks first, and the others map what it made.
    """
    with main_first(accelerator):
        arrays, file = _find_or_make(config, split, form, sounds_of)
    if split == "train":
        for dataset in config.dataset:
            tell_of_changes(dataset_dir(config, dataset))
    check_kept(config, split, len(arrays["starts"]) - 1, int(arrays["left_out"]))
    return JsonLines(arrays, file)


def _find_or_make(
    config: Config, split: str, form: Form, sounds_of: Callable[[dict], list[str]]
) -> tuple[Arrays, Path | None]:
    """The arrays of the records; the file that they are mapped from, None where not kept."""
    files = [str(split_path(config, dataset, split).absolute()) for dataset in config.dataset]
    key = content_key(files, form.__module__, form.__qualname__)

    def make() -> Arrays:
        records, left_out = usable_records(config, split, sounds_of)
        return {**JsonLines.arrays_of(form(records)), "left_out": np.array(left_out)}

    file = cache_dir(config) / f"records-{key}.index"
    return kept_while(file, lambda: [*files, *_mel_folders(config)], make)


def kept_while(
    file: Path, places: Callable[[], Sequence[str]], make: Callable[[], Arrays]
) -> tuple[Arrays, Path | None]:
    """As `kept`, and made anew as well where a file or a folder of the `places` is another by now.

    `places` is only asked when the arrays are made.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):  # also where a place is gone
        arrays = mapped(file)
        if _state(json.loads(arrays["places"].tobytes()))[0] == arrays["state"].tobytes():
            return arrays, file
    began, them = time.time(), places()
    try:
        state, latest = _state(them)
    except OSError:
        return make(), None  # of what is not there could no change be told
    arrays = make()
    arrays["places"] = np.frombuffer(json.dumps(them).encode(), np.uint8)
    arrays["state"] = np.frombuffer(state, np.uint8)
    # What changes next could have the same time.
    return keep(file if latest < (began - SETTLED) * 1e9 else None, arrays)


def _state(places: Iterable[str]) -> tuple[bytes, int]:
    """A hash of bytes, times of change and inodes of files and folders; the latest time [ns].

    Raises OSError where one is gone.
    """
    state, latest = hashlib.sha256(), 0
    for place in places:
        status = os.stat(place)
        state.update(b"%d %d %d " % (status.st_size, status.st_mtime_ns, status.st_ino))
        latest = max(latest, status.st_mtime_ns)
    return state.digest(), latest


def _mel_folders(config: Config) -> list[str]:
    """Those of all data sets; a mel that comes, goes or is replaced changes its folder's time."""
    roots = [str(dataset_dir(config, dataset).absolute() / "mel") for dataset in config.dataset]
    return [*roots, *(folder for root in roots for folder, *_ in os.walk(root))]
