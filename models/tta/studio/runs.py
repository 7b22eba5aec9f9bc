"""The trainings in a folder of runs: how far they are, their losses, their latest sounds."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.checkpoint import Checkpoints, read_json
from utils.errors import UserError
from utils.run_folder import finished_at

LOSS = re.compile(r"step (\d+): valid (?:.*\b)?loss ([\d.e+-]+)")
LOG_TAIL = 1 << 20  # bytes of log.txt that are read
SHOWN = 4  # sounds of a run


@dataclass(frozen=True)
class Training:
    """A run."""

    folder: Path
    model_type: str
    step: int
    max_steps: int
    finished: bool
    losses: list[tuple[int, float]]  # step, loss on the validation clips; in their order
    sounds: list[Path]  # of the newest step that has some
    written: str  # when something was last written to the log


def trainings(log_dirs: Sequence[str]) -> list[Training]:
    """The runs in these folders, that in whose log something was written last first."""
    runs = [run for log_dir in log_dirs for run in Path(log_dir).expanduser().glob("*/")]
    found = [training for run in runs if (training := _read(run))]
    return sorted(found, key=lambda training: training.written, reverse=True)


def _read(run: Path) -> Training | None:
    """None where there is no training's config, or one that cannot be read now."""
    try:
        config = read_json(run / "config.json")
        finished = finished_at(run)
        log = run / "log.txt"
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            lines = file.read().decode("utf-8", "replace")
        losses = {int(step): float(loss) for step, loss in LOSS.findall(lines)}
        saved = Checkpoints(run / "checkpoints", keep=1).all()
        steps = [0, *losses, *(int(path.name.removeprefix("step-")) for path in saved[-1:])]
        kind, last = str(config["model_type"]), int(config["train"]["max_steps"])
        folders = sorted((run / "samples").glob("step-*/"))
        sounds = sorted(folders[-1].glob("*.wav"))[:SHOWN] if folders else []
        written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(log.stat().st_mtime))
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None
    step = max([*steps, finished or 0])
    return Training(
        run, kind, step, last, finished == step, sorted(losses.items()), sounds, written
    )
