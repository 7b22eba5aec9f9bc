"""What each pair of sounds is made of, drawn from the seed and from the sounds that there are.

A bed without and with an event is a pair for two triplets, add and drop; any other is for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from config.edits_schema import EditsConfig
from config.schema import EditsExperiment
from preprocessors.demo_sounds import Draw
from preprocessors.edits.sources import Pools, Source
from processors.metadata import SPLITS
from utils.errors import UserError
from utils.seeds import derived_seed

KINDS = ("mix", "replace", "inpaint", "super_resolution", "keep")
ALTERNATIVES = 4  # scenes drawn for one pair, should what is made of the first be no use
NEXT_BED = 101  # turns from one of them to the next: not to the bed of a neighbouring pair
TRIES = 200  # draws of an event that is not heard in the bed already
BACKGROUND = "background"
ASKED_OF_KEPT = ("drop", "replace", "inpaint", "super_resolution")


@dataclass(frozen=True)
class Event:
    """A sound that is mixed into a bed."""

    source: Source
    level: float  # dB, loudest frame over the bed's
    caption: str | None


@dataclass(frozen=True)
class Scene:
    """A pair of sounds before it is made; places are shares of the length."""

    kind: str  # of KINDS
    seed: int
    bed: Source
    caption: str  # of the bed
    crop: float  # where a long bed is cut: a share of what is too much
    events: tuple[Event, ...] = ()  # in the input; a second one takes the first one's place
    position: str | None = None  # that captions name
    start: float = 0.0  # of the events
    gap: tuple[float, float] | None = None
    cutoff: float | None = None  # Hz
    asked: str | None = None  # the task that is asked of a sound to keep
    absent: tuple[Event, ...] = ()  # what it would drop or replace, and with what

    @property
    def is_mix(self) -> bool:
        """Whether the edit is an event that comes, goes or takes the place of another."""
        return self.kind in ("mix", "replace")


Plan = dict[str, tuple[Scene, ...]]  # name of the pair -> its scene, and others in its stead


def name_of(split: str, kind: str, number: int) -> str:
    return f"{split}_{kind}_{number:06d}"


def counts_of(edits: EditsConfig) -> dict[str, dict[str, int]]:
    """Split -> task -> triplets."""
    return {"train": edits.train, "valid": edits.valid, "test": edits.test}


def draw_plan(config: EditsExperiment, beds: Pools, events: Pools) -> Plan:
    """All pairs; those of a split are drawn from its beds and events alone.

    A pair depends on its split, kind and number, and on the sounds to draw from. Raises UserError
    where there are none.
    """
    plan: Plan = {}
    for split in SPLITS:
        counts = counts_of(config.edits)[split]
        pairs = counts | {"mix": max(counts.get("add", 0), counts.get("drop", 0))}
        if any(pairs.values()):
            _check_pools(config, split, beds[split], events[split])
        for kind in KINDS:
            purpose = f"edits {split} {kind}"
            turns = _shuffled(beds[split], derived_seed(config.train.random_seed, purpose))
            for number in range(pairs.get(kind, 0)):
                scenes = []
                for attempt in range(ALTERNATIVES):
                    seed = derived_seed(config.train.random_seed, purpose, number, attempt)
                    bed = turns[(number + attempt * NEXT_BED) % len(turns)]
                    scenes.append(_scene(config.edits, kind, bed, events[split], seed))
                plan[name_of(split, kind, number)] = tuple(scenes)
    return plan


def _shuffled(beds: list[Source], seed: int) -> list[Source]:
    """The beds in the order of their turns, so that all are used equally often."""
    return [beds[place] for place in Draw(seed).random(len(beds)).argsort(kind="stable")]


def _check_pools(config: EditsExperiment, split: str, beds: list, events: list) -> None:
    for name, pool in (("beds", beds), ("events", events)):
        if not pool:
            raise UserError(
                f"edits.{split} asks for triplets, but no sound of edits.{name}"
                f" {getattr(config.edits, name)} is left for {split}: lower the counts of"
                f" edits.{split}, take more sounds, or hold more out by preprocess.valid_fraction"
            )


def _scene(edits: EditsConfig, kind: str, bed: Source, events: list[Source], seed: int) -> Scene:
    draw = Draw(seed)
    scene = {
        "kind": kind,
        "seed": seed,
        "bed": bed,
        "caption": draw.choice(bed.captions),
        "crop": draw.random(),
    }
    if kind == "mix":
        scene |= _event_somewhere(edits, bed, events, draw)
    elif kind == "replace":
        first = _event(edits.levels, (bed,), events, draw)
        second = _event(edits.levels, (bed, first.source), events, draw)
        scene |= {"events": (first, second), "start": draw.between(*edits.replace_start)}
    elif draw.random() < edits.mixed_share:
        scene |= _event_somewhere(edits, bed, events, draw)
    if kind == "inpaint":
        scene["gap"] = (draw.between(*edits.gap_start), draw.between(*edits.gap_end))
    elif kind == "super_resolution":
        scene["cutoff"] = draw.choice(edits.cutoffs)
    elif kind == "keep":
        scene["asked"] = draw.choice(ASKED_OF_KEPT)
        if scene["asked"] in ("drop", "replace"):
            heard = (bed, *(event.source for event in scene.get("events", ())))
            absent = _event(edits.levels, heard, events, draw)
            other = _event(edits.levels, (absent.source,), events, draw)
            scene["absent"] = (absent, other)
    return Scene(**scene)


def _event_somewhere(edits: EditsConfig, bed: Source, events: list[Source], draw: Draw) -> dict:
    """An event, its position in words and its start."""
    if draw.random() < edits.background_share:
        event = _event(edits.background_levels, (bed,), events, draw)
        return {"events": (event,), "position": BACKGROUND}
    position = draw.choice(sorted(edits.positions))
    event = _event(edits.levels, (bed,), events, draw)
    start = draw.between(*edits.positions[position])
    return {"events": (event,), "position": position, "start": start}


def _event(
    levels: list[float], heard: tuple[Source, ...], events: list[Source], draw: Draw
) -> Event:
    source = _unlike(heard, events, draw)
    caption = draw.choice(source.captions) if source.captions else None
    return Event(source, draw.between(*levels), caption)


def _unlike(heard: tuple[Source, ...], events: list[Source], draw: Draw) -> Source:
    """One of the events that may not be taken for anything that is heard."""
    for _ in range(TRIES):
        source = events[draw.index(len(events))]
        if not any(source.sounds_like(other) for other in heard):
            return source
    names = " and ".join(repr(source.kind) for source in heard)
    raise UserError(
        f"no event can be told apart from {names} (of {len(events)}): take sounds of more kinds for"
        " edits.events, or name the kinds by edits.label"
    )
