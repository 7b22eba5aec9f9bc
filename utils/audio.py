"""Audio files: anything that libsndfile decodes to mono wav at one rate, and 16-bit wav out."""

from __future__ import annotations

import math
import os
import re
import stat
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError

BLOCK_SAMPLES = 1 << 20  # samples decoded at a time, over all channels: memory stays bounded
MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz
FULL_SCALE = 0.99  # 8-bit audio reaches 127/128 at most
STREAMED_SIZE = 0x7FFFF000  # sizes from here on are what writers to a pipe put for "unknown"


class AudioError(UserError):
    """A sound that cannot be used; `reason` is short, and the same for all files of a kind."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Sound:
    """One decoded file."""

    wav: np.ndarray  # [T] float32 in [-1, 1], mono, at the rate that was asked for
    full_scale_share: float  # share of the file's samples that stand at full scale


def read_wav(path: str | Path, sample_rate: int) -> np.ndarray:
    """Decodes `path` to `wav` [T], float32 in [-1, 1], mono, at `sample_rate` Hz.

    Raises AudioError (a UserError) where there is no usable sound in it.
    """
    try:
        return read_sound(path, sample_rate).wav
    except AudioError as error:
        raise UserError(f"{path}: {error}") from None


def read_sound(path: str | Path, sample_rate: int) -> Sound:
    """Decodes, mixes to mono and resamples (soxr, high quality), a block at a time.

    Channels are averaged. Samples beyond [-1, 1] (float files, overshoot of the resampling filter)
    scale the whole sound down by its peak; quieter ones are left at their level.
    """
    import soundfile

    descriptor = _open_regular_file(path)
    try:
        # By descriptor: the content decides the format, not the name, whatever bytes are in it.
        with soundfile.SoundFile(descriptor, closefd=False) as file:
            wav, full_scale_share = _decode(file, sample_rate)
    except soundfile.LibsndfileError as error:
        raise AudioError("not decodable", error.error_string) from None
    finally:
        os.close(descriptor)
    peak = max(float(wav.max(initial=0)), -float(wav.min(initial=0)))
    if not math.isfinite(peak):
        raise AudioError("NaN or infinite samples")
    return Sound(wav / np.float32(peak) if peak > 1 else wav, full_scale_share)


def _open_regular_file(path: str | Path) -> int:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe that would wait for ever
            raise AudioError("not a file")
        if status.st_size == 0:
            raise AudioError("empty file")
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise AudioError("missing") from None
    except PermissionError:
        raise AudioError("no permission") from None
    except OSError as error:
        raise AudioError("not readable", error.strerror) from None


def _decode(file, sample_rate: int) -> tuple[np.ndarray, float]:
    """The open file's mono wav at `sample_rate`, and the share of its samples at full scale."""
    if not MIN_RATE <= file.samplerate <= MAX_RATE:  # a damaged header
        raise AudioError("sample rate out of range", f"{file.samplerate} Hz")
    announced, size = _announced_frames(file), BLOCK_SAMPLES // file.channels
    resample = _resampler(file.samplerate, sample_rate, one_block=file.frames <= size)
    mean = np.full(file.channels, 1 / file.channels, np.float32)
    parts, frames, full_scale = [], 0, 0
    for start in range(0, file.frames, size):
        block = file.read(size, "float32", always_2d=True)
        if len(block) == 0:
            break
        frames += len(block)
        if max(float(block.max()), -float(block.min())) >= FULL_SCALE:
            full_scale += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        # numpy's mean along so short an axis would take a third of a clip's time.
        mono = block @ mean if file.channels > 1 else block[:, 0]
        parts.append(resample(mono, start + size >= file.frames))
    if frames < 0.98 * announced:
        raise AudioError("truncated", f"{frames} of {announced} samples")
    if frames == 0:
        raise AudioError("empty file")
    return np.concatenate(parts), full_scale / (frames * file.channels)


def _resampler(
    rate: int, sample_rate: int, one_block: bool
) -> Callable[[np.ndarray, bool], np.ndarray]:
    """(a block, whether it is the last) -> the block at `sample_rate`, block to block seamless."""
    import soxr

    if rate == sample_rate:
        return lambda block, last: block
    if one_block:  # the same samples as from a stream, in less time
        return lambda block, last: soxr.resample(block, rate, sample_rate, "HQ")
    return soxr.ResampleStream(rate, sample_rate, 1, "float32", "HQ").resample_chunk


def _announced_frames(file) -> int:
    """How many frames the header promises; libsndfile itself takes a cut wav or ogg as it is."""
    log = file.extra_info
    if "lacks an end-of-stream bit" in log:  # the last page of an Ogg stream carries it
        raise AudioError("truncated", "the Ogg stream has no end")
    cut = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if cut is None or int(cut[1]) >= STREAMED_SIZE:
        return file.frames
    return round(file.frames * int(cut[1]) / max(int(cut[2]), 1))


def write_wav(path: str | Path, wav: np.ndarray, sample_rate: int) -> None:
    """Writes `wav` [T], float in [-1, 1], as 16-bit mono; what lies beyond is clipped, not wrapped.

    The same samples give the same bytes on every machine.
    """
    samples = np.clip(np.rint(np.asarray(wav, dtype=np.float64) * 32767), -32768, 32767)
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
