"""Reads experiment configs: json5 files with a `base_config` chain, and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from config.schema import Config
from config.typed_json import ConfigError, Origins, build, merge, nested, parse_value, read_chain


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads `path` with its `base_config` chain, applies `key.path=value` overrides, checks all."""
    data, origins = read_chain(Path(path))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"{override!r} is neither an option nor an override key.path=value")
        merge(data, nested(name.split("."), parse_value(text)), origins, "the command line")
    return config_from_dict(data, origins, default_origin=str(path))


def config_from_dict(
    data: dict, origins: dict | None = None, default_origin: str = "config"
) -> Config:
    """Builds the typed config; errors name the file that an offending key came from."""
    return build(Config, data, (), Origins(origins or {}, default_origin))
