"""A result as JSON, markdown and a page to listen to; and two results beside each other."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from models.tta.evaluation.page import render
from models.tta.evaluation.protocol import differences, protocol_lines
from models.tta.evaluation.scores import HIGHER_IS_BETTER
from utils.checkpoint import read_json, write_json
from utils.errors import UserError

RESULT, TABLE, PAGE = "evaluation.json", "evaluation.md", "index.html"
SHOWN = 8  # names of a list, and clips of the best and of the worst


def write_report(folder: Path, result: dict) -> Path:
    """Writes the three files; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULT, result)
    (folder / TABLE).write_text(markdown(result), encoding="utf-8")
    write_page(result, folder / PAGE)
    return folder / PAGE


def columns(rows: Mapping[str, Mapping]) -> list[str]:
    """The columns that any row has, in the order in which they first come."""
    return list(dict.fromkeys(name for scores in rows.values() for name in scores))


def cell(score: Mapping | None) -> str:
    if score is None:
        return "–"
    value, error = score["value"], score["error"]
    digits = 3 if abs(value) < 10 else 2
    return f"{value:.{digits}f}" + ("" if error is None else f" ±{error:.{digits}f}")


def table(result: Mapping) -> list[list[str]]:
    """The rows as text; the first has the columns' names, with an arrow to the better side."""
    names = columns(result["rows"])
    arrows = ["↑" if name.rpartition(" ")[0] in HIGHER_IS_BETTER else "↓" for name in names]
    head = ["", *(f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=True))]
    body = [[name, *(cell(row.get(key)) for key in names)] for name, row in result["rows"].items()]
    return [head, *body]


def level_table(result: Mapping) -> list[list[str]]:
    rows = [["level, dB RMS", "clips", "generated", "reference", "difference"]]
    for kind, level in result["levels"].items():
        numbers = (level["generated"], level["reference"], level["difference"])
        shown = ["–" if value is None else f"{value:+.1f}" for value in numbers]
        rows.append([kind, str(level["number"]), *shown])
    return rows


def tables(result: Mapping) -> list[list[list[str]]]:
    """All tables of a result; of edits there is one more."""
    return [table(result), *([result["edits"]] if "edits" in result else []), level_table(result)]


def check_lines(result: Mapping) -> list[str]:
    lines = []
    for name, uids in result["checks"].items():
        more = f" and {len(uids) - SHOWN} more" if len(uids) > SHOWN else ""
        names = f": {', '.join(uids[:SHOWN])}{more}" if uids else ""
        lines.append(f"{name} {len(uids)}{names}")
    return lines


def not_run_lines(result: Mapping) -> list[str]:
    return [
        f"{name} not at hand: {missing['file']} from {missing['where']}; put it into"
        f" {missing['folder']} or name it with --weights {name}=PATH"
        for name, missing in result["not_run"].items()
    ]


def text(result: Mapping) -> str:
    """What the command prints."""
    parts = [
        *protocol_lines(result["protocol"]),
        "",
        *(f"{_aligned(cells)}\n" for cells in tables(result)),
        result["note"],
        "",
        *check_lines(result),
        *not_run_lines(result),
    ]
    return "\n".join(parts)


def markdown(result: Mapping) -> str:
    def rows(cells: list[list[str]]) -> list[str]:
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return [lines[0], f"|{'---|' * len(cells[0])}", *lines[1:]]

    parts = [
        "```",
        *protocol_lines(result["protocol"]),
        "```",
        "",
        *(line for cells in tables(result) for line in (*rows(cells), "")),
        result["note"],
        "",
        *(f"- {line}" for line in [*check_lines(result), *not_run_lines(result)]),
    ]
    return "\n".join(parts) + "\n"


def _aligned(cells: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        numbers = (value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)


def write_page(result: Mapping, path: Path) -> None:
    """The page to listen to the best and the worst; sounds are played from where they lie."""

    def source(file: str) -> str:
        try:
            return quote(Path(os.path.relpath(file, path.parent)).as_posix())
        except ValueError:  # another drive
            return Path(file).as_uri()

    clips = [clip for clip in result["clips"] if clip["score"] is not None]
    sign = 1 if result["ranked_by"] in HIGHER_IS_BETTER else -1
    clips.sort(key=lambda clip: -sign * clip["score"])
    half = min(SHOWN, math.ceil(len(clips) / 2))
    groups = {"Best": clips[:half], "Worst": clips[len(clips) - half :][::-1]} if clips else {}
    render(
        path,
        "evaluation",
        title=f"Evaluation of {result['generated']}",
        intro=result["note"],
        result=result,
        protocol=protocol_lines(result["protocol"]),
        tables=tables(result),
        notes=[*check_lines(result), *not_run_lines(result)],
        groups=groups,
        source=source,
    )


# ---------------------------------------------------------------- two results


def compare(one: Path, two: Path) -> str:
    """The two rows "generated" beside each other, with how far apart they are.

    Raises UserError where they were not computed in the same way, naming the difference.
    """
    results = [_read(path) for path in (one, two)]
    faults = differences(*(result["protocol"] for result in results))
    if faults:
        listed = "\n  ".join(faults)
        raise UserError(f"{one} and {two} cannot be compared, they differ in\n  {listed}")
    rows = [result["rows"]["generated"] for result in results]
    lines = [["", str(one), str(two), "difference", "in errors"]]
    for name in columns(dict(enumerate(rows))):
        a, b = (row.get(name) for row in rows)
        if a is not None and b is not None:
            apart = b["value"] - a["value"]
            error = math.hypot(a["error"] or 0, b["error"] or 0)
            far = f"{apart / error:+.1f}" if error else "–"
            lines.append([name, cell(a), cell(b), f"{apart:+.3f}", far])
    return "\n".join([*protocol_lines(results[0]["protocol"]), "", _aligned(lines)])


def _read(path: Path) -> dict:
    result = read_json(path)
    if not {"protocol", "rows"} <= result.keys() or "generated" not in result["rows"]:
        raise UserError(f"{path}: not a result of the evaluation (its {RESULT})")
    return result
