"""One sound file to one mel file, or the reason why not: what a worker process does."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.schema import MelConfig
from processors.mel import mel_of_wav, shortest_wav
from utils.audio import ANTIPHASE_DB, FULL_SCALE, LOUDEST, AudioError, Sound, read_sound
from utils.files import write_array

PCM_SCALE = 32767  # of a kept sample that is at full scale
SILENT_SWING = 1e-4  # -80 dB: nothing below it is heard; a constant (DC) has none
CLIPPED_SHARE = 1e-3  # of the samples at full scale
MIX_LOSS_DB = 3.0  # what two channels that have nothing in common lose
# What a name can do wrong, as opposed to a disk that is full or may not be written to.
NAME_ERRORS = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}


@dataclass(frozen=True)
class Clip:
    """A sound file that a mel is wanted of."""

    uid: str
    file: str  # path below the folder of sounds
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: a mel, or the reason why not."""

    uid: str
    fault: str | None = None
    seconds: float = 0.0
    frames: int = 0
    remarks: tuple[str, ...] = ()  # what is noteworthy about a sound that is kept
    digest: str = ""  # equal for equal sounds, whatever their names


@dataclass(frozen=True)
class Task:
    """Some clips for one worker."""

    clips: list[Clip]
    mel_dir: Path
    sounds: Path
    mel: MelConfig
    keep_wavs: bool

    def run(self) -> list[Outcome]:
        return [self._make_mel(clip) for clip in self.clips]

    def _make_mel(self, clip: Clip) -> Outcome:
        places = [folder / f"{clip.uid}.npy" for folder in (self.mel_dir, pcm_dir(self.mel_dir))]
        try:
            sound = read_sound(self.sounds / clip.file, self.mel.sample_rate)
            check_sound(sound, self.mel)
            mel = mel_of_wav(sound.wav, self.mel)
            _remove(places[1:])  # what is kept of another sound would fit by its length alone
            if self.keep_wavs:
                self._save(places[1], pcm_of_wav(sound.wav))
            self._save(places[0], mel)
        except AudioError as error:
            _remove(places)  # what was made of what the file held before
            return Outcome(clip.uid, fault=error.reason)
        return Outcome(
            clip.uid,
            seconds=len(sound.wav) / self.mel.sample_rate,
            frames=mel.shape[1],
            remarks=remarks(sound),
            digest=digest(sound.wav),
        )

    def _save(self, path: Path, array: np.ndarray) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_array(path, array)
        except OSError as error:
            if error.errno in NAME_ERRORS:
                raise AudioError("name that cannot be a file's", error.strerror) from None
            raise


def pcm_of_wav(wav: np.ndarray) -> np.ndarray:
    """wav [T] float32 -> int16 [T], what is kept of a sound beside its mel; clipped to [-1, 1]."""
    return np.rint(wav.clip(-1.0, 1.0) * PCM_SCALE).astype(np.int16)


def pcm_dir(mel_dir: Path) -> Path:
    """Where resampled sounds are kept, beside their mels."""
    return mel_dir.parent / "pcm"


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def check_sound(sound: Sound, mel: MelConfig) -> None:
    """Raises AudioError where a sound has no mel worth learning from."""
    samples, needed = len(sound.wav), shortest_wav(mel)
    if samples < needed:
        raise AudioError("too short", f"{samples} samples; a mel needs {needed}")
    if sound.swing < SILENT_SWING:
        raise AudioError("silent", f"moves by less than {SILENT_SWING:g} around a constant")


def remarks(sound: Sound) -> tuple[str, ...]:
    """What the report says of a sound that is kept."""
    found = []
    if sound.full_scale_share >= CLIPPED_SHARE:
        found.append(
            f"clipped: {CLIPPED_SHARE:.1%} or more of the samples reach {FULL_SCALE} of full scale"
        )
    if sound.peak > LOUDEST:
        found.append(f"peak above {LOUDEST:g} x full scale: scaled to a peak of 1")
    elif sound.peak > 1:
        found.append("beyond full scale after decoding or resampling: level left as it is")
    if sound.mix_loss > MIX_LOSS_DB:
        limit, then = MIX_LOSS_DB, ""
        if sound.mix_loss > ANTIPHASE_DB:
            limit, then = ANTIPHASE_DB, ": the loudest one taken"
        found.append(f"channels that lose more than {limit:g} dB in their mono mix{then}")
    if sound.length_wrong:
        found.append("longer than the file states: read to its end")
    return tuple(found)


def digest(wav: np.ndarray) -> str:
    """Equal for equal sounds; every 16th sample tells them apart as well as all would."""
    return hashlib.sha256(b"%d" % len(wav) + wav[::16].tobytes()).hexdigest()[:24]
