"""Reads experiment configs: json5 files with a `base_config` chain, then overrides.

    exp_config.json -> config/<model>.json -> config/base.json

The nearest file wins, objects merge, lists replace; `key.path=value` overrides come last.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from config.schema import EXPERIMENTS, Config
from config.typed_json import ConfigError, build, keys_of, not_text
from utils.nearest import nearest

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND_LINE = "the command line"
NOT_SETTINGS = ("base_config", "$schema")  # the chain's next file; what an editor checks it by
# A string, which may hold what looks like a comment, or a comment.
STRING_OR_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n\r\u2028\u2029]*|/\*.*?\*/', re.DOTALL)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads `path` with its `base_config` chain, applies `key.path=value` overrides, checks all."""
    data, origins = read_chain(find_config(path))
    given = parse_overrides(overrides)
    for name, text in given.items():
        merge(data, nested(name, parse_value(text)), origins, COMMAND_LINE)
    for name in given.keys() & not_text(experiment(data, path), data):  # log_dir=2026
        merge(data, nested(name, given[name]), origins, COMMAND_LINE)
    return config_from_dict(data, origins, str(path))


def config_from_dict(data: dict, origins: dict | None = None, file: str = "config") -> Config:
    """Builds the typed config; errors name the file that an offending key came from."""
    cls, origins = experiment(data, file), origins or {}
    for other, owner in EXPERIMENTS.items():
        for path in (origins.keys() & keys_of(owner)) - set(keys_of(cls)):
            raise ConfigError(
                f"{origins[path]}: {'.'.join(path)}: a key of model_type {other}, not of"
                f" {data['model_type']}"
            )
    return build(cls, data, file, origins)


def experiment(data: dict, origin: object) -> type:
    """The type of the config that `data` is for, by its model_type."""
    kind = data.get("model_type")
    if kind not in [*EXPERIMENTS]:
        raise ConfigError(f"{origin}: model_type: {kind!r} must be one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[kind]


# ---------------------------------------------------------------- files


def find_config(path: str | Path) -> Path:
    """A file that the user names, from where the user is: scripts go to the repository's root."""
    named = Path(path).expanduser()
    return _find(named, [Path(os.environ.get("ARION_CALLER_DIR", "")), Path()], "")


def read_chain(path: Path) -> tuple[dict, dict]:
    """The settings of a file and of those that it builds on, and the file that each came from."""
    chain: dict[Path, dict] = {}
    while True:
        if path in chain:
            raise ConfigError(f"{path}: base_config leads back to a file that it came from")
        chain[path] = data = read_json5(path)
        base = data.get("base_config")
        if base is None:
            break
        if not isinstance(base, str):
            raise ConfigError(f"{path}: base_config must be a path, not {base!r}")
        path = _find(Path(base), [path.parent, REPOSITORY], f" (base_config of {path})")
    merged, origins = {}, {}
    for file, data in reversed(chain.items()):
        settings = {name: value for name, value in data.items() if name not in NOT_SETTINGS}
        merge(merged, settings, origins, str(file))
    return merged, origins


def _find(path: Path, folders: list[Path], named: str) -> Path:
    for folder in folders:
        if (folder / path).is_file():
            return (folder / path).resolve()
    shipped = [file.relative_to(REPOSITORY) for file in REPOSITORY.glob("egs/tta/*/*.json")]
    inside = [folder / path.parent for folder in folders if (folder / path.parent).is_dir()]
    beside = [path.with_name(file.name) for folder in inside for file in folder.glob("*.json")]
    near = nearest(str(path), map(str, [*shipped, *beside]))
    raise ConfigError(f"{path}: no such config file{named}{near}")


def read_json5(path: Path) -> dict:
    """One config file as a dictionary, or a ConfigError that says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    try:
        data = copy.deepcopy(_remembered(text))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold an object {{...}}, not {type(data).__name__}")
    return data


def _parsed(text: str) -> object:
    """JSON5. What is JSON but for its comments is not left to the slow parser of all the rest.

    No other JSON5 becomes JSON where its comments are taken out: the first sign of it stays.
    """
    try:
        return json.loads(STRING_OR_COMMENT.sub(lambda found: found[1] or " ", text))
    except ValueError:
        import json5

        return json5.loads(text)


_remembered = functools.lru_cache(maxsize=64)(_parsed)  # a program reads each file once


def merge(base: dict, update: dict, origins: dict, origin: str, path: tuple[str, ...] = ()) -> None:
    """Merges `update` into `base`: objects key by key, all else replaced; notes the origins."""
    for name, value in update.items():
        here = (*path, name)
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            merge(base[name], value, origins, origin, here)
        else:
            base[name] = value
            origins[here] = origin


# ---------------------------------------------------------------- overrides


def parse_overrides(overrides: Sequence[str]) -> dict[tuple[str, ...], str]:
    """{("train", "max_steps"): "9"} of ["train.max_steps=9"]; each key may be given once."""
    given: dict[tuple[str, ...], str] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"{override!r} is neither an option nor an override key.path=value; a value with"
                " blanks has to be in quotes"
            )
        path = tuple(name.split("."))
        if path in given:
            both = json.dumps([given[path], text], ensure_ascii=False)
            raise ConfigError(
                f"{COMMAND_LINE}: {name}: given twice, as {given[path]!r} and {text!r}; give it"
                f" once, or to a key that takes several, a list: '{name}={both}'"
            )
        given[path] = text
    return given


def nested(path: Sequence[str], value: object) -> dict:
    """{"a": {"b": value}} of the path a, b."""
    for name in reversed(path):
        value = {name: value}
    return value


def parse_value(text: str) -> object:
    """An override's value: JSON where it is JSON (2, true, null, [1, 2]), else the text itself."""
    try:
        return _parsed(text)
    except (ValueError, RecursionError):
        return text
