"""CSV files that people made: strict about what cannot be guessed, lenient about the rest."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from preprocessors.folder import SOUND_SUFFIXES, suffix_of
from preprocessors.records import Skip
from processors.metadata import LONGEST_CAPTION
from utils.errors import UserError

Row = tuple[str, dict[str, str]]  # "captions.csv line 7", {column: text}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


def read_table(
    path: Path, needed: tuple[str, ...], enough: tuple[str, ...] = ()
) -> tuple[list[Row], list[Skip]]:
    """The rows of a CSV file, and those that have more or fewer fields than the header.

    A file that has no columns but some of `enough`, the first of them included, is taken, too.

    UTF-8 with or without a byte order mark, any line ends, quoting as RFC 4180, blank lines;
    columns are parted by what `delimiter_of` finds. A caption that goes on in the next line without
    quotes is put together again. Raises UserError where the file as a whole cannot be read or a
    column of `needed` is missing.
    """
    text = _text(path)
    parts = delimiter_of(text)
    spaced = f"{parts} " in text.lstrip().split("\n", 1)[0]  # quotes may then follow a blank
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=parts, strict=True, skipinitialspace=spaced
    )
    try:
        header = [name.strip() for name in _trimmed(next(reader, []), 1)]
        bare = header[:1] == [*enough[:1]] and {*header} <= {*enough}
        _check_header(path, header, needed[:1] if bare else needed)
        lines = [(reader.line_num, _trimmed(fields, len(header))) for fields in reader]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not a proper CSV: {error}") from None
    rows, skipped = [], []
    for number, fields in _mended(lines, header):
        where = f"{path.name} line {number}"
        if len(fields) == len(header):
            rows.append((where, dict(zip(header, fields, strict=True))))
        else:
            reason = f"wrong number of columns (a {DELIMITERS[parts]} outside quotes?)"
            skipped.append(Skip(reason, where))
    if not rows and not skipped:
        raise UserError(f"{path}: has a header but no rows")
    return rows, skipped


def delimiter_of(text: str) -> str:
    """What parts the columns in the first line: commas, or what many countries' Excel writes."""
    return max(DELIMITERS, key=text.lstrip().split("\n", 1)[0].count)


def _trimmed(fields: list[str], length: int) -> list[str]:
    """Without the empty fields at the end, beyond `length`, that spreadsheets add."""
    while len(fields) > length and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _mended(lines: list[tuple[int, list[str]]], header: list[str]) -> list[tuple[int, list[str]]]:
    """The lines that hold something, with a caption that was broken over lines in one row."""
    mended: list[tuple[int, list[str]]] = []
    for number, fields in lines:
        if not any(field.strip() for field in fields):
            continue
        rest = _trimmed(fields, 1)
        if mended and len(rest) < len(header) and not _begins_a_row(header[0], rest, mended[-1][1]):
            first, before = mended[-1]
            joined = [*before[:-1], f"{before[-1]} {rest[0]}", *rest[1:]]
            at_caption = header[len(before) - 1 : len(before)] == ["caption"]
            if at_caption and len(joined) <= len(header):
                mended[-1] = first, joined
                continue
        mended.append((number, fields))
    return mended


def _begins_a_row(column: str, fields: list[str], before: list[str]) -> bool:
    """Whether a first field is what its column holds, an id or a file, and not words."""
    if column == "file":
        new, old = (suffix_of(text.strip()) in SOUND_SUFFIXES for text in (fields[0], before[0]))
        return new or not old
    return fields[0].strip().isdecimal()


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


def one_line(caption: str) -> str:
    """A caption without line breaks and outer blanks."""
    return " ".join(caption.split())


def fault_of_caption(caption: str) -> str | None:
    """Why a caption is of no use; None where it is."""
    if not caption:
        return "empty caption"
    if len(caption) > LONGEST_CAPTION:
        return f"caption of more than {LONGEST_CAPTION} characters"
    return None
