"""One sound file to one mel file, or the reason why not: what a worker process does."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.schema import MelConfig
from processors.mel import mel_of_wav, shortest_wav
from utils.audio import AudioError, read_sound
from utils.errors import UserError

SILENT_PEAK = 1e-4  # -80 dB: nothing below it is heard
CLIPPED_SHARE = 1e-3  # of the samples at full scale
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
    clipped: bool = False
    digest: str = ""  # equal for equal sounds, whatever their names


@dataclass(frozen=True)
class Task:
    """Some clips for one worker."""

    clips: list[Clip]
    mel_dir: Path
    sounds: Path
    mel: MelConfig

    def run(self) -> list[Outcome]:
        return [self._make_mel(clip) for clip in self.clips]

    def _make_mel(self, clip: Clip) -> Outcome:
        try:
            sound = read_sound(self.sounds / clip.file, self.mel.sample_rate)
            check_wav(sound.wav, self.mel)
            mel = mel_of_wav(sound.wav, self.mel)
            self._save(clip.uid, mel)
        except AudioError as error:
            with contextlib.suppress(OSError):  # a mel of what the file held before
                os.unlink(self.mel_dir / f"{clip.uid}.npy")
            return Outcome(clip.uid, fault=error.reason)
        return Outcome(
            clip.uid,
            seconds=len(sound.wav) / self.mel.sample_rate,
            frames=mel.shape[1],
            clipped=sound.full_scale_share >= CLIPPED_SHARE,
            digest=digest(sound.wav),
        )

    def _save(self, uid: str, mel: np.ndarray) -> None:
        """Writes the mel whole or not at all."""
        path = self.mel_dir / f"{uid}.npy"
        temporary = self.mel_dir / f".{secrets.token_hex(8)}.part"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                np.save(file, mel)
            os.replace(temporary, path)
        except OSError as error:
            if error.errno in NAME_ERRORS:
                raise AudioError("name that cannot be a file's", error.strerror) from None
            raise UserError(
                f"{path}: cannot be written: {error.strerror}; all mels so far are kept, the same"
                " command goes on from there"
            ) from None


def check_wav(wav: np.ndarray, mel: MelConfig) -> None:
    """Raises AudioError where a wav [T] in [-1, 1] has no mel worth learning from."""
    if len(wav) < shortest_wav(mel):
        raise AudioError("too short", f"{len(wav)} samples; a mel needs {shortest_wav(mel)}")
    if max(wav.max(), -wav.min()) < SILENT_PEAK:
        raise AudioError("silent", f"peak below {SILENT_PEAK:g}")


def digest(wav: np.ndarray) -> str:
    """Equal for equal sounds; every 16th sample tells them apart as well as all would."""
    return hashlib.sha256(b"%d" % len(wav) + wav[::16].tobytes()).hexdigest()[:24]
