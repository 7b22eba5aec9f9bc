"""Pictures of mels, for TensorBoard, beside generated sounds and on the quickstart's page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from config.schema import MelConfig
from processors.mel import MEL_FLOOR

# Loudness that is drawn brightest, ln: about that of a full-scale sine. The scale is the same for
# every picture, so that loud looks loud and quiet looks quiet.
BRIGHTEST = 2.0
# Red, green and blue of matplotlib's magma at even steps: as even to the eye, in grey too.
MAGMA_HEX = "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"
# Of a difference of mels: what came is orange, what went is blue, brightest at so many ln units.
CAME, WENT, LARGEST = (255, 140, 50), (70, 150, 255), 4.0
MAGMA = np.frombuffer(bytes.fromhex(MAGMA_HEX), np.uint8).reshape(-1, 3)


def mel_rgb(mel: np.ndarray) -> np.ndarray:
    """mel [n_mel, frames] (ln) -> uint8 [n_mel, frames, 3], low frequencies at the bottom.

    What is not finite is drawn as silence.
    """
    darkest = np.log(MEL_FLOOR)
    place = (np.asarray(mel, dtype=np.float64)[::-1] - darkest) / (BRIGHTEST - darkest)
    place = np.clip(np.nan_to_num(place, nan=0, posinf=0, neginf=0), 0, 1)
    steps = np.linspace(0, 1, len(MAGMA))
    colours = [np.interp(place, steps, MAGMA[:, i]).astype(np.uint8) for i in range(3)]
    return np.stack(colours, axis=-1)


def height_of(hz: float, mel: MelConfig) -> float:
    """Where a frequency lies in the picture of a mel: 0 at its lower edge, 1 at its upper one.

    By the middles of the bands on Slaney's scale (Auditory Toolbox, 1998): linear up to 1000 Hz,
    logarithmic above. Below the first band's middle it is less than half a band, and may be < 0.
    """

    def slaney(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    low, high = slaney(mel.fmin), slaney(mel.fmax)
    point = (slaney(hz) - low) / (high - low) * (mel.n_mel + 1)  # band i has its middle at i + 1
    return (point - 0.5) / mel.n_mel


def difference_rgb(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What came and what went between two mels [n_mel, frames] -> uint8 [n_mel, frames, 3]."""
    change = np.clip((np.asarray(after) - before)[::-1, :, None] / LARGEST, -1, 1)
    return np.where(change > 0, change * CAME, -change * WENT).astype(np.uint8)


def write_mel_picture(path: str | Path, mel: np.ndarray, zoom: int = 3) -> None:
    """Writes the picture of mel [n_mel, frames] as a PNG, `zoom` pixels a band and a frame."""
    _write(path, mel_rgb(mel), zoom)


def write_change_picture(path: str | Path, before: np.ndarray, after: np.ndarray) -> None:
    """Writes a PNG of two mels [n_mel, frames] and of their difference, one below the other."""
    line = np.full((2, before.shape[1], 3), 255, np.uint8)
    parts = (mel_rgb(before), line, mel_rgb(after), line, difference_rgb(before, after))
    _write(path, np.concatenate(parts), zoom=3)


def _write(path: str | Path, rgb: np.ndarray, zoom: int) -> None:
    image = Image.fromarray(rgb)
    size = (zoom * image.width, zoom * image.height)
    image.resize(size, Image.Resampling.NEAREST).save(path, format="PNG")


def write_difference_picture(path: str | Path, before: np.ndarray, after: np.ndarray) -> None:
    """Writes the picture of `difference_rgb` as a PNG."""
    _write(path, difference_rgb(before, after), zoom=3)
