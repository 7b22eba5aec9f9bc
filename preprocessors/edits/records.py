"""A triplet's record: what is asked for, the two sounds, and all that made them."""

from __future__ import annotations

from typing import get_args

from config.edits_schema import EditTask
from preprocessors.demo_sounds import Draw
from preprocessors.edits.mix import Pair
from preprocessors.edits.plan import Event, Scene, name_of
from preprocessors.edits.sources import Source
from preprocessors.edits.wording import (
    caption_of_mixture,
    clause,
    instruction,
    places_of,
    where,
    with_article,
)

TASKS = get_args(EditTask)


def record_of(dataset: str, split: str, task: str, number: int, scene: Scene, pair: Pair) -> dict:
    """The record of the triplet that does `task` with a pair of sounds."""
    before, after = f"{pair.name}_in", f"{pair.name}_out"
    if task == "drop":  # the pair of add, the other way round
        before, after = after, before
    elif task == "keep":
        before = after
    facts = dict(pair.facts)
    made_of = {"Bed": {**_named(scene.bed), "Offset": facts.pop("Offset")}}
    made_of["BedKind"] = scene.bed.kind
    for event, suffix in zip(scene.events, ("", "2"), strict=False):
        made_of[f"Event{suffix}"] = _named(event.source)
        made_of[f"EventKind{suffix}"] = event.source.kind
    if scene.position is not None:
        made_of["Position"] = scene.position
    return {
        "Dataset": dataset,
        "Uid": name_of(split, task, number),
        "Task": task,
        **_words(task, scene),
        "Input": before,
        "Output": after,
        **made_of,
        **facts,
        "Seed": scene.seed,
    }


def _named(source: Source) -> dict[str, str]:
    return {"Dataset": source.dataset, "Uid": source.uid}


def _words(task: str, scene: Scene) -> dict:
    """{"Instruction", "Caption", "Template"} of a triplet, and what one to keep asks for."""
    draw = Draw(scene.seed, 1 + TASKS.index(task))
    first, second = (*scene.events, None, None)[:2]
    caption = _caption(scene, {"drop": None, "replace": second}.get(task, first))
    places, asked = {"whole": clause(caption)}, {}
    if task == "keep":
        asked["Asked"] = scene.asked
        if scene.absent:
            asked["Absent"] = scene.absent[0].source.kind
    elif scene.position is not None:
        places["where"] = where(scene.position, draw)
    for event, number in zip(scene.absent or scene.events, ("", "2"), strict=False):
        places |= places_of(event.source.label, event.caption, number)
    text, template = instruction(scene.asked or task, places, draw)
    return {"Instruction": text, "Caption": caption, "Template": template, **asked}


def _caption(scene: Scene, event: Event | None) -> str:
    """A caption of the bed with the event, the same for all that is done to them."""
    if event is None:
        return scene.caption
    said = clause(event.caption) if event.caption else with_article(event.source.kind)
    return caption_of_mixture(scene.caption, said, scene.position, Draw(scene.seed, 0))
