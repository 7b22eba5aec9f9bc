"""A page of generated sounds that opens from the disk, without a server, and a table beside it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class PageClip:
    """One generated sound. Paths are relative to the page's folder, with forward slashes."""

    file: str  # wav
    picture: str  # mel, png
    prompt: str
    kind: str  # what was asked for
    heard: str  # what the classifier took it for
    new_wording: bool = False  # whether the prompt is worded as no training caption was

    @property
    def recognised(self) -> bool:
        return self.heard == self.kind


def write_page(
    folder: Path,
    title: str,
    intro: str,
    clips: Sequence[PageClip],
    stages: Sequence[tuple[str, float]],
) -> Path:
    """Writes <folder>/index.html and, beside it, recognised.csv; gives the page's path.

    stages: (name, seconds) in the order they ran.
    """
    body = [
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(intro)}</p>\n{_score(clips)}\n</header>",
        "<main>",
        '<div class="tables">',
        _stage_table(stages),
        _kind_table(clips),
        "</div>",
        *_galleries(clips),
        "</main>",
    ]
    page = PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))
    path = Path(folder) / "index.html"
    path.write_text(page, encoding="utf-8")
    _write_recognised(Path(folder) / "recognised.csv", clips)
    return path


def _write_recognised(path: Path, clips: Sequence[PageClip]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "prompt", "kind", "heard"])
        table.writerows([clip.file, clip.prompt, clip.kind, clip.heard] for clip in clips)


def _count(clips: Sequence[PageClip]) -> str:
    return f"{sum(clip.recognised for clip in clips)} of {len(clips)}"


def _score(clips: Sequence[PageClip]) -> str:
    new = [clip for clip in clips if clip.new_wording]
    text = (
        f'<p class="score"><strong>{_count(clips)}</strong> sounds recognised as what was asked for'
    )
    if new:
        text += f"; {_count(new)} where the prompt is worded as no training caption was"
    return f"{text}.</p>"


def _stage_table(stages: Sequence[tuple[str, float]]) -> str:
    rows = [f"<tr><th scope=row>{escape(name)}</th><td>{_time(s)}</td></tr>" for name, s in stages]
    total = _time(sum(seconds for _, seconds in stages))
    return "\n".join(
        [
            "<table>",
            "<caption>Time per stage</caption>",
            "<thead><tr><th scope=col>Stage</th><th scope=col>Time</th></tr></thead>",
            f"<tbody>{''.join(rows)}</tbody>",
            f"<tfoot><tr><th scope=row>Total</th><td>{total}</td></tr></tfoot>",
            "</table>",
        ]
    )


def _time(seconds: float) -> str:
    """Minutes and seconds from a minute on, else seconds with a decimal."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"


def _by_kind(clips: Sequence[PageClip]) -> list[tuple[str, list[PageClip]]]:
    """Kinds in the order of their first clip."""
    order = list(dict.fromkeys(clip.kind for clip in clips))
    ordered = sorted(clips, key=lambda clip: order.index(clip.kind))
    return [(kind, list(group)) for kind, group in groupby(ordered, key=lambda clip: clip.kind)]


def _kind_table(clips: Sequence[PageClip]) -> str:
    rows = []
    for number, (kind, group) in enumerate(_by_kind(clips)):
        mistaken = sorted({clip.heard for clip in group if not clip.recognised})
        rows.append(
            f'<tr><th scope=row><a href="#kind-{number}">{escape(kind)}</a></th>'
            f"<td>{_count(group)}</td><td>{escape(', '.join(mistaken)) or '–'}</td></tr>"
        )
    head = "".join(f"<th scope=col>{name}</th>" for name in ("Kind", "Recognised", "Mistaken for"))
    return "\n".join(
        [
            "<table>",
            "<caption>Recognised, by kind</caption>",
            f"<thead><tr>{head}</tr></thead>",
            f"<tbody>{''.join(rows)}</tbody>",
            "</table>",
        ]
    )


def _galleries(clips: Sequence[PageClip]) -> list[str]:
    return [
        f'<section id="kind-{number}" aria-labelledby="name-{number}">\n'
        f'<h2 id="name-{number}">{escape(kind.capitalize())} <small>{_count(group)}</small></h2>\n'
        f'<div class="clips">\n{chr(10).join(map(_card, group))}\n</div>\n</section>'
        for number, (kind, group) in enumerate(_by_kind(clips))
    ]


def _card(clip: PageClip) -> str:
    prompt = escape(clip.prompt)
    verdict, sign = ("right", "✓") if clip.recognised else ("wrong", "✗")
    tag = "<span>new wording</span>" if clip.new_wording else ""
    return (
        f"<figure>\n"
        f'<img src="{quote(clip.picture)}" alt="Mel spectrogram of: {prompt}" loading="lazy">\n'
        f'<audio controls preload="none" src="{quote(clip.file)}" aria-label="{prompt}"></audio>\n'
        f"<figcaption>{prompt}{tag}"
        f'<span class="{verdict}">{sign} heard as {escape(clip.heard)}</span></figcaption>\n'
        f"</figure>"
    )


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

STYLE = """
:root { --text: #1d1b22; --soft: #5d5866; --page: #fbfafc; --card: #fff; --line: #dcd8e2;
  --right: #1a6b3c; --wrong: #b3261e; --accent: #7b1fa2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ece9f1; --soft: #b0aab9; --page: #141218; --card: #1e1b24; --line: #3a3543;
    --right: #7ddba3; --wrong: #ffb4ab; --accent: #d7a6f0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--text);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 2rem; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
small { color: var(--soft); font-weight: normal; font-size: .9rem; }
header p { max-width: 46rem; }
.score strong { color: var(--accent); font-size: 1.6rem; }
.tables { display: flex; flex-wrap: wrap; gap: 2rem 3rem; align-items: start; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .3rem 1.25rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
tbody th { font-weight: normal; }
tfoot th, tfoot td { font-weight: 600; }
thead th { color: var(--soft); font-weight: normal; font-size: .9rem; }
a { color: var(--accent); }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  overflow: hidden; display: flex; flex-direction: column; }
img { display: block; width: 100%; height: 7rem; object-fit: fill; background: #000004; }
audio { display: block; width: 100%; height: 2.5rem; }
figcaption { padding: .5rem .75rem .75rem; }
figcaption span { display: block; font-size: .875rem; color: var(--soft); }
figcaption .right { color: var(--right); }
figcaption .wrong { color: var(--wrong); font-weight: 600; }
"""
