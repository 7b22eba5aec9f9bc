"""Scenes to pairs of sounds: what a worker process does. All is done on the wavs, before the mel.

Levels are AUDIT's: the mean magnitude of the loudest of a sound's frames of 1024 samples.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocessors.edits.plan import BACKGROUND, Event, Scene
from utils.audio import AudioError, read_sound, wav_bytes
from utils.files import write_bytes

FRAME = 1024  # samples
EDGE_DB = -40.0  # of an event's loudest frame: what is quieter at its ends is cut off
FADE_SECONDS = 0.01  # at both ends of an event
SILENT = 1e-4  # a bed's loudest frame
PEAK = 0.98  # a pair with a larger one is scaled
LEAST_CHANGE_DB = -40.0  # of the difference's loudest frame to the output's


@dataclass(frozen=True)
class Pair:
    """What became of a pair: two sounds, or the reason why not."""

    name: str
    fault: str | None = None
    choice: int = 0  # which of its scenes it is
    facts: dict = field(default_factory=dict)  # seconds, dB and Hz for the record
    hashes: tuple[str, str] = ("", "")  # of the files of input and output


@dataclass(frozen=True)
class MixTask:
    """Some pairs for one worker: name -> its scene, and others in its stead."""

    plan: dict[str, tuple[Scene, ...]]
    wav_dir: Path
    rate: int  # Hz
    samples: int  # of every sound
    event_samples: int  # at most, of an event that is not in the background

    def run(self) -> list[Pair]:
        return [self._make(name, scenes) for name, scenes in self.plan.items()]

    def _make(self, name: str, scenes: tuple[Scene, ...]) -> Pair:
        """The pair of the first scene that gives one of use."""
        fault = None
        for choice, scene in enumerate(scenes):
            try:
                before, after, facts = self.mix(scene)
            except AudioError as error:
                fault = fault or error.reason
                continue
            files = {"in": wav_bytes(before, self.rate), "out": wav_bytes(after, self.rate)}
            for end in ends_of(scene.kind):
                write_bytes(self.wav_dir / f"{name}_{end}.wav", files[end])
            hashes = tuple(hashlib.sha256(content).hexdigest()[:24] for content in files.values())
            return Pair(name, None, choice, facts, hashes)
        return Pair(name, fault)

    def mix(self, scene: Scene) -> tuple[np.ndarray, np.ndarray, dict]:
        """Input and output of a scene, [samples] float32, and the facts.

        Raises AudioError where a sound cannot be read, or where the two hardly differ.
        """
        bed, offset = self._bed(scene)
        facts = {"Offset": self._seconds(offset)}
        if level(bed) < SILENT:
            raise AudioError("a bed that is silent where it is cut")
        mixtures, ends = [bed], []
        for number, event in enumerate(scene.events):
            placed, start, end = self._placed(scene, event)
            gain = level(bed) / level(placed) * 10 ** (event.level / 20)
            mixtures.append(bed + np.float32(gain) * placed)
            ends.append(end)
            facts["Start"] = self._seconds(start)
            facts["End"] = self._seconds(max(ends))
            facts["Level2" if number else "Level"] = round(event.level, 4)
        before, after = mixtures[-2:] if scene.is_mix else (mixtures[-1], mixtures[-1])
        if scene.gap is not None:
            start, end = (round(share * self.samples) for share in scene.gap)
            before = before.copy()
            before[start:end] = 0
            facts["Region"] = [self._seconds(start), self._seconds(end)]
        elif scene.cutoff is not None:
            before = low_pass(before, self.rate, scene.cutoff)
            facts["Cutoff"] = scene.cutoff
        peak = max(float(np.abs(before).max()), float(np.abs(after).max()))
        facts["Gain"] = gain = round(min(1.0, PEAK / peak), 6)
        if scene.kind != "keep":
            change = level(after - before) / level(after)
            if change < 10 ** (LEAST_CHANGE_DB / 20):
                raise AudioError("an edit that is hardly heard")
        return np.float32(gain) * before, np.float32(gain) * after, facts

    def _seconds(self, samples: int) -> float:
        return round(samples / self.rate, 6)

    def _bed(self, scene: Scene) -> tuple[np.ndarray, int]:
        """The bed at its full length, and the sample of the clip that it begins with."""
        wav = read_sound(scene.bed.path, self.rate).wav
        offset = round(scene.crop * max(0, len(wav) - self.samples))
        bed = np.zeros(self.samples, np.float32)
        piece = wav[offset : offset + self.samples]
        bed[: len(piece)] = piece
        return bed, offset

    def _placed(self, scene: Scene, event: Event) -> tuple[np.ndarray, int, int]:
        """An event in silence of the full length, its first sample, and the one after its last."""
        wav = without_silent_ends(read_sound(event.source.path, self.rate).wav)
        start = round(scene.start * self.samples)
        longest = self.samples if scene.position == BACKGROUND else self.event_samples
        wav = faded(loudest_part(wav, min(longest, self.samples - start)), self.rate)
        placed = np.zeros(self.samples, np.float32)
        placed[start : start + len(wav)] = wav
        if level(placed) == 0:
            raise AudioError("an event without a sound")
        return placed, start, start + len(wav)


def ends_of(kind: str) -> tuple[str, ...]:
    """The sounds of a pair that there are files of; one to keep is both input and output."""
    return ("out",) if kind == "keep" else ("in", "out")


def frame_levels(wav: np.ndarray) -> np.ndarray:
    """Mean magnitude of each frame of 1024 samples of wav [T]; the last one may be shorter."""
    magnitude = np.abs(wav)
    whole = len(wav) // FRAME * FRAME
    means = magnitude[:whole].reshape(-1, FRAME).mean(axis=1, dtype=np.float64)
    return np.append(means, magnitude[whole:].mean(dtype=np.float64)) if whole < len(wav) else means


def level(wav: np.ndarray) -> float:
    """Mean magnitude of the loudest frame of 1024 samples."""
    return float(frame_levels(wav).max())


def without_silent_ends(wav: np.ndarray) -> np.ndarray:
    """wav [T] without the frames at its ends that lie EDGE_DB or more below its loudest."""
    levels = frame_levels(wav)
    heard = np.flatnonzero(levels > levels.max() * 10 ** (EDGE_DB / 20))
    return wav[heard[0] * FRAME : (heard[-1] + 1) * FRAME] if len(heard) else wav


def loudest_part(wav: np.ndarray, samples: int) -> np.ndarray:
    """The part of wav [T] with the most energy that has at most so many samples."""
    if len(wav) <= samples:
        return wav
    energy = np.concatenate([[0.0], np.cumsum(np.square(wav, dtype=np.float64))])
    start = int(np.argmax(energy[samples:] - energy[:-samples]))
    return wav[start : start + samples]


def faded(wav: np.ndarray, rate: int) -> np.ndarray:
    """wav [T] with half a cosine at either end."""
    count = min(round(FADE_SECONDS * rate), len(wav) // 2)
    ramp = (0.5 - 0.5 * np.cos(math.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(
        np.float32
    )
    shape = np.ones(len(wav), np.float32)
    shape[:count], shape[len(wav) - count :] = ramp, ramp[::-1]
    return wav * shape


def low_pass(wav: np.ndarray, rate: int, cutoff: float) -> np.ndarray:
    """wav [T] as a recording at 2 x cutoff Hz has it: resampled there and back, without delay."""
    import soxr

    back = soxr.resample(soxr.resample(wav, rate, 2 * cutoff, "HQ"), 2 * cutoff, rate, "HQ")
    whole = np.zeros_like(wav)
    piece = back[: len(wav)]
    whole[: len(piece)] = piece
    return whole
