"""Small prepared data sets to make triplets of, and the config that makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from config.load import load_config
from config.schema import EditsExperiment
from preprocessors.prepare import prepare
from tests.sounds import ROOT, captions_csv
from utils.audio import write_wav

RATE, SAMPLES = 8000, 128 * 64
MEL = {
    **{"sample_rate": RATE, "n_fft": 256, "win_size": 256, "hop_size": 64},
    **{"n_mel": 16, "fmax": 4000, "segment_frames": 128},
}
BEDS = ("hum", "hiss", "buzz")
EVENTS = ("beep", "knock", "bell")
COUNTS = {
    "train": {"add": 24, "drop": 20, "replace": 12, "inpaint": 8, "super_resolution": 8, "keep": 8},
    "valid": {"add": 3, "drop": 2, "replace": 2, "inpaint": 0, "super_resolution": 0, "keep": 0},
    "test": {"add": 6, "drop": 6, "replace": 6, "inpaint": 4, "super_resolution": 4, "keep": 4},
}


def bed(kind: str, number: int) -> np.ndarray:
    """1.3 s without a pause and with a full spectrum; each number another sound."""
    random = np.random.default_rng([BEDS.index(kind), number])
    time = np.arange(round(1.3 * RATE)) / RATE
    tone = np.sin(2 * np.pi * (70 + 60 * BEDS.index(kind)) * time)
    return 0.5 * tone + random.uniform(-0.3, 0.3, len(time))


def event(kind: str, number: int) -> np.ndarray:
    """A tone of 0.2 to 0.6 s between two silences."""
    time = np.arange(round((0.2 + 0.1 * (number % 5)) * RATE)) / RATE
    tone = 0.9 * np.sin(2 * np.pi * (600 + 400 * EVENTS.index(kind) + 7 * number) * time)
    return np.concatenate([np.zeros(1500), tone, np.zeros(2500)])


def write_sources(root: Path) -> None:
    """<root>/Beds and <root>/Events: kinds, recordings of two takes, a split for validation only.

    The last recording of each kind is for validation; one take of its recording, and in Beds its
    very sound under another name, are for training, where they must not be used.
    """
    for name, kinds, sound in (("Beds", BEDS, bed), ("Events", EVENTS, event)):
        rows = []
        for kind in kinds:
            for number in range(7):
                for take in "AB":
                    file = f"{kinds.index(kind)}-{100 + number}{kinds.index(kind)}-{take}.wav"
                    split = "valid" if number >= 5 and take == "A" else "train"
                    wav = sound(kind, 2 * number + (take == "B"))
                    rows.append(_row(root / name, file, wav, f"A {kind} sounds", split, kind))
            if name == "Beds":
                file = f"again {kind}.wav"
                rows.append(_row(root / name, file, sound(kind, 12), "The same", "train", kind))
        captions_csv(root / name, "file,caption,split,kind\n" + "".join(rows))


def _row(folder: Path, file: str, wav: np.ndarray, caption: str, split: str, kind: str) -> str:
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    write_wav(folder / "wav" / file, wav, RATE)
    return f"{file},{caption},{split},{kind}\n"


def settings(root: Path) -> list[str]:
    mel = [f"preprocess.{name}={value}" for name, value in MEL.items()]
    return [f"preprocess.processed_dir={root}", *mel]


def prepare_sources(root: Path, *datasets: str) -> None:
    config = "egs/tta/autoencoderkl/exp_config.json"
    names = ",".join(datasets)
    list(prepare(load_config(ROOT / config, [f"dataset={names}", *settings(root)]), 1))


def edits_config(
    root: Path, *overrides: str, counts: dict[str, dict[str, int]] = COUNTS
) -> EditsExperiment:
    """Triplets "Made" of Beds and Events; of a task that `counts` does not name there are none."""
    none = dict.fromkeys(COUNTS["train"], 0)
    given = {
        "dataset": "Made",
        "preprocess.valid_fraction": "0.2",
        "edits.beds": "Beds",
        "edits.events": "Events",
        "edits.label": "kind",
        "edits.cutoffs": "[2000]",
        "edits.event_seconds": "0.4",
        "edits.mixed_share": "0.5",
        "edits.background_share": "0.25",
        **{f"edits.{split}": str(none | counts.get(split, {})) for split in COUNTS},
    }
    given |= dict(text.split("=", 1) for text in overrides)
    texts = [f"{name}={value}" for name, value in given.items()]
    return load_config(ROOT / "config/edits.json", [*settings(root), *texts])
