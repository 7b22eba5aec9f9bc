"""Receipts of sounds in a history, as far as they are read here: a file may hold anything."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from pathlib import Path
from typing import Any

from config.schema import MelConfig
from config.typed_json import NotNegative, Text, build, typed
from models.tta.editing.pipeline import EditSettings, told_by
from models.tta.ldm.sampling import SamplingSettings
from utils.checkpoint import read_json
from utils.errors import UserError

MOST = 1 << 16  # bytes; the longest text there may be takes a tenth of it. And samples of a window


@typed
class Used:
    """Adapters that were added to the model."""

    folder: Text
    weight: NotNegative
    weights: Text = ""  # their hash


@typed
class MadeOf:
    """What a receipt says besides the settings."""

    text: Text
    checkpoint: Text
    vocoder: Text
    mel: MelConfig
    weights: Text = ""
    device: Text = ""
    lora: list[Used] = field(default_factory=list)
    warning: Text = ""
    kept: NotNegative = 0.0
    changed_outside: float = 0.0

    def __post_init__(self) -> None:
        mel = self.mel
        if mel.n_fft > MOST or mel.n_mel > mel.n_fft or mel.fmax - mel.fmin < 1:
            raise ValueError("mel: there is none such, whose axes could be drawn")


def read_receipt(path: Path) -> dict[str, Any]:
    """The receipt in a file, whose every value that is read here is of its type and in its range.

    Raises UserError, in one line without the path, where it is not.
    """
    try:
        if path.stat().st_size > MOST:
            raise UserError(f"it is larger than {MOST >> 10} KiB")
        receipt = read_json(path)
        sampling = settings_of(receipt, path)
        build(MadeOf, _only(MadeOf, receipt), path)
    except FileNotFoundError:
        raise UserError("there is none") from None
    except UserError as error:
        words = str(error).replace(f"{path}: ", "").partition("\n")[0]
        raise UserError(words) from None
    return {**dataclasses.asdict(sampling), **receipt}


def settings_of(receipt: dict[str, Any], path: object = "the receipt") -> SamplingSettings:
    """The settings that made the sound. Raises UserError."""
    kind = EditSettings if "source_guidance" in receipt else SamplingSettings
    if kind is EditSettings:
        receipt = told_by(receipt)
    return build(kind, _only(kind, receipt), path)


def _only(kind: type, receipt: dict[str, Any]) -> dict[str, Any]:
    return {f.name: receipt[f.name] for f in dataclasses.fields(kind) if f.name in receipt}
