"""How well sounds come back: wav -> mel -> vocoder, with Griffin-Lim beside it, to hear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from config.schema import MelConfig
from models.tta.evaluation.page import render
from models.vocoders.load import GRIFFIN_LIM, Vocoder, load_vocoder
from processors.mel import MelExtractor, shortest_wav
from utils.audio import read_wav, write_wav
from utils.errors import UserError
from utils.table import text_table

MOST_SECONDS = 10  # of a clip
AUDIBLE = 80 / (20 / math.log(10))  # 80 dB in the natural logarithm
MEANING = (
    "Log-mel error: mean difference of the natural-log mels, where the original is within 80 dB of"
    " its loudest; less is better"
)


def check_vocoder(name: str, sounds: Sequence[Path], mel: MelConfig, folder: Path) -> str:
    """Takes sounds to mels and back, writes what comes out, returns a table of the errors.

    <folder>/00_original.wav, 00_griffin_lim.wav, 00_vocoder.wav, 01_...; index.html plays them.

    Args:
        name: "griffin_lim", or what `load_vocoder` takes besides.
        sounds: files that libsndfile decodes; those that it does not are left out.

    Raises:
        UserError: the vocoder is for another mel, or there is no sound to try it with.
    """
    vocoders = {GRIFFIN_LIM: load_vocoder(GRIFFIN_LIM, mel)}
    if name != GRIFFIN_LIM:
        vocoders["vocoder"] = load_vocoder(name, mel)
    errors: dict[str, dict[str, float]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for sound in sounds:
        try:
            wav = read_wav(sound, mel.sample_rate)[: MOST_SECONDS * mel.sample_rate]
        except UserError:
            continue
        if len(wav) >= shortest_wav(mel):
            start = f"{len(errors):02d}"
            write_wav(folder / f"{start}_original.wav", wav, mel.sample_rate)
            errors[sound.name] = {}
            for kind, vocoder in vocoders.items():
                result, errors[sound.name][kind] = round_trip(wav, vocoder, mel)
                write_wav(folder / f"{start}_{kind}.wav", result, mel.sample_rate)
    if not errors:
        raise UserError("none of the clips can be decoded; there is nothing to try a vocoder with")
    page = folder / "index.html"
    kinds, title = ["original", *vocoders], f"wav, mel, wav again: {name}"
    render(page, "vocoder_check", title=title, intro=f"{MEANING}.", kinds=kinds, errors=errors)
    return f"{name}\n{_table(errors)}\n{MEANING}\nto listen: {page}"


def round_trip(wav: np.ndarray, vocoder: Vocoder, mel: MelConfig) -> tuple[np.ndarray, float]:
    """wav [T] -> what its mel sounds like [T // hop_size x hop_size], and the log-mel error."""
    extract = MelExtractor(mel)
    original = extract(torch.from_numpy(wav)[None])
    result = vocoder(original)
    audible = original > original.max() - AUDIBLE
    error = (extract(result) - original).abs()[audible].mean().item()
    return result[0].numpy(), error


def _table(errors: dict[str, dict[str, float]]) -> str:
    """A line for each clip, a column for each vocoder, and the means."""
    kinds = list(next(iter(errors.values())))
    means = {kind: np.mean([row[kind] for row in errors.values()]) for kind in kinds}
    rows = [[name, *(f"{row[kind]:.3f}" for kind in kinds)] for name, row in errors.items()]
    mean = ["mean", *(f"{means[kind]:.3f}" for kind in kinds)]
    return text_table([["", *kinds], *rows, mean])
