"""Audio files: whatever libsndfile or PyAV decodes to mono wav at one rate, and 16-bit wav out.

`read_sound` is the only place where a sound's channels, rate and level are decided, so that
preprocessing, vocoders and evaluation see the same samples. A `Recording` is for those who change
a part of a sound: all of its channels at its own rate, written with the bits that it had.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import wave
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.decode import AudioError, End, by_libsndfile, by_pyav
from utils.errors import UserError

MIN_RATE, MAX_RATE = 1000, 1_000_000  # Hz
FULL_SCALE = 0.99  # 8-bit audio reaches 127/128 at most
# Decoders of lossy formats and the resampling filter overshoot full scale by up to 4 dB: that
# level is left alone. Beyond 6 dB, a float file counts in another unit (16-bit integers, say).
LOUDEST = 2.0
ANTIPHASE_DB = 10.0  # a mix that loses more than this is not what the channels sound like


@dataclass(frozen=True)
class Sound:
    """One decoded file."""

    wav: np.ndarray  # [T] float32, mono, at the rate that was asked for; at most LOUDEST
    full_scale_share: float = 0.0  # share of the file's samples that stand at full scale
    swing: float = 0.0  # half of the range of the samples, before resampling: 0 for a constant
    peak: float = 0.0  # before the sound was scaled, if it was
    mix_loss: float = 0.0  # dB from the channels' mean power to that of their mean
    loudest_channel: int = 0
    length_wrong: bool = False  # the file goes on after the end that it states


def read_wav(path: str | Path, sample_rate: int) -> np.ndarray:
    """Decodes `path` to `wav` [T], float32, mono, at `sample_rate` Hz; see `read_sound`.

    Raises UserError where there is no usable sound in it.
    """
    try:
        return read_sound(path, sample_rate).wav
    except AudioError as error:
        raise UserError(f"{path}: {error}") from None


def read_sound(path: str | Path, sample_rate: int) -> Sound:
    """Decodes, mixes to mono and resamples (soxr, high quality), a block at a time.

    Channels are averaged; of those that cancel each other by more than ANTIPHASE_DB the loudest is
    taken. The level is left alone, so that samples may lie beyond [-1, 1]; only a sound with a peak
    beyond LOUDEST is scaled, to a peak of 1. Raises AudioError where there is no sound to be used.
    """
    with _regular_file(path) as descriptor:
        sound = _decode(descriptor, sample_rate, None)
        if sound.mix_loss > ANTIPHASE_DB:
            mono = _decode(descriptor, sample_rate, sound.loudest_channel)
            sound = replace(sound, wav=mono.wav, swing=mono.swing)
    peak = float(np.max(np.abs(sound.wav), initial=0))
    if not math.isfinite(peak):
        raise AudioError("NaN or infinite samples")
    wav = sound.wav / np.float32(peak) if peak > LOUDEST else sound.wav
    return replace(sound, wav=wav, peak=peak)


@contextlib.contextmanager
def _regular_file(path: str | Path) -> Iterator[int]:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe that would wait for ever
            raise AudioError("not a file")
        if status.st_size == 0:
            raise AudioError("empty file")
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise AudioError("missing") from None
    except PermissionError:
        raise AudioError("no permission") from None
    except OSError as error:
        raise AudioError("not readable", error.strerror) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _decode(descriptor: int, sample_rate: int, channel: int | None) -> Sound:
    """The open file's sound; both decoders are asked where one may have missed something."""
    first, second = _Mono(sample_rate, channel), _Mono(sample_rate, channel)
    best, length_wrong = _decoded(descriptor, first, second)
    return replace(best.sound(), length_wrong=length_wrong)


def _decoded(descriptor: int, first: Taker, second: Taker) -> tuple[Taker, bool]:
    """Which of the two has all of the file, and whether that is longer than the file states."""
    import soundfile

    try:
        end, fault = by_libsndfile(descriptor, first.take), None
        if end is not End.NOT_FOUND:
            return first, end is End.LATER
    except soundfile.LibsndfileError as error:
        fault = AudioError("not decodable", error.error_string)
    try:
        by_pyav(descriptor, second.take, ignore_length=fault is None)
    except AudioError as error:
        if fault is not None:
            raise (fault if error.reason == "not decodable" else error) from None
        return first, False
    if fault is None and second.seconds <= 1.02 * first.seconds:
        return first, False
    return second, fault is None


def decibels(power: float, less: float) -> float:
    """How far `less` lies below `power`, at most 120 dB; 0 where either is beyond all numbers."""
    if not (0 < power < math.inf and less < math.inf):
        return 0.0
    return -10 * math.log10(max(less / power, 1e-12))


class Taker(Protocol):
    """Collects the blocks of a file."""

    seconds: float  # so far

    def take(self, rate: int, block: np.ndarray) -> None:
        """One more block, [n, channels] float32 at `rate` Hz."""


class _Mono(Taker):
    """Collects the blocks of a file as mono wav at `sample_rate`.

    Channels are averaged, or `channel` is taken. Block to block is seamless; where a stream of
    another rate follows, the resampler begins anew.
    """

    def __init__(self, sample_rate: int, channel: int | None) -> None:
        self.sample_rate, self.channel = sample_rate, channel
        self.seconds = 0.0
        self._rate = 0
        self._stream = None
        self._waiting: np.ndarray | None = None  # a block of which it is unknown if it is the last
        self._parts: list[np.ndarray] = []
        self._samples = self._full_scale = 0
        self._low, self._high = math.inf, -math.inf
        self._power = self._mixed = 0.0  # the channels' mean power and their mean's, summed
        self._loudest = (0.0, 0)  # power and number of the loudest channel where they cancel

    def take(self, rate: int, block: np.ndarray) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:  # a damaged header
            raise AudioError("sample rate out of range", f"{rate} Hz")
        if rate != self._rate:
            self._resample(last=True)
            self._rate = rate
        self._resample(last=False)
        self._waiting = self._mix(block)
        self.seconds += len(block) / rate
        self._samples += block.size
        if max(float(block.max()), -float(block.min())) >= FULL_SCALE:
            self._full_scale += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self._low = min(self._low, float(self._waiting.min()))
        self._high = max(self._high, float(self._waiting.max()))

    def sound(self) -> Sound:
        self._resample(last=True)
        if not self._samples:
            raise AudioError("empty file")
        return Sound(
            np.concatenate(self._parts),
            self._full_scale / self._samples,
            swing=(self._high - self._low) / 2,
            mix_loss=decibels(self._power, self._mixed),
            loudest_channel=self._loudest[1],
        )

    def _mix(self, block: np.ndarray) -> np.ndarray:
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        # numpy's mean along so short an axis would take a third of a clip's time.
        mono = block @ np.full(channels, 1 / channels, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            power, mixed = float(np.vdot(block, block)) / channels, float(np.vdot(mono, mono))
            self._power, self._mixed = self._power + power, self._mixed + mixed
            if decibels(power, mixed) > ANTIPHASE_DB / 2:
                powers = np.square(block, dtype=np.float64).sum(axis=0)
                self._loudest = max(self._loudest, (float(powers.max()), int(powers.argmax())))
        if self.channel is not None and self.channel < channels:
            return np.ascontiguousarray(block[:, self.channel])
        return mono

    def _resample(self, last: bool) -> None:
        """Passes on the block that waits."""
        import soxr

        if self._waiting is None:
            return
        block, self._waiting = self._waiting, None
        if self._rate == self.sample_rate:
            self._parts.append(block)
            return
        if self._stream is None and last:  # the same samples as from a stream, in less time
            self._parts.append(soxr.resample(block, self._rate, self.sample_rate, "HQ"))
            return
        if self._stream is None:
            self._stream = soxr.ResampleStream(self._rate, self.sample_rate, 1, "float32", "HQ")
        self._parts.append(self._stream.resample_chunk(block, last))
        if last:
            self._stream = None


def write_wav(path: str | Path, wav: np.ndarray, sample_rate: int) -> None:
    """Writes `wav` [T], float in [-1, 1], as 16-bit mono; what lies beyond is clipped, not wrapped.

    The same samples give the same bytes on every machine.
    """
    Path(path).write_bytes(wav_bytes(wav, sample_rate))


def wav_bytes(wav: np.ndarray, sample_rate: int) -> bytes:
    """The file that `write_wav` writes."""
    samples = np.multiply(wav, 32767, dtype=np.float64)
    np.rint(samples, out=samples).clip(-32768, 32767, out=samples)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()


@dataclass(frozen=True)
class Recording:
    """A sound as its file has it."""

    samples: np.ndarray  # [T, channels] float32
    sample_rate: int  # Hz
    bits: int | None = None  # of a sample, where samples are whole numbers; None: float32

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate


class _Channels(Taker):
    """Collects the blocks of a file as they are."""

    def __init__(self) -> None:
        self.seconds, self.rate = 0.0, 0
        self.blocks: list[np.ndarray] = []

    def take(self, rate: int, block: np.ndarray) -> None:
        if self.blocks and (rate, block.shape[1]) != (self.rate, self.blocks[0].shape[1]):
            raise AudioError("streams of several rates or numbers of channels")
        self.rate, self.seconds = rate, self.seconds + len(block) / rate
        self.blocks.append(block)


def read_recording(path: str | Path) -> Recording:
    """Decodes `path`, all channels at its own rate; UserError where there is no usable sound."""
    try:
        with _regular_file(path) as descriptor:
            best, _ = _decoded(descriptor, _Channels(), _Channels())
            bits = _bits(descriptor)
        if not best.blocks:
            raise AudioError("empty file")
    except AudioError as error:
        raise UserError(f"{path}: {error}") from None
    return Recording(np.concatenate(best.blocks), best.rate, bits)


def _bits(descriptor: int) -> int | None:
    """Bits of the whole numbers that the open file's samples are; None: they are others.

    float32 holds up to 24 bits.
    """
    import soundfile

    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        with soundfile.SoundFile(descriptor, closefd=False) as file:
            subtype = file.subtype
    except soundfile.LibsndfileError:
        return None
    return {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(subtype)


class _Length(Taker):
    """Notes how long a file is, and stops at one that is too long."""

    def __init__(self, most: float) -> None:
        self.seconds, self.most = 0.0, most

    def take(self, rate: int, block: np.ndarray) -> None:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError("sample rate out of range", f"{rate} Hz")
        self.seconds += len(block) / rate
        if self.seconds > self.most:
            raise AudioError("too long", f"at most {self.most:g} s")


def check_length(path: str | Path, most: float) -> None:
    """Raises AudioError where a file has no sound, or more than `most` seconds of it.

    No more than a block of it is in memory at a time, whatever its length.
    """
    both = _Length(most), _Length(most)
    with _regular_file(path) as descriptor:
        _decoded(descriptor, *both)
    if max(length.seconds for length in both) > most:  # by one decoder alone: which one is right?
        raise AudioError("too long", f"at most {most:g} s")


def write_recording(path: str | Path, recording: Recording) -> None:
    """Writes a wav of the same rate, channels and bits. A sample that was read is written as it
    was; what lies beyond full scale is clipped where samples are whole numbers."""
    import soundfile

    if recording.bits is None:
        samples, subtype = recording.samples, "FLOAT"
    else:
        scale = 2 ** (recording.bits - 1)
        whole = np.rint(recording.samples * float(scale)).clip(-scale, scale - 1).astype(np.int64)
        samples = (whole << 32 - recording.bits).astype(np.int32)  # libsndfile takes the high bits
        subtype = "PCM_U8" if recording.bits == 8 else f"PCM_{recording.bits}"
    soundfile.write(os.fspath(path), samples, recording.sample_rate, subtype, format="WAV")
