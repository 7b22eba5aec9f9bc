"""A page of some triplets, to look at and listen to before anything is trained on them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from config.schema import EditsExperiment
from models.tta.evaluation.page import render
from processors.mel_picture import write_mel_picture
from processors.metadata import SPLITS, dataset_dir, read_records, split_path

SHOWN = 20
SAID_ALREADY = ("Dataset", "Task", "Instruction", "Caption", "Input", "Output")


def page_of_triplets(config: EditsExperiment) -> Path:
    """Writes <processed_dir>/<Dataset>/index.html, and the pictures in pictures/; its path."""
    dataset = config.dataset[0]
    here = dataset_dir(config, dataset)
    records = [r for s in SPLITS for r in read_records(split_path(config, dataset, s), dataset)]
    chosen = choose([record for record in records if _has_sounds(here, record)])
    triplets = []
    (here / "pictures").mkdir(exist_ok=True)
    for record in chosen:
        sounds = []
        for name, uid in (("before", record["Input"]), ("after", record["Output"])):
            picture = f"pictures/{uid}.png"
            write_mel_picture(here / picture, np.load(here / "mel" / f"{uid}.npy"))
            sounds.append((name, f"wav/{uid}.wav", picture))
        facts = [
            f"{key}: {_text(value)}" for key, value in record.items() if key not in SAID_ALREADY
        ]
        triplets.append({"record": record, "sounds": sounds, "facts": facts})
    page = here / "index.html"
    intro = "Some of the triplets of each task: the instruction, the sound before it and after it."
    render(page, "triplets", title=dataset, intro=intro, triplets=triplets)
    return page


def _has_sounds(here: Path, record: dict) -> bool:
    """Whether a record, which the user may have written, is of a triplet with both its mels."""
    if not record.keys() >= {"Task", "Instruction", "Input", "Output"}:
        return False
    return all((here / "mel" / f"{record[end]}.npy").is_file() for end in ("Input", "Output"))


def choose(records: list[dict]) -> list[dict]:
    """Up to 20 records, the tasks in turns, evenly from all of each."""
    by_task: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        by_task[record["Task"]].append(record)
    chosen = []
    for turn in range(SHOWN):
        for group in by_task.values():
            count = min(len(group), -(-SHOWN // len(by_task)))
            if turn < count and len(chosen) < SHOWN:
                chosen.append(group[turn * len(group) // count])
    return sorted(chosen, key=lambda record: [*by_task].index(record["Task"]))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
