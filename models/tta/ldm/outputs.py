"""Generated sounds on disk: numbered, never overwritten, each with its picture and its receipt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from models.tta.ldm.sampling import SamplingSettings, Sound
from processors.mel_picture import write_change_picture, write_mel_picture
from utils.audio import write_recording, write_wav
from utils.checkpoint import read_json


class Numbering:
    """Writes 0000.wav, 0000.png and 0000.json, 0001.wav, ...; numbers in use are left alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        taken = [int(path.stem) for path in folder.iterdir() if path.stem.isdecimal()]
        self._next = max(taken, default=-1) + 1

    def write(
        self,
        sound: Sound,
        sampling: SamplingSettings,
        made_by: dict[str, str],
        sample_rate: int,
        name: str | None = None,
    ) -> Path:
        """Returns the wav's path. The receipt says all that makes the same sound again.

        Of a sound that was changed in part, it also has `kept`, the share of its samples that are
        as they were. A `name` takes the place of the number.
        """
        path = self._claim() if name is None else self.folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if sound.before is None:
            write_mel_picture(path.with_suffix(".png"), sound.mel)
        else:
            write_change_picture(path.with_suffix(".png"), sound.before, sound.mel)
        receipt = {
            "file": path.name,
            "text": sound.text,
            **dataclasses.asdict(sampling),
            "seed": sound.seed,
            **made_by,
        }
        if sound.kept is not None:
            receipt["kept"] = round(sound.kept, 6)
        if sound.fault:
            receipt["warning"] = "; ".join(filter(None, [made_by.get("warning"), sound.fault]))
        text = json.dumps(receipt, indent=2, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        if sound.recording is None:
            write_wav(path, sound.wav, sample_rate)
        else:
            write_recording(path, sound.recording)
        return path

    def has(
        self, name: str | None, told: Mapping[str, object], told_by: Callable[[dict], dict]
    ) -> bool:
        """Whether there is a sound of this name, written to its end, whose receipt tells `told`.

        What a receipt does not tell is as `told_by` says of it, and else as told.
        """
        path = self.folder / f"{name}.wav"
        if name is None or not path.is_file():
            return False
        told_there = path.with_suffix(".json")
        receipt = read_json(told_there, dict) if told_there.is_file() else {}
        receipt = told_by(receipt) if receipt else {}
        return all(receipt.get(key, value) == value for key, value in told.items())

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
