"""Tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(
    rows: Sequence[Sequence[object]], left: Sequence[int] = (0,), indent: int = 0
) -> str:
    """Rows of equal length as lines of aligned columns, two spaces apart.

    Args:
        left: the columns that are aligned at their left; the others hold numbers.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(" " * indent + line.rstrip() for line in lines)


def markdown_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table as Markdown has it; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
