"""Sounds, progress and trainings as HTML; the words are in cards.html.j2."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import jinja2

from config.schema import MelConfig
from models.tta.evaluation.page import duration
from models.tta.studio.history import Kept
from models.tta.studio.runs import Training
from processors.mel_picture import height_of

FREQUENCIES = (500, 1000, 2000, 4000, 8000, 16000)  # Hz, of an axis
TICKS = 6  # of an axis of time, at most


@functools.cache
def _parts() -> jinja2.environment.TemplateModule:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "name": lambda path: Path(path).name, "run": run}
    return environment.get_template("cards.html.j2").module


def run(folder: str) -> str:
    """The name of the run that a folder of weights belongs to."""
    path = Path(folder)
    path = path.parent if path.name.startswith("step-") else path
    return path.parent.name if path.name in ("final", "checkpoints") else path.name


def render(part: str, **values: object) -> str:
    """The macro `part` of cards.html.j2; text in `values` is never markup.

    Nor is it a template to gradio, which looks for ${...} and {{...}} in a component's HTML.
    """
    html = str(getattr(_parts(), part)(**values))
    return html.strip().replace("{", "&#123;").replace("$", "&#36;")


def sound_card(kept: Kept, note: str = "", progress: str = "") -> str:
    """A sound with its spectrogram, its settings and what can be done with it.

    `progress` is HTML of this module's, of what is being done with it.
    """
    if kept.fault:
        return render("unreadable", kept=kept, note=note)
    receipt, axes = kept.receipt, axes_of(kept.receipt)
    return render("sound", kept=kept, receipt=receipt, axes=axes, note=note, progress=progress)


def source_card(name: str, axes: dict[str, Any], region: tuple[float, float] | None) -> str:
    """What was taken under `name` to be changed; `axes` are those of `Studio.draw`."""
    return render("source", name=name, axes=axes_of(axes), region=region)


def axes_of(receipt: dict[str, Any]) -> dict[str, Any]:
    """Ticks of the picture of a sound: (label, percent from below) and (label, percent from left).

    seconds is the length of the picture, whose last frame may go on after the sound's end.
    """
    mel = MelConfig(**receipt["mel"])
    rate = mel.frames_per_second
    seconds = max(1, math.ceil(receipt["duration"] * rate - 1e-6)) / rate
    heights = [(hz, height_of(hz, mel)) for hz in FREQUENCIES]
    step = tick_step(seconds)
    times = [number * step for number in range(int(seconds / step + 1e-6) + 1)]
    return {
        "seconds": seconds,
        "hz": [
            (f"{hz / 1000:g} kHz" if hz >= 1000 else f"{hz} Hz", 100 * min(place, 1.0))
            for hz, place in heights
            if 0 < place <= 1 + 1 / mel.n_mel
        ],
        "time": [(f"{time:g}", 100 * time / seconds) for time in times],
    }


def tick_step(seconds: float) -> float:
    """1, 2 or 5 times a power of ten: the smallest that gives no more than TICKS steps."""
    power = 10.0 ** math.floor(math.log10(seconds / TICKS))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= seconds / TICKS - 1e-9)


def training_cards(trainings: list[Training], page: bool) -> str:
    """`page`: whether the quickstart's page is there, to be linked."""
    runs = [
        {"run": run, "curve": curve(run.losses), "share": 100 * run.step / max(run.max_steps, 1)}
        for run in trainings
    ]
    log_dirs = sorted({str(run.folder.parent) for run in trainings})
    return render("trainings", runs=runs, log_dirs=log_dirs, page=page)


def curve(losses: list[tuple[int, float]], width: float = 100, height: float = 30) -> str:
    """The points of an SVG polyline, "x,y x,y ...", the largest loss at the top; "" for one."""
    if len(losses) < 2:
        return ""
    steps, values = zip(*losses, strict=True)
    lowest, span = min(values), max(values) - min(values) or 1.0
    return " ".join(
        f"{width * (step - steps[0]) / (steps[-1] - steps[0]):.1f},"
        f"{height * (1 - (value - lowest) / span):.1f}"
        for step, value in losses
    )
