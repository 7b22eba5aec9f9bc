"""JSON with comments to typed dataclasses, strictly: nothing unknown, nothing of the wrong type.

A dataclass declares its keys with `key(low=..., choices=...)`; `build` checks a dictionary by it.
Errors name the file that a key came from, the key, the rule and the nearest valid key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent


class ConfigError(UserError):
    """A config that cannot be used; the message names the file, the key and the rule."""


def key(*, low=None, high=None, above=None, below=None, choices=None, default=dataclasses.MISSING):
    """A key with its range: low <= value <= high, above < value < below, or one of choices."""
    bounds = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata=bounds)


def read_json5(path: Path) -> dict:
    """One config file as a dictionary, or a ConfigError that says what is wrong with it."""
    import json5

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    try:
        data = json5.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold an object {{...}}, not {type(data).__name__}")
    return data


def merge(base: dict, update: dict, origins: dict, origin: str, path: tuple[str, ...] = ()) -> None:
    """Merges `update` into `base`: objects key by key, all else replaced; notes the origins."""
    for name, value in update.items():
        here = (*path, name)
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merge(base[name], value, origins, origin, here)
        else:
            base[name] = value
            origins[here] = origin


def read_chain(path: Path) -> tuple[dict, dict]:
    chain, seen = [], set()
    while True:
        resolved = _find(path, chain[-1][0] if chain else None)
        if resolved in seen:
            raise ConfigError(f"{path}: base_config leads back to a file that it came from")
        seen.add(resolved)
        data = read_json5(resolved)
        parent = data.pop("base_config", None)
        chain.append((resolved, data))
        if parent is None:
            break
        if not isinstance(parent, str):
            raise ConfigError(f"{resolved}: base_config must be a path, not {parent!r}")
        path = Path(parent)
    merged, origins = {}, {}
    for file, data in reversed(chain):
        merge(merged, data, origins, str(file))
    return merged, origins


def _find(path: Path, child: Path | None) -> Path:
    """A base_config is looked up beside the file that names it, then from the repository's root."""
    places = [path] if child is None else [child.parent / path, REPOSITORY / path]
    for place in places:
        if place.is_file():
            return place.resolve()
    named = f" (base_config of {child})" if child else ""
    raise ConfigError(f"{path}: no such config file{named}")


def nested(path: list[str], value: object) -> dict:
    for name in reversed(path):
        value = {name: value}
    return value


def parse_value(text: str) -> object:
    """An override's value: JSON where it is JSON (2, true, null, [1, 2]), else the text itself."""
    import json5

    try:
        return json5.loads(text)
    except (ValueError, RecursionError):
        return text


@dataclass
class Origins:
    """Which file each key came from, for error messages."""

    by_path: dict
    default: str

    def __call__(self, path: tuple[str, ...]) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in self.by_path:
                return self.by_path[path[:length]]
        return self.default

    def error(self, path: tuple[str, ...], message: str) -> ConfigError:
        return ConfigError(f"{self(path)}: {'.'.join(path) or 'config'}: {message}")


def build(cls: type, data: object, path: tuple[str, ...], origins: Origins):
    if not isinstance(data, dict):
        raise origins.error(path, f"must be an object {{...}}, not {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in data:
        if name not in fields:
            nearest = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.0)
            raise origins.error(
                (*path, str(name)), f"no such key; nearest: {'.'.join((*path, nearest[0]))}"
            )
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], (*path, name), origins, field.metadata)
        elif field.default is dataclasses.MISSING:
            raise origins.error((*path, name), "missing, and there is no default")
    try:
        return cls(**values)
    except ConfigError as error:
        raise origins.error(path, str(error)) from None


def _convert(hint: object, value: object, path: tuple, origins: Origins, rules: typing.Mapping):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # only "T | None" occurs
        if value is None:
            return None
        hint = next(argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, path, origins, rules)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path, origins)
    if origin is list:
        if isinstance(value, str) and arguments[0] is str:
            value = value.split(",")  # dataset=ESC10,AudioCaps on a command line
        if not isinstance(value, list):
            raise origins.error(path, f"must be a list, not {value!r}")
        return [_convert(arguments[0], item, path, origins, rules) for item in value]
    if origin is dict:
        if not isinstance(value, dict):
            raise origins.error(path, f"must be an object {{...}}, not {value!r}")
        return {
            name: _convert(arguments[1], item, (*path, name), origins, rules)
            for name, item in value.items()
        }
    return _scalar(hint, value, path, origins, rules)


def _scalar(hint: type, value: object, path: tuple, origins: Origins, rules: typing.Mapping):
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not hint:
        raise origins.error(path, f"must be of type {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise origins.error(path, f"must be finite, not {value}")
    if hint is str and ("\0" in value or value.encode("utf-8", "replace").decode() != value):
        raise origins.error(path, f"{value!r} must be text in UTF-8 without NUL characters")
    choices = rules.get("choices")
    if choices is not None and value not in choices:
        raise origins.error(path, f"{value!r} must be one of {', '.join(map(repr, choices))}")
    for rule, holds, sign in (
        ("low", lambda v, b: v >= b, ">="),
        ("high", lambda v, b: v <= b, "<="),
        ("above", lambda v, b: v > b, ">"),
        ("below", lambda v, b: v < b, "<"),
    ):
        bound = rules.get(rule)
        if bound is not None and not holds(value, bound):
            raise origins.error(path, f"{value} must be {sign} {bound}")
    return value
