"""Parts of a sound that are made anew or edited: where they lie in its latent, and how what was
made gets back into it.

A region is (begin, end) in seconds. `wav` is [T] at the model's rate; `samples` are [T, channels]
at the sound's own. A vocoder's phases are not the sound's, so both are taken as unrelated where
they meet: with weights cos and sin, whose squares add up to 1, the power stays (equal power). A
change of the sound's own spectrum (spectral_change.py) fades in and out along a line instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from config.schema import MelConfig
from processors.mel import mel_filter_bank, padding

Region = tuple[float, float]

FADE = 0.03  # seconds before and after a region in which what is done there fades in and out
# Columns beside a region that are made with it: the autoencoder's convolutions have told those that
# it touches what is in the region, and decode what is at its edge with the help of those beside it.
MARGIN = 1
LISTENED, NEARBY = 0.15, 0.1  # seconds
CROSSOVER = 0.1  # of a cut-off frequency: the band below it in which low and high cross over


def remade_columns(
    regions: Sequence[Region], columns: int, mel: MelConfig, factor: int
) -> np.ndarray:
    """bool [columns]: the latent's columns to be made so that nothing of the regions is left.

    A frame of the mel sees n_fft samples, more than its hop. All columns with a frame that sees a
    sample of a region are made, and `MARGIN` more on each side.

    factor: frames of the mel in a column.
    """
    remade = np.zeros(columns, dtype=bool)
    for begin, end in regions:
        first, last = begin * mel.sample_rate, end * mel.sample_rate
        # Frame t sees the samples from t hop - padding on.
        frame = math.floor((first + padding(mel) - mel.n_fft) / mel.hop_size) + 1
        last_frame = math.ceil((last + padding(mel)) / mel.hop_size) - 1
        remade[max(frame // factor - MARGIN, 0) : last_frame // factor + 1 + MARGIN] = True
    return remade


def remade_rows(cutoff: float, rows: int, mel: MelConfig) -> np.ndarray:
    """bool [rows]: the latent's rows that hold a band which hears what is not kept below `cutoff`.

    cutoff: Hz; below (1 - CROSSOVER) cutoff the sound is kept.
    """
    bands = mel_filter_bank(mel)  # [n_mel, bins]
    frequencies = np.arange(bands.shape[1]) * mel.sample_rate / mel.n_fft
    hears = (bands[:, frequencies > (1 - CROSSOVER) * cutoff] > 0).any(axis=1)
    return hears.reshape(rows, -1).any(axis=1)


def changed_regions(change: np.ndarray, threshold: float, mel: MelConfig) -> list[Region]:
    """Where a mel is changed, as regions for `put_back` and `put_change`.

    A frame's change is the mean over bands, and over `LISTENED` s around it, in dB. `NEARBY` s
    before and after a change belong to it.

    Args:
        change: [n_mel, frames] in nepers, see spectral_change.py.
        threshold: dB that a frame has to change by more than.
    """
    difference = np.abs(change).mean(axis=0)
    around = round(LISTENED * mel.frames_per_second / 2)
    weights = np.full(2 * around + 1, 1 / (2 * around + 1))
    difference = np.convolve(np.pad(difference, around, "edge"), weights, "valid")
    changed = np.flatnonzero(difference * 20 / math.log(10) > threshold)
    if not len(changed):
        return []
    seconds = 1 / mel.frames_per_second
    gaps = np.flatnonzero(np.diff(changed) * seconds > 2 * NEARBY)
    begins, ends = changed[[0, *(gaps + 1)]], changed[[*gaps, -1]] + 1
    whole = change.shape[1] * seconds
    return [
        (max(begin * seconds - NEARBY, 0.0), min(end * seconds + NEARBY, whole))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]


def put_back(
    samples: np.ndarray, rate: int, made: np.ndarray, regions: Sequence[Region]
) -> tuple[np.ndarray, np.ndarray]:
    """The samples with what was made in the regions, and faded over within `FADE` around them.

    Args:
        samples: [T, channels] at `rate` Hz.
        made: [T, channels] at `rate` Hz; it is as long, and only regions and fades are used.

    Returns:
        [T, channels]; and bool [T], False where the samples are the given ones, bit for bit
    """
    place = region_weights(len(samples), rate, regions)
    touched = place > 0
    angle = place[touched, None] * math.pi / 2
    result = samples.copy()
    result[touched] = np.cos(angle) * samples[touched] + np.sin(angle) * made[touched]
    return result, touched


def region_weights(length: int, rate: int, regions: Sequence[Region]) -> np.ndarray:
    """How much each sample is in the regions, [length]: 1 inside, 0 outside, and along a line
    between within `FADE` s of them."""
    fade, weights = max(round(FADE * rate), 1), np.zeros(length)
    for begin, end in regions:
        first, last = round(begin * rate), round(end * rate)
        part = slice(max(first - fade, 0), max(last + fade, 0))
        index = np.arange(part.start, min(part.stop, length))
        outside = np.maximum(first - index, index + 1 - last).clip(0)
        weights[part] = np.maximum(weights[part], 1 - outside / (fade + 1))
    return weights


def put_above(samples: np.ndarray, rate: int, made: np.ndarray, cutoff: float) -> np.ndarray:
    """The samples' band below `cutoff` (Hz) with that of `made` above; all [T, channels].

    One filter over the whole sound, without phase: its bands cross over in `CROSSOVER` of the
    cut-off below it.
    """
    length = len(samples)
    frequencies = np.fft.rfftfreq(length, 1 / rate)[:, None]
    place = ((frequencies / cutoff - 1) / CROSSOVER + 1).clip(0, 1) * math.pi / 2
    low, high = np.fft.rfft(samples, axis=0), np.fft.rfft(made, axis=0)
    return np.fft.irfft(np.cos(place) * low + np.sin(place) * high, length, axis=0)


def channel_gains(samples: np.ndarray, mono: np.ndarray) -> np.ndarray:
    """[channels]: the level and the sign that best give each channel of its mono mix.

    What was made of the mix then lies where the sound lay between the channels.

    samples [T, channels], mono [T].
    """
    power = float(np.vdot(mono, mono))
    return mono @ samples / power if power else np.ones(samples.shape[1])
