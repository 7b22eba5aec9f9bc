"""What was made: a folder of numbered sounds with their pictures and receipts, for each person."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from config.schema import MelConfig
from models.tta.ldm.outputs import Numbering
from models.tta.ldm.sampling import SamplingSettings, Sound
from models.tta.studio.receipts import read_receipt
from processors.mel_picture import write_difference_picture, write_mel_picture
from processors.regions import FADE, remade_columns, remade_rows
from utils.errors import UserError

NAME = re.compile(r"\d+(\.wav|\.json|(\.before|\.difference)?\.png)", re.ASCII)  # of a file


def changed_outside(sound: Sound, sampling: SamplingSettings, mel: MelConfig) -> float | None:
    """The mean change of the mel, in dB, where nothing of the sound was to change.

    That is in the frames that hear nothing of the regions and of the cross-fades around them, or in
    the bands that hear nothing of what is made above a cut-off. None where all was to change.
    """
    if sound.before is None or not (sampling.regions or sampling.task):
        return None
    change = np.abs(sound.mel - sound.before)  # ln of a magnitude
    if sampling.task:
        kept = change[~remade_rows(sampling.cutoff, mel.n_mel, mel)]
    else:
        around = [(max(begin - FADE, 0.0), end + FADE) for begin, end in sampling.regions]
        kept = change[:, ~remade_columns(around, change.shape[1], mel, 1)]
    return float(kept.mean()) * 20 / math.log(10) if kept.size else None


@dataclass(frozen=True)
class Kept:
    """A sound in the folder."""

    number: str  # "0003"
    receipt: dict[str, Any]  # as `read_receipt` has it; empty where there is a fault
    fault: str = ""  # why it cannot be read


class History:
    """The sounds below `folder`, one folder a person. The name of a person is in no path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, person: str) -> Path:
        return self.folder / hashlib.sha256(person.encode()).hexdigest()[:16]

    def add(
        self,
        person: str,
        sound: Sound,
        sampling: SamplingSettings,
        made_by: dict[str, Any],
        sample_rate: int,
    ) -> Kept:
        """Writes the sound under the next free number.

        Of one that was changed, what it was and the difference are drawn, too, and the receipt says
        how much it changed where it was not to.
        """
        outside = changed_outside(sound, sampling, MelConfig(**made_by["mel"]))
        if outside is not None:
            made_by = {**made_by, "changed_outside": round(outside, 3)}
        path = Numbering(self.of(person)).write(sound, sampling, made_by, sample_rate)
        if sound.before is not None:
            write_mel_picture(path.with_suffix(".png"), sound.mel)
            write_mel_picture(path.with_suffix(".before.png"), sound.before)
            write_difference_picture(path.with_suffix(".difference.png"), sound.before, sound.mel)
        return self.get(person, path.stem)

    def count(self, person: str) -> int:
        return len(self._numbers(person))

    def _numbers(self, person: str) -> list[str]:
        """The newest first. A wav is empty until its receipt is there."""
        found = self.of(person).glob("*.wav")
        files = (path for path in found if NAME.fullmatch(path.name) and path.stat().st_size)
        return sorted((path.stem for path in files), key=int, reverse=True)

    def newest(self, person: str, start: int = 0, count: int | None = None) -> list[Kept]:
        """The newest first, `count` of them from `start` on."""
        numbers = self._numbers(person)[start : None if count is None else start + count]
        return [self.get(person, number) for number in numbers]

    def get(self, person: str, number: object) -> Kept:
        """Raises UserError where there is no such sound."""
        wav = self.file(person, f"{number}.wav")
        try:
            return Kept(wav.stem, read_receipt(wav.with_suffix(".json")))
        except UserError as error:
            return Kept(wav.stem, {}, f"its receipt cannot be read: {error}")

    def names(self, person: str, source: str) -> bool:
        """Whether a receipt names a sound that was sent to be changed."""
        files = self.of(person).glob("*.json")
        return any(source.encode() in path.read_bytes() for path in files)

    def file(self, person: str, name: str) -> Path:
        """The file of that name, such as 0003.wav. Raises UserError where there is none."""
        path = self.of(person) / name
        if not NAME.fullmatch(name) or not path.is_file():
            raise UserError("there is no such sound")
        return path

    def zip_into(self, file: IO[bytes], person: str) -> None:
        """Writes all of it as a zip."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(self.of(person).iterdir()) if self.of(person).is_dir() else ():
                if NAME.fullmatch(path.name):
                    archive.write(path, path.name)
