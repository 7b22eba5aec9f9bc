"""CSV files that people made: strict about what cannot be guessed, lenient about the rest."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from preprocessors.source import Skipped
from processors.metadata import LONGEST_CAPTION
from utils.errors import UserError


def read_table(path: Path, needed: tuple[str, ...], skipped: Skipped) -> list[tuple[str, dict]]:
    """The rows of a CSV file as ("captions.csv line 7", {column: text}).

    UTF-8 with or without a byte order mark, any line ends, quoting as RFC 4180. Rows with more or
    fewer fields than the header go to `skipped`. Raises UserError where the file as a whole cannot
    be read or a column of `needed` is missing.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[tuple[str, dict]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, needed)
        for fields in reader:
            where = f"{path.name} line {reader.line_num}"
            if len(fields) == len(header):
                rows.append((where, dict(zip(header, fields, strict=True))))
            elif fields:
                skipped.add("wrong number of columns (a comma outside quotes?)", where)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not a proper CSV: {error}") from None
    if not rows and not skipped:
        raise UserError(f"{path}: has a header but no rows")
    return rows


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{path}: is empty")
    return text


def _check_header(path: Path, header: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(
            f"{path}: the first line must name the columns {','.join(needed)}, separated by commas;"
            f" {', '.join(missing)} missing in {ascii(','.join(header))[:200]}"
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: column {repeated[0]!a} stands twice in the first line")


def usable_caption(text: str, where: str, skipped: Skipped) -> str | None:
    """The caption on one line without outer blanks; None, and a note, where it is of no use."""
    caption = " ".join(text.split())
    if not caption:
        skipped.add("empty caption", where)
    elif len(caption) > LONGEST_CAPTION:
        skipped.add(f"caption of more than {LONGEST_CAPTION} characters", where)
    else:
        return caption
    return None
