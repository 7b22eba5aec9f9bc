"""Which edits of the demo data set's mixtures were followed, and in which the rest was kept.

A tagger that learnt from the training set's real mixtures, before and after their edits, says which
kinds are heard in a sound. An edit was

- followed, where each kind that is to come is heard, and none that is to go. In inpainting and
  super-resolution no kind comes or goes: there the error of what was missing is at most HALF of
  what it was before, or no more than UNHEARD;
- kept, where of the kinds that stay all are heard, and no others.

An error is the mean difference of two mels in dB, in which what lies more than HEARD_RANGE below
the peak of the target counts as silence.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.schema import Config, MelConfig
from models.tta.evaluation.edits import EVENTS
from models.tta.evaluation.page import render
from models.tta.evaluation.recognition import HEARD_RANGE, Tagger, train_tagger
from processors.mel import mel_filter_bank, mel_of_wav
from processors.mel_picture import write_mel_picture
from processors.metadata import dataset_dir, read_records, split_path
from utils.audio import read_wav
from utils.progress import progress
from utils.table import text_table

EDITED, INPUT, TARGET = "edited", "input", "target"
HALF = 0.5
UNHEARD = 3.0  # dB
DB = 20 / math.log(10)  # in a neper
SAME = 1e-3  # nepers between mels of the same samples
FILLED = ("inpaint", "super_resolution")  # tasks in which no kind comes or goes
FIGURES = ("followed", "kept", "both", "dB off", "dB off outside")


@dataclass(frozen=True)
class Verdict:
    """On one sound of one edit."""

    heard: frozenset[str]  # kinds
    followed: bool
    kept: bool
    error: float  # dB
    outside: float | None  # dB, in frames where the input is the target; None: there are none

    @property
    def both(self) -> bool:
        return self.followed and self.kept


def kinds_of(record: dict) -> tuple[set[str], set[str]]:
    """The kinds that are heard before and after a triplet's edit."""
    directions = EVENTS.get(record["Task"], {})
    events = {
        record[key]: directions.get(key, 0) for key in ("EventKind", "EventKind2") if key in record
    }
    before = {kind for kind, direction in events.items() if direction <= 0}
    after = {kind for kind, direction in events.items() if direction >= 0}
    return before | {record["BedKind"]}, after | {record["BedKind"]}


def train_judge(config: Config) -> Tagger:
    """A tagger of the kinds in the mixtures of the training set, which are all real sounds.

    A sound with a gap or without its upper band is none of them.
    """
    name = config.dataset[0]
    sounds: dict[str, set[str]] = {}
    for record in read_records(split_path(config, name, "train"), name):
        before, after = kinds_of(record)
        if record["Task"] not in FILLED:
            sounds[record["Input"]] = before
        sounds[record["Output"]] = after
    folder = dataset_dir(config, name) / "mel"
    return train_tagger([np.load(folder / f"{uid}.npy") for uid in sounds], list(sounds.values()))


def verdict_on(
    record: dict, heard: Set[str], mels: Sequence[np.ndarray], mel: MelConfig
) -> Verdict:
    """The verdict on one triplet's edit.

    Args:
        heard: kinds in the edited sound.
        mels: of the edited sound, the input and the target, [n_mel, frames] each.
    """
    floor = mels[2].max() - HEARD_RANGE
    edited, source, target = (np.maximum(each, floor) for each in mels)
    error, before = (DB * np.abs(each - target) for each in (edited, source))
    kinds, wanted = kinds_of(record)
    changing = kinds ^ wanted
    followed = heard & changing == wanted & changing
    if record["Task"] in FILLED:
        missing = missing_in(record, target.shape, mel)
        followed = bool(error[missing].mean() <= max(HALF * before[missing].mean(), UNHEARD))
    outside = error[:, np.abs(mels[1] - mels[2]).max(axis=0) < SAME]
    return Verdict(
        frozenset(heard),
        followed,
        heard - changing == wanted - changing,
        float(error.mean()),
        float(outside.mean()) if outside.size else None,
    )


def missing_in(record: dict, shape: tuple[int, int], mel: MelConfig) -> np.ndarray:
    """bool [n_mel, frames] (`shape`): the gap, or what is above the cutoff, in the input's mel."""
    missing = np.ones(shape, bool)
    if record["Task"] == "inpaint":
        begin, end = (round(x * mel.frames_per_second) for x in record["Region"])
        missing[:, :begin] = missing[:, end:] = False
    else:
        peaks = mel_filter_bank(mel).argmax(axis=1) * mel.sample_rate / mel.n_fft
        missing[peaks <= record["Cutoff"]] = False
    return missing


def figures_of(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The FIGURES of a row; of the first three, how many."""
    outside = [v.outside for v in verdicts if v.outside is not None]
    return {
        **{name: sum(getattr(v, name) for v in verdicts) for name in FIGURES[:3]},
        "dB off": float(np.mean([v.error for v in verdicts])),
        "dB off outside": float(np.mean(outside)) if outside else float("nan"),
    }


def page_of_edits(
    config: Config, folder: Path, rows: Mapping[str, Path], stages: Mapping[str, float]
) -> str:
    """Writes <folder>/index.html about the edits of the test set in <folder>/sounds.

    Args:
        rows: folders of <Uid of a triplet>.wav that are judged beside the edits, by name.
        stages: seconds by name, in the order they ran.

    Returns:
        What came out, for the terminal.
    """
    name, mel = config.dataset[0], config.preprocess.mel
    records = read_records(split_path(config, name, "test"), name)
    folders = {EDITED: folder / "sounds", **rows}
    paths = {row: [where / f"{r['Uid']}.wav" for r in records] for row, where in folders.items()}
    for row, end in ((INPUT, "Input"), (TARGET, "Output")):
        wavs = dataset_dir(config, name) / "wav"
        paths[row] = [wavs / f"{record[end]}.wav" for record in records]
    judge = train_judge(config)
    mels = {
        row: [mel_of_wav(read_wav(path, mel.sample_rate), mel) for path in of_row]
        for row, of_row in progress(paths.items(), title="reading", unit="row")
    }
    verdicts: dict[str, list[Verdict]] = {}
    for row, of_row in progress(mels.items(), title="judging", unit="row"):
        three = zip(of_row, mels[INPUT], mels[TARGET], strict=True)
        each = zip(records, judge.hear_all(of_row), three, strict=True)
        verdicts[row] = [verdict_on(record, heard, three, mel) for record, heard, three in each]
    table = table_of(records, verdicts)
    edits = []
    (folder / "pictures").mkdir(exist_ok=True)
    for number, record in enumerate(progress(records, title="pictures", unit="edit")):
        shown = []
        for row, title in ((INPUT, "before"), (EDITED, "after"), (TARGET, "target")):
            picture = f"pictures/{record['Uid']}_{title}.png"
            write_mel_picture(folder / picture, mels[row][number])
            wav = Path(os.path.relpath(paths[row][number], folder)).as_posix()
            shown.append((title, wav, picture))
        edits.append({"record": record, "sounds": shown, "verdict": verdicts[EDITED][number]})
    render(folder / "index.html", "edits", edits=edits, table=table, stages=stages)
    both = sum(verdict.both for verdict in verdicts[EDITED])
    return (
        f"{text_table(table)}\n{both} of {len(records)} edits followed, and the rest kept\n"
        f"{sum(stages.values()):.0f} s in all; now open {folder / 'index.html'}"
    )


def table_of(records: Sequence[dict], verdicts: Mapping[str, Sequence[Verdict]]) -> list[list[str]]:
    """For each row its figures, and how many of each task were followed and kept, as text."""
    tasks = Counter(record["Task"] for record in records)
    table = [["", *FIGURES, *(f"{task.replace('_', ' ')} ({n})" for task, n in tasks.items())]]
    for row, of_row in verdicts.items():
        figures = figures_of(of_row)
        right = Counter(
            r["Task"] for r, verdict in zip(records, of_row, strict=True) if verdict.both
        )
        texts = [f"{x:.2f}" if isinstance(x, float) else str(x) for x in figures.values()]
        table.append([row, *texts, *(str(right[task]) for task in tasks)])
    return table
