"""Lists of edits: a CSV, or the triplets of a data set."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from preprocessors.table import delimiter_of
from processors.edits import is_edit, sounds_of
from processors.metadata import fault_of_uid
from utils.checkpoint import read_json
from utils.errors import UserError

NEEDED = ("audio", "text")
NUMBERS = ("begin", "end", "cutoff")
COLUMNS = (*NEEDED, "name", "task", *NUMBERS)


@dataclass(frozen=True)
class Job:
    """One edit that is asked for."""

    audio: str
    text: str
    task: str | None = None
    region: tuple[tuple[float, float], ...] | None = None  # seconds
    cutoff: float | None = None  # Hz
    name: str | None = None  # of the output; None: a number


def read_jobs(path: Path) -> list[Job]:
    """The edits of a list.

    A .json is a data set's train.json, valid.json or test.json: its triplets' inputs are edited as
    they say, and outputs get the triplets' names. Any other file is a CSV with the columns
    audio,text and, if wanted, name,task,begin,end,cutoff; a relative path of a sound starts at the
    CSV's folder.

    Raises:
        UserError: the file cannot be read, or a line of it is not as it must be.
    """
    jobs = _triplets(path) if path.suffix == ".json" else _table(path)
    if not jobs:
        raise UserError(f"{path}: no edits in it")
    return jobs


def _triplets(path: Path) -> list[Job]:
    jobs = []
    for record in read_json(path, list):
        if isinstance(record, dict) and is_edit(record):
            before, _ = sounds_of(record)
            audio, region = path.parent / "wav" / f"{before}.wav", record.get("Region")
            jobs.append(
                Job(
                    str(audio),
                    record["Instruction"],
                    record["Task"],
                    (tuple(region),) if region and record["Task"] == "inpaint" else None,
                    record.get("Cutoff"),
                    record["Uid"],
                )
            )
    return jobs


def _table(path: Path) -> list[Job]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        lines = io.StringIO(text, newline="")
        reader = csv.DictReader(lines, restval="", delimiter=delimiter_of(text))
        rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from None
    if set(NEEDED) - {*columns} or {*columns} - {*COLUMNS}:
        raise UserError(
            f"{path}: the first line must name the columns audio,text and, if wanted,"
            f" {','.join(COLUMNS[2:])}; it is {','.join(map(str, columns))!r}"
        )
    return [_job(row, path, number) for number, row in enumerate(rows, start=2)]


def _job(row: dict, path: Path, line: int) -> Job:
    where = f"{path}: line {line}"
    if None in row:
        raise UserError(f"{where}: has more fields than the first line (a comma outside quotes?)")
    row = {name: text.strip() for name, text in row.items()}
    numbers = {}
    for name in NUMBERS:
        try:
            numbers[name] = float(row[name]) if row.get(name) else None
        except ValueError:
            raise UserError(f"{where}: {name} {row[name]!r} must be a number") from None
    begin, end = numbers["begin"], numbers["end"]
    if (begin is None) != (end is None):
        raise UserError(f"{where}: begin and end, in seconds, go together")
    if not row["audio"] or not row["text"]:
        raise UserError(f"{where}: audio and text must not be empty")
    if row.get("name") and (fault := fault_of_uid(row["name"])):
        raise UserError(f"{where}: name {row['name']!r} {fault}")
    return Job(
        str(path.parent / row["audio"]),
        row["text"],
        row.get("task") or None,
        None if begin is None else ((begin, end),),
        numbers["cutoff"],
        row.get("name") or None,
    )
