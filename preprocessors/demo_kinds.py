"""The kinds of sound of the demo data set, and the sentences that tell the truth about them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from preprocessors.demo_sounds import SOUNDS, Draw, Sound, Traits

# A trait that a caption may name is named in this share of captions.
TRAIT_SHARE = 0.5
Words = dict[str, list[str]]  # a value of a trait -> words for it


@dataclass(frozen=True)
class Kind:
    """A kind of sound. Phrasings have places for {traits}, adjectives, and {how}, an adverb."""

    name: str
    sound: Sound
    phrasings: list[str]
    new_wordings: list[str]  # prompts to test with; no phrasing gives one of these sentences
    loudness: Words
    pitch: Words = field(default_factory=dict)
    how: Words = field(default_factory=dict)  # adverbs by Traits.tempo or by Traits.count

    def caption(self, traits: Traits, draw: Draw) -> str:
        """A sentence about a sound with these traits, without its full stop."""
        adjectives = [
            draw.choice(words[trait])
            for words, trait in ((self.loudness, traits.level), (self.pitch, traits.pitch))
            if words and draw.random() < TRAIT_SHARE
        ]
        manner = str(traits.count) if str(traits.count) in self.how else traits.tempo
        how = draw.choice(self.how[manner]) if self.how and draw.random() < TRAIT_SHARE else ""
        return sentence(draw.choice(self.phrasings).format(traits=" ".join(adjectives), how=how))


def sentence(text: str) -> str:
    """Single spaces, "an" before a vowel, a capital letter first."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
    return text[0].upper() + text[1:]


_WORDING = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
KINDS = tuple(Kind(name, sound, **_WORDING[name]) for name, sound in SOUNDS.items())
