"""The rules by which triplets for editing are made: `edits` in a config of model_type Edits."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from config.typed_json import Count, Positive, Share, Text, Texts, Whole, typed

EditTask = Literal["add", "drop", "replace", "inpaint", "super_resolution", "keep"]
Position = Literal["beginning", "middle", "end"]
Names = Annotated[Texts, Field(min_length=1)]


def _ordered(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"{bounds} must be [least, most]")
    return bounds


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r} must be a regular expression: {error}") from None
    if not groups:
        raise ValueError(f"{text!r} must have a group (...), which is the recording's name")
    return text


Pair = Field(min_length=2, max_length=2)
# Of a length, and of dB: a number is drawn evenly between the two.
Shares = Annotated[list[Share], Pair, AfterValidator(_ordered)]
Levels = Annotated[list[float], Pair, AfterValidator(_ordered)]
Counts = dict[EditTask, Whole]


@typed
class EditsConfig:
    beds: Names
    events: Names
    label: Text | None
    source: Annotated[Text, AfterValidator(_pattern)]
    train: Counts
    valid: Counts
    test: Counts
    positions: Annotated[dict[Position, Shares], Field(min_length=1)]
    background_share: Annotated[float, Field(ge=0, le=1)]
    levels: Levels
    background_levels: Levels
    replace_start: Shares
    event_seconds: Positive
    event_words: Count
    gap_start: Shares
    gap_end: Shares
    cutoffs: Annotated[list[Positive], Field(min_length=1)]
    mixed_share: Annotated[float, Field(ge=0, le=1)]

    def __post_init__(self) -> None:
        if self.gap_start[1] >= self.gap_end[0]:
            raise ValueError(
                f"gap_start {self.gap_start} must end before gap_end {self.gap_end} begins"
            )
        if not any([*self.train.values(), *self.valid.values(), *self.test.values()]):
            raise ValueError("train, valid and test ask for no triplets at all")
