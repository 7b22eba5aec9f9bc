"""Generated sounds on disk: numbered, never overwritten, each with its picture and its receipt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from models.tta.ldm.sampling import SamplingSettings, Sound
from processors.mel_picture import BRIGHTEST, write_mel_picture
from utils.audio import write_recording, write_wav


class Numbering:
    """Writes 0000.wav, 0000.png and 0000.json, 0001.wav, ...; numbers in use are left alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        taken = [int(path.stem) for path in folder.iterdir() if path.stem.isdecimal()]
        self._next = max(taken, default=-1) + 1

    def write(
        self, sound: Sound, sampling: SamplingSettings, made_by: dict[str, str], sample_rate: int
    ) -> Path:
        """Returns the wav's path. The receipt says all that makes the same sound again.

        Of a sound that was changed in part, it also has `kept`, the share of its samples that are
        as they were.
        """
        path = self._claim()
        write_mel_picture(path.with_suffix(".png"), _shown(sound))
        receipt = {
            "file": path.name,
            "text": sound.text,
            **dataclasses.asdict(sampling),
            "seed": sound.seed,
            **made_by,
        }
        if sound.kept is not None:
            receipt["kept"] = round(sound.kept, 6)
        if sound.is_quiet:
            receipt["warning"] = f"{sound.level:.0f} dB, hardly to be heard"
        text = json.dumps(receipt, indent=2, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        if sound.recording is None:
            write_wav(path, sound.wav, sample_rate)
        else:
            write_recording(path, sound.recording)
        return path

    def _claim(self) -> Path:
        """The next free wav, made empty at once so that a second program takes another number."""
        while True:
            path = self.folder / f"{self._next:04d}.wav"
            self._next += 1
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            return path


def _shown(sound: Sound) -> np.ndarray:
    """The mel; of a sound that was changed, what it was is above what it is."""
    if sound.before is None:
        return sound.mel
    line = np.full((2, sound.mel.shape[1]), BRIGHTEST)
    return np.concatenate([sound.mel, line, sound.before])
