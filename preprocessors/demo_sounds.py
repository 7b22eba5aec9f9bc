"""The sounds of the demo data set: one function a kind, each gives wav [samples] in float64.

The last bit of sin and exp differs between machines. Rounding to 16 bits hides it, so that the wav
files are the same everywhere.

A sound is drawn within its `Traits`, so that the words of its caption are true of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

FADE_SECONDS = 0.02
# The quiet peak lies about 18 dB below the loud one.
PEAKS = {"loud": (0.6, 0.9), "quiet": (0.07, 0.11)}


@dataclass(frozen=True)
class Traits:
    """What a caption may say of a sound. A kind heeds those that its captions mention."""

    level: str  # loud or quiet
    pitch: str  # high or low
    tempo: str  # slow or fast
    count: int  # 1, 2 or 3 strikes


class Draw:
    """Uniform numbers from integer seeds: PCG64's doubles, the same on every machine."""

    def __init__(self, *seeds: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(list(seeds))).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def index(self, length: int) -> int:
        return int(self.random() * length)

    def choice(self, options: Sequence[str]) -> str:
        return options[self.index(len(options))]

    def traits(self) -> Traits:
        return Traits(
            level=self.choice(("loud", "quiet")),
            pitch=self.choice(("high", "low")),
            tempo=self.choice(("slow", "fast")),
            count=1 + self.index(3),
        )


Sound = Callable[[Traits, Draw, np.ndarray, int], np.ndarray]


def render(sound: Sound, traits: Traits, draw: Draw, samples: int, sample_rate: int) -> np.ndarray:
    """An event of that many samples, faded at its ends, with the peak that its level asks for."""
    time = np.arange(samples) / sample_rate
    wav = sound(traits, draw, time, sample_rate) * window(time, 0, time[-1], FADE_SECONDS)
    return wav * (draw.between(*PEAKS[traits.level]) / np.abs(wav).max())


# Building blocks


def sine(turns: np.ndarray) -> np.ndarray:
    return np.sin(math.tau * turns)


def decay(time: np.ndarray, seconds: float) -> np.ndarray:
    """exp(-time / seconds) from time 0 on, 0 before it."""
    return np.where(time < 0, 0, np.exp(-np.maximum(time, 0) / seconds))


def window(time: np.ndarray, start: float, end: float, ramp: float) -> np.ndarray:
    """1 between start and end, with straight ramps of that many seconds inside them."""
    return np.clip(np.minimum(time - start, end - time) / ramp, 0, 1)


def noise(draw: Draw, samples: int) -> np.ndarray:
    return draw.random(samples) * 2 - 1


def smooth(wav: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` samples: a low-pass with its first zero at sample_rate / width."""
    total = np.cumsum(wav)
    total[width:] = total[width:] - total[:-width]
    return total / width


def swell(draw: Draw, time: np.ndarray, depth: float) -> np.ndarray:
    """A slow random change of loudness, between 1 - depth and 1."""
    turns = draw.random() + time * draw.between(0.4, 0.9)
    return 1 - depth / 2 + depth / 2 * sine(turns)


def since_beat(draw: Draw, time: np.ndarray, rate: float, jitter: float) -> np.ndarray:
    """Seconds since the last of a row of beats, `rate` a second; negative before the first."""
    interval = 1 / rate
    first = draw.between(0.1, 0.6) * interval
    number = int((time[-1] - first) / interval) + 1
    spread = jitter * interval * noise(draw, number)
    starts = first + interval * np.arange(number) + spread
    latest = np.maximum(np.searchsorted(starts, time, side="right") - 1, 0)
    return time - starts[latest]


def voice(turns: np.ndarray) -> np.ndarray:
    """A tone with two soft overtones, from the phase of its fundamental."""
    return sine(turns) + 0.3 * sine(2 * turns) + 0.1 * sine(3 * turns)


# Kinds


def glide(
    traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int, rising: bool
) -> np.ndarray:
    """A whistle that slides over more than two octaves, and holds the pitch where it arrives."""
    low = draw.between(400, 500) if traits.pitch == "high" else draw.between(150, 200)
    high = low * draw.between(4.5, 5.2)  # at most 2600 Hz: its overtones stay below 8 kHz
    first, last = (low, high) if rising else (high, low)
    start = draw.between(0.03, 0.12) * time[-1]
    end = start + draw.between(0.8, 0.87) * time[-1]
    length = draw.between(0.45, 0.55) * time[-1]
    since = np.clip(time - start, 0, length)
    turns = first * since + (last - first) / length / 2 * since * since
    turns = turns + last * np.maximum(time - start - length, 0)
    return voice(turns) * window(time, start, end, 0.05)


def siren(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """A pitch that goes up and down again and again."""
    centre = draw.between(1300, 1600) if traits.pitch == "high" else draw.between(650, 800)
    rate = draw.between(3.0, 4.0) if traits.tempo == "fast" else draw.between(1.1, 1.5)
    swing = centre * draw.between(0.3, 0.4)
    # The integral of centre + swing sin(2 pi rate t).
    turns = centre * time - swing / (math.tau * rate) * sine(draw.random() + rate * time + 0.25)
    return voice(turns)


def bell(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """One to three strikes of inharmonic partials, the higher ones dying away sooner."""
    pitch = draw.between(850, 1150) if traits.pitch == "high" else draw.between(380, 500)
    ring = draw.between(0.16, 0.24) * time[-1]
    first = draw.between(0.02, 0.08) * time[-1]
    gap = draw.between(0.26, 0.3) * time[-1]
    wav = np.zeros_like(time)
    for strike in range(traits.count):
        since = time - first - gap * strike
        for ratio, share in ((1, 1.0), (2, 0.6), (2.76, 0.7), (4.07, 0.4), (5.4, 0.3)):
            wav += share * decay(since, ring / ratio) * sine(pitch * ratio * since)
    return wav


def rain(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """Hiss without low frequencies, with drops."""
    white = noise(draw, len(time))
    hiss = white - smooth(white, 6)
    drops = noise(draw, len(time)) * (draw.random(len(time)) < 120 / sample_rate)
    drops = smooth(drops, 2) - smooth(drops, 5)
    return (0.35 * hiss + 4 * smooth(drops, 2)) * swell(draw, time, 0.3)


def rumble(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """Noise below some 150 Hz, rolling."""
    wav = noise(draw, len(time))
    for divisor in (160, 190, 230):
        wav = smooth(wav, max(1, sample_rate // divisor))
    return wav * swell(draw, time, 0.7)


def clicks(
    traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int, slowest: float, fastest: float
) -> np.ndarray:
    """Between `slowest` and `fastest` clicks a second."""
    rate = draw.between(slowest, fastest)
    pitch = draw.between(2600, 3400) if traits.pitch == "high" else draw.between(900, 1200)
    since = since_beat(draw, time, rate, jitter=0.03)
    ring = sine(pitch * since) + 0.4 * sine(2.1 * pitch * since) + 0.3 * noise(draw, len(time))
    return decay(since, 0.006) * ring


def bird(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """Short chirps, each sweeping down from a high pitch."""
    pitch = draw.between(4300, 4900) if traits.pitch == "high" else draw.between(2500, 2900)
    rate = draw.between(6, 8) if traits.tempo == "fast" else draw.between(2, 3)
    length = draw.between(0.07, 0.09)
    sweep = pitch * draw.between(0.3, 0.45)
    since = since_beat(draw, time, rate, jitter=0.08)
    turns = (pitch + sweep) * since - sweep / length / 2 * since * since
    return sine(turns) * window(since, 0, length, 0.02)


def engine(traits: Traits, draw: Draw, time: np.ndarray, sample_rate: int) -> np.ndarray:
    """Many harmonics of a low pitch that wavers a little, with the breath of the exhaust."""
    firing = draw.between(75, 100) if traits.tempo == "fast" else draw.between(34, 45)
    turns = firing * time + 0.3 * sine(draw.random() + draw.between(2, 4) * time)
    wav = np.zeros_like(time)
    for number in range(1, int(2000 / firing) + 1):
        wav += draw.between(0.5, 1.5) / (2 + number) * sine(number * turns)
    pulse = 0.5 + 0.5 * sine(turns)
    return wav + 0.6 * smooth(noise(draw, len(time)), 4) * pulse * pulse


SOUNDS: dict[str, Sound] = {
    "rising tone": partial(glide, rising=True),
    "falling tone": partial(glide, rising=False),
    "siren": siren,
    "bell": bell,
    "rain": rain,
    "rumble": rumble,
    "slow clicking": partial(clicks, slowest=1.8, fastest=2.6),
    "fast clicking": partial(clicks, slowest=5, fastest=7),
    "bird": bird,
    "engine": engine,
}
