"""Edits as records to learn from: a sound, an instruction, and the sound that it asks for.

A record of <Dataset>/{train,valid,test}.json that has an "Instruction" is an edit. Besides the keys
of every record it has "Task", one of TASKS, and "Input" and "Output", Uids of two sounds of the
same data set that are equally long. Its "Caption" is that of the output.
"""

from __future__ import annotations

from config.schema import Config
from processors.metadata import fault_of_uid, load_split
from utils.commands import command
from utils.errors import UserError

TASKS = ("add", "drop", "replace", "inpaint", "super_resolution", "keep")
TEXT_TO_AUDIO = "text_to_audio"  # the task of a record without an instruction


def load_edits(config: Config, split: str) -> list[dict]:
    """The records of `split`, as examples for a network that makes a sound of a text and a sound.

    Each has "Dataset"; "Uid", of the sound to make; "Caption", the text that asks for it: of an
    edit its instruction; "Task"; and "Source", the Uid of the sound to edit, or None where there is
    none: a record that is no edit is a captioned sound. Other keys stay.

    Raises:
        UserError: a record is not as it must be; or "train" has no edit.
    """
    records = [_example(record) for record in load_split(config, split, sounds_of)]
    if split == "train" and all(record["Source"] is None for record in records):
        raise UserError(
            f"{', '.join(config.dataset)}: no edits in train.json; to make some, run:"
            f" {command('Edits')}, and name their data set (dataset=...)"
        )
    return records


def load_sounds(config: Config, split: str) -> list[dict]:
    """As `load_split`; in place of an edit's record there are those of its input and its output."""
    records = load_split(config, split, sounds_of)
    return [{**record, "Uid": uid} for record in records for uid in sounds_of(record)]


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
