"""Edits as records to learn from: a sound, an instruction, and the sound that it asks for.

A record of <Dataset>/{train,valid,test}.json that has an "Instruction" is an edit. Besides the keys
of every record it has "Task", one of TASKS, and "Input" and "Output", Uids of two sounds of the
same data set that are equally long. Its "Caption" is that of the output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

from processors.dataset import distinct_clips
from processors.kept_records import captioned
from processors.metadata import fault_of_uid
from utils.errors import UserError

TASKS = ("add", "drop", "replace", "inpaint", "super_resolution", "keep")
TEXT_TO_AUDIO = "text_to_audio"  # the task of a record without an instruction


def edit_examples(records: Sequence[dict]) -> list[dict]:
    """Records as examples for a network that makes a sound of a text and a sound.

    Each has "Dataset"; "Uid", of the sound to make; "Caption", the text that asks for it: of an
    edit its instruction; "Task"; and "Source", the Uid of the sound to edit, or None where there is
    none: a record that is no edit is a captioned sound. Other keys stay. Raises UserError where
    there is one without a text.
    """
    return captioned([_example(record) for record in records])


def examples_in_turns(records: Sequence[dict]) -> list[dict]:
    """The same, where tasks take turns, so that the first ones are of every task."""
    turns = Counter()
    examples = edit_examples(records)
    for example in examples:
        turns[example["Task"]] += 1
        example["Turn"] = turns[example["Task"]]
    return sorted(examples, key=itemgetter("Turn"))


def distinct_sounds(records: Sequence[dict]) -> list[dict]:
    """One record for each sound; in place of an edit's there are its input's and its output's."""
    return distinct_clips(
        [{**record, "Uid": uid} for record in records for uid in sounds_of(record)]
    )


def is_edit(record: dict) -> bool:
    return "Instruction" in record


def sounds_of(record: dict) -> list[str]:
    """Uids of the sounds that a record needs; UserError where an edit is not as it must be."""
    if not is_edit(record):
        return [record["Uid"]]
    if fault := _fault_of_edit(record):
        raise UserError(f"{record['Dataset']}: edit {record['Uid']!r}: {fault}")
    return [record["Input"], record["Output"]]


def _fault_of_edit(record: dict) -> str | None:
    for name in ("Task", "Instruction", "Input", "Output"):
        if not isinstance(record.get(name), str):
            return f"{name} must be text, not {record.get(name)!r}"
    if record["Task"] not in TASKS:
        return f"Task {record['Task']!r} must be one of {', '.join(TASKS)}"
    if not record["Instruction"].strip():
        return "Instruction must not be empty"
    for name in ("Input", "Output"):
        if fault := fault_of_uid(record[name]):
            return f"{name} {record[name]!r} {fault}"
    if record["Input"] == record["Output"] and record["Task"] != "keep":
        return f"Input and Output are one sound, {record['Input']!r}, and Task is not keep"
    return None


def _example(record: dict) -> dict:
    if not is_edit(record):
        return {**record, "Task": TEXT_TO_AUDIO, "Source": None}
    text, target = record["Instruction"], record["Output"]
    return {**record, "Uid": target, "Caption": text, "Source": record["Input"]}
