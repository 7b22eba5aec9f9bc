"""Pictures of mels, for TensorBoard, beside generated sounds and on the quickstart's page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

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
    return np.stack([np.interp(place, steps, MAGMA[:, i]) for i in range(3)], -1).astype(np.uint8)


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
    rgb = rgb.repeat(zoom, axis=0).repeat(zoom, axis=1)
    Image.fromarray(rgb).save(path, format="PNG")
