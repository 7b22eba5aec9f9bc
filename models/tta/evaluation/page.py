"""Pages of sounds that open from the disk, without a server. How they look is in *.html.j2 here."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class PageClip:
    """One generated sound."""

    name: str  # of its .wav and of its mel's .png, relative to the page's folder, with "/"
    prompt: str
    kind: str  # what was asked for
    heard: str  # what the classifier took it for
    new_wording: bool = False  # whether the prompt is worded as no training caption was

    @property
    def recognised(self) -> bool:
        return self.heard == self.kind


def write_page(folder: Path, clips: Sequence[PageClip], stages: dict[str, float]) -> Path:
    """Writes <folder>/index.html and, beside it, recognised.csv; returns the page's path.

    stages: name -> seconds, in the order they ran.
    """
    kinds: dict[str, list[PageClip]] = {}
    for clip in clips:
        kinds.setdefault(clip.kind, []).append(clip)
    path = folder / "index.html"
    render(path, "sounds", clips=clips, kinds=kinds, stages=stages)
    with path.with_name("recognised.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "prompt", "kind", "heard"])
        table.writerows([f"{c.name}.wav", c.prompt, c.kind, c.heard] for c in clips)
    return path


def render(path: Path, template: str, **values: object) -> None:
    """Writes the page that <template>.html.j2 makes of `values`; text in them is never markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    page = environment.get_template(f"{template}.html.j2").render(values)
    path.write_text(page, encoding="utf-8")


def duration(seconds: float) -> str:
    """80.4 -> "1 min 20 s"; below a minute with a decimal: "4.3 s"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
