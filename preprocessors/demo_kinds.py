"""The kinds of sound of the demo data set, and the sentences that tell the truth about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from preprocessors import demo_sounds
from preprocessors.demo_sounds import Draw, Sound, Traits

LOUDNESS = {"loud": ("loud",), "quiet": ("quiet", "soft", "faint")}
PITCH = {"high": ("high", "high-pitched"), "low": ("low", "deep")}
SPEED = {"slow": ("slowly",), "fast": ("quickly", "fast", "rapidly")}
STRIKES = {1: ("once", "one time"), 2: ("twice", "two times"), 3: ("three times",)}

# A trait that a caption may name is named in this share of captions.
TRAIT_SHARE = 0.5


@dataclass(frozen=True)
class Kind:
    """A kind of sound. Phrasings have places for {traits}, adjectives, and {how}, an adverb."""

    name: str
    sound: Sound
    phrasings: tuple[str, ...]
    # Prompts to test with; no phrasing gives one of these sentences.
    new_wordings: tuple[str, ...]
    loudness: dict[str, tuple[str, ...]] = field(default_factory=lambda: LOUDNESS)
    pitch: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Adverbs by Traits.tempo or by Traits.count.
    how: dict[str, tuple[str, ...]] | dict[int, tuple[str, ...]] = field(default_factory=dict)

    def caption(self, traits: Traits, draw: Draw) -> str:
        """A sentence about a sound with these traits, without its full stop."""
        adjectives = [
            draw.choice(words[trait])
            for words, trait in ((self.loudness, traits.level), (self.pitch, traits.pitch))
            if words and draw.random() < TRAIT_SHARE
        ]
        manner = traits.count if traits.count in self.how else traits.tempo
        how = draw.choice(self.how[manner]) if self.how and draw.random() < TRAIT_SHARE else ""
        return sentence(draw.choice(self.phrasings).format(traits=" ".join(adjectives), how=how))


def sentence(text: str) -> str:
    """Single spaces, "an" before a vowel, a capital letter first."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
    return text[0].upper() + text[1:]


KINDS = (
    Kind(
        "rising tone",
        demo_sounds.rising_tone,
        (
            "a {traits} tone rises",
            "a {traits} tone is rising",
            "a {traits} tone goes up",
            "a {traits} whistle slides up",
            "a {traits} note rises in pitch",
            "a {traits} rising beep",
            "a synthesizer plays a {traits} rising tone",
            "a {traits} tone sweeps upwards",
        ),
        (
            "A rising whistle",
            "A beep that goes up and up in pitch",
            "Someone plays a note that rises upwards",
        ),
        pitch=PITCH,
    ),
    Kind(
        "falling tone",
        demo_sounds.falling_tone,
        (
            "a {traits} tone falls",
            "a {traits} tone is falling",
            "a {traits} tone goes down",
            "a {traits} whistle slides down",
            "a {traits} note falls in pitch",
            "a {traits} falling beep",
            "a synthesizer plays a {traits} falling tone",
            "a {traits} tone sweeps downwards",
        ),
        (
            "A falling whistle",
            "A beep that goes down and down in pitch",
            "Someone plays a note that falls downwards",
        ),
        pitch=PITCH,
    ),
    Kind(
        "siren",
        demo_sounds.siren,
        (
            "a {traits} siren wails {how}",
            "a {traits} siren is wailing {how}",
            "a {traits} police siren sounds {how}",
            "the {traits} siren of an ambulance",
            "a {traits} siren wavers {how}",
            "a {traits} alarm siren howls {how}",
        ),
        (
            "Police and an ambulance with sirens on",
            "The howling siren of a police car",
            "An ambulance is passing, its siren wailing",
        ),
        pitch=PITCH,
        how=SPEED,
    ),
    Kind(
        "bell",
        demo_sounds.bell,
        (
            "a {traits} bell rings {how}",
            "a {traits} bell is struck {how}",
            "a {traits} church bell tolls {how}",
            "a {traits} bell chimes {how}",
            "a {traits} bell is ringing",
            "the chime of a {traits} bell",
        ),
        (
            "Someone is ringing a church bell",
            "The bell of a church is chiming",
            "Ding dong, a big bell chimes",
        ),
        pitch=PITCH,
        how=STRIKES,
    ),
    Kind(
        "rain",
        demo_sounds.rain,
        (
            "{traits} rain pours",
            "{traits} rain patters on a roof",
            "{traits} rain is pouring",
            "{traits} rain against a window",
            "{traits} rainfall",
            "the hiss of {traits} rain",
            "drops of {traits} rain patter on leaves",
        ),
        (
            "It is raining on the roof",
            "Raindrops on a window",
            "The patter of a rain shower",
        ),
        loudness={"loud": ("heavy", "loud"), "quiet": ("light", "soft", "quiet")},
    ),
    Kind(
        "rumble",
        demo_sounds.rumble,
        (
            "{traits} thunder rumbles",
            "a {traits} rumble of thunder",
            "{traits} thunder is rumbling",
            "{traits} rolling thunder",
            "a {traits} rumble in the ground",
            "the ground rumbles with {traits} thunder",
        ),
        (
            "Thunder rolls and rumbles",
            "Rumbling ground",
            "The rumble of a thunderstorm",
        ),
    ),
    Kind(
        "slow clicking",
        demo_sounds.slow_clicking,
        (
            "{traits} slow clicking",
            "{traits} clicks that come slowly",
            "a {traits} clock ticks slowly",
            "the slow {traits} tick of a clock",
            "slow {traits} clicks",
            "a slow {traits} ticking",
            "{traits} clicking at a slow pace",
        ),
        (
            "Something ticks at a slow pace",
            "Slowly clicking, tick after tick",
            "The slow clicks of an old clock",
        ),
    ),
    Kind(
        "fast clicking",
        demo_sounds.fast_clicking,
        (
            "{traits} fast clicking",
            "{traits} clicks that come rapidly",
            "a {traits} clock ticks quickly",
            "the fast {traits} tick of a clock",
            "rapid {traits} clicks",
            "a fast {traits} ticking",
            "{traits} clicking at a rapid pace",
        ),
        (
            "Something ticks at a fast pace",
            "Rapidly clicking, tick after tick",
            "The fast clicks of a counter",
        ),
    ),
    Kind(
        "bird",
        demo_sounds.bird,
        (
            "a bird chirps {how}",
            "a bird is chirping {how}",
            "a bird sings {how}",
            "a small bird tweets {how}",
            "{traits} birdsong",
            "the {traits} chirping of a bird",
            "the {traits} song of a bird",
            "{traits} tweets of a small bird",
        ),
        (
            "Birds are singing",
            "A small bird tweets and chirps",
            "A bird sings in a tree",
        ),
        pitch=PITCH,
        how=SPEED,
    ),
    Kind(
        "engine",
        demo_sounds.engine,
        (
            "a {traits} engine runs {how}",
            "a {traits} engine is running {how}",
            "a {traits} car motor hums {how}",
            "the {traits} motor of a truck",
            "a {traits} diesel engine turns {how}",
            "the {traits} hum of an engine",
        ),
        (
            "A truck with a running engine",
            "The motor of a car is running",
            "A humming motor",
        ),
        how=SPEED,
    ),
)
