"""A model and its adapters as one model, which needs neither of them any more."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from models.tta.editing.pipeline import Editor
from models.tta.ldm.lora import Adapter
from models.tta.ldm.pipeline import Pipeline, read_pipeline
from utils.checkpoint import whole_folder


def write_merged(folder: Path, base: Path, adapters: Sequence[Adapter]) -> None:
    """Writes `folder` as the one of `base` is, with the adapters added to the weights."""
    kind = Editor if adapters[0].settings.adapts == "AUDIT" else Pipeline
    pipeline = read_pipeline(base, kind, adapters)
    added = ", ".join(f"{adapter.folder} x {adapter.weight:g}" for adapter in adapters)
    settings, vocoder = pipeline.settings, Path(pipeline.settings.vocoder)
    made_from = {**settings.made_from, "lora": f"{base} + {added}"}
    pipeline.settings = dataclasses.replace(settings, made_from=made_from)
    with whole_folder(folder) as new:
        pipeline.write(new)
        if not vocoder.is_absolute() and (base / vocoder).is_dir():  # it came with the base
            shutil.copytree(base / vocoder, new / vocoder)
