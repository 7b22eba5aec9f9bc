"""JSON to typed dataclasses, strictly: nothing unknown, nothing missing, nothing of a wrong type.

pydantic checks. What it finds becomes a line that names the key's file, the key and the rule.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
from collections.abc import Iterator
from typing import Annotated, dataclass_transform, get_args

import pydantic.dataclasses
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from utils.errors import UserError

MOST_FAULTS = 5  # lines of one error


class ConfigError(UserError):
    """A config that cannot be used; each line names the file, the key and the rule."""


def _readable(text: str) -> str:
    if "\0" in text or "\ufffd" in text:
        raise ValueError(f"{text!r} must be text in UTF-8 without NUL characters")
    return text


Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, AfterValidator(_readable)]
Place = Annotated[Text, AfterValidator(os.path.expanduser)]  # of files; ~ is the user's home
# One text is a list of one.
Texts = Annotated[list[Text], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]


def fixed(value: object, reason: str) -> AfterValidator:
    """Makes a key of a type one that has this value alone."""

    def check(given: object) -> object:
        if given != value:
            raise ValueError(f"{given!r} must be {value!r}: {reason}")
        return given

    return AfterValidator(check)


@dataclass_transform(frozen_default=True)
def typed(cls: type) -> type:
    """Makes a frozen dataclass that pydantic checks; faults are a ConfigError.

    A rule over several keys is a `__post_init__` that raises ValueError; its text begins with the
    name of a key.
    """
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    made = pydantic.dataclasses.dataclass(frozen=True, config=strict)(cls)
    check = made.__init__

    @functools.wraps(check)
    def __init__(self, *arguments, **keywords) -> None:
        try:
            check(self, *arguments, **keywords)
        except ValidationError as error:
            raise ConfigError("; ".join(_in_words(error, cls))) from None

    made.__init__ = __init__
    return made


def build(cls: type, data: object, file: object, origins: dict[tuple, str] | None = None):
    """`data` as a `cls`; what is wrong is a ConfigError.

    Args:
        file: where the data stand.
        origins: path of a key -> the file that it came from, where that is another.
    """
    try:
        return _checked(cls, data)
    except ValidationError as error:
        raise ConfigError("\n".join(_in_words(error, cls, file, origins or {}))) from None


def not_text(cls: type, data: dict) -> set[tuple]:
    """Paths of the keys whose value should be text, or a list of texts, and is something else."""
    try:
        _checked(cls, data)
    except ValidationError as error:
        kinds = ("string_type", "list_type")
        return {fault["loc"] for fault in error.errors() if fault["type"] in kinds}
    return set()


def _checked(cls: type, data: object):
    # Where types are strict, only from JSON does a dictionary become a dataclass. Half of a
    # surrogate pair, which is not UTF-8, becomes U+FFFD on the way, and that is refused.
    text = json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return TypeAdapter(cls).validate_json(text.decode("utf-8", "replace"))


WORDS = {
    "missing": "missing, and there is no default",
    "unexpected_keyword_argument": "no such key; nearest: {nearest}",
    "greater_than": "{input} must be > {gt:.12g}",
    "greater_than_equal": "{input} must be >= {ge:.12g}",
    "less_than": "{input} must be < {lt:.12g}",
    "less_than_equal": "{input} must be <= {le:.12g}",
    "too_short": "{input} must have at least {min_length} item(s)",
    "literal_error": "{input} must be {expected}",
    "value_error": "{error}",
}


def _in_words(
    error: ValidationError, cls: type, file: object = None, origins: dict[tuple, str] | None = None
) -> list[str]:
    """A line "file: key: rule" for each of the first faults; without a file, "key: rule"."""
    lines = []
    for fault in error.errors(include_url=False):
        path, words = fault["loc"], fault.get("ctx", {})
        value = repr(fault["input"])
        value = value if len(value) <= 80 else value[:77] + "..."
        rule = f"{fault['msg'].replace('Input should be', 'must be')}, not {value}"
        if fault["type"] in WORDS:
            nearest = ".".join(_nearest(cls, path)) if path else ""
            rule = WORDS[fault["type"]].format(input=value, nearest=nearest, **words)
        line = ": ".join([".".join(map(str, path)), rule] if path else [rule])
        if file is not None:
            here = (*path, *str(words.get("error", "")).partition(" ")[0].split("."))
            # The key itself, or else the nearest object that it is in.
            known = (here[:end] for end in range(len(here), 0, -1) if here[:end] in origins)
            line = f"{origins.get(next(known, None), file)}: {line}"
        lines.append(line)
    more = len(lines) - MOST_FAULTS
    return lines[:MOST_FAULTS] + ([f"and {more} more"] if more > 0 else [])


def keys_of(cls: type) -> Iterator[tuple[str, ...]]:
    """The path of every key of a dataclass and of those in it."""
    for name, field in cls.__pydantic_fields__.items():
        yield (name,)
        for kind in (field.annotation, *get_args(field.annotation)):  # X, or X | None
            if dataclasses.is_dataclass(kind):
                yield from ((name, *inner) for inner in keys_of(kind))


def _nearest(cls: type, path: tuple) -> tuple[str, ...]:
    """The key whose name is most like that of `path`; of several, one in the same place."""

    def likeness(key: tuple) -> tuple[float, bool]:
        ratio = difflib.SequenceMatcher(None, key[-1], str(path[-1])).ratio()
        return ratio, key[:-1] == path[:-1]

    return max(keys_of(cls), key=likeness)
