"""pipeline.json: what a folder of weights needs to make sound, versioned, beside the weights.

Folders that were written before there was such a file hold the config.json of their training; what
is needed of it is picked out by name, so that any other key may come or go there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from config.typed_json import build
from utils.checkpoint import read_json, write_json
from utils.errors import UserError

PIPELINE_FILE = "pipeline.json"
VERSION = 1
Settings = TypeVar("Settings")


def write_settings(folder: Path, model_type: str, settings: object) -> None:
    """Writes <folder>/pipeline.json; `settings` is a dataclass."""
    data = {"version": VERSION, "model_type": model_type, **dataclasses.asdict(settings)}
    write_json(folder / PIPELINE_FILE, data)


def read_settings(
    folder: Path,
    model_type: str,
    cls: type[Settings],
    from_training: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Settings:
    """The settings of the weights in `folder`.

    Args:
        folder: of weights of this `model_type`.
        cls: the dataclass of its settings.
        from_training: makes the contents of a pipeline.json of those of a training's config.json;
            None where folders of these weights always had a pipeline.json.

    Raises:
        UserError: there are none, they are damaged, or a newer version of this code wrote them.
    """
    path = folder / PIPELINE_FILE
    if path.is_file() or from_training is None:
        data = read_json(path)
        version, found = data.pop("version", None), data.pop("model_type", None)
        if isinstance(version, int) and version > VERSION:
            raise UserError(
                f"{path}: version {version} is of newer code than this, which reads up to version"
                f" {VERSION}; get the newer code: git pull"
            )
        if version != VERSION or found != model_type:
            raise UserError(
                f"{path}: must hold version {VERSION} of the settings of an {model_type}, not"
                f" version {version!r} of {found!r}"
            )
    else:
        path = folder / "config.json"
        try:
            data = from_training(read_json(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not the config of an {model_type}'s training: {error}; and there is no"
                f" {PIPELINE_FILE} beside it"
            ) from None
    return build(cls, data, path)


def picked(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    """The fields of the dataclass `cls` in `data`; KeyError where one that has no default lacks."""
    has_default = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
    names = [field.name for field in dataclasses.fields(cls)]
    return {name: data[name] for name in names if name in data or name not in has_default}
