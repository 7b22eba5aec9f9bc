"""The demo data set: captioned sounds made by the program itself, in the form of own sounds.

    <folder>/wav/<kind>_<number>.wav   16-bit mono
    <folder>/captions.csv              file,caption,split,Kind

The traits of a clip, drawn from (seed, number), decide both its sound and its caption.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocessors.demo_kinds import KINDS, Kind, sentence
from preprocessors.demo_sounds import Draw, Traits, render
from utils.audio import write_wav

CLIP_SECONDS = 2.56  # 160 mel frames of 256 samples at 16 kHz
# A round holds one clip of every kind and one of two events; each tenth round is for validation.
CLIPS_PER_ROUND = len(KINDS) + 1
VALID_EVERY = 10


@dataclass(frozen=True)
class DemoClip:
    """One clip, before its sound is made."""

    index: int
    events: tuple[tuple[Kind, Traits], ...]
    caption: str

    @property
    def kind(self) -> str:
        return " + ".join(kind.name for kind, _ in self.events)

    @property
    def split(self) -> str:
        last = self.index // CLIPS_PER_ROUND % VALID_EVERY == VALID_EVERY - 1
        return "valid" if last else "train"

    @property
    def file(self) -> str:
        return f"{self.kind.replace(' + ', '_then_').replace(' ', '-')}_{self.index:04d}.wav"

    def wav(self, sample_rate: int, seed: int) -> np.ndarray:
        """The sound, [samples] float64 in (-1, 1). Two events share the length of the clip."""
        samples = round(CLIP_SECONDS * sample_rate) // len(self.events)
        draw = Draw(seed, self.index, 1)
        events = [render(k.sound, traits, draw, samples, sample_rate) for k, traits in self.events]
        return np.concatenate(events)


def demo_clips(seed: int, rounds: int = 80) -> list[DemoClip]:
    """The whole set's captions and traits; a clip depends on nothing but (seed, its index)."""
    return [_clip(seed, index) for index in range(rounds * CLIPS_PER_ROUND)]


def _clip(seed: int, index: int) -> DemoClip:
    draw = Draw(seed, index, 0)
    place = index % CLIPS_PER_ROUND
    if place < len(KINDS):
        kinds = [KINDS[place]]
    else:
        first = draw.index(len(KINDS))
        # Another kind, each with the same chance.
        second = (first + 1 + draw.index(len(KINDS) - 1)) % len(KINDS)
        kinds = [KINDS[first], KINDS[second]]
    events = tuple((kind, draw.traits()) for kind in kinds)
    first, *more = (kind.caption(traits, draw) for kind, traits in events)
    inner = [caption[0].lower() + caption[1:] for caption in more]
    return DemoClip(index, events, sentence(", then ".join([first, *inner])))


def make_demo(folder: Path, clips: Sequence[DemoClip], sample_rate: int, seed: int) -> None:
    """Writes the data set; the same files on every machine."""
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    for clip in clips:
        write_wav(folder / "wav" / clip.file, clip.wav(sample_rate, seed), sample_rate)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "caption", "split", "Kind"])
        table.writerows([clip.file, clip.caption, clip.split, clip.kind] for clip in clips)


def demo_prompts(clips: Sequence[DemoClip], per_kind: int = 10) -> list[dict[str, str]]:
    """Prompts to test with, {"prompt", "Kind"}.

    Three of each ten are worded as no caption is, the others are captions of training clips.
    """
    prompts = []
    for kind in KINDS:
        captions = [c.caption for c in clips if c.kind == kind.name and c.split == "train"]
        new = kind.new_wordings[: round(0.3 * per_kind)]
        texts = [*list(dict.fromkeys(captions))[: per_kind - len(new)], *new]
        prompts += [{"prompt": text, "Kind": kind.name} for text in texts]
    return prompts
