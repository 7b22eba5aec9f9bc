"""Published pipelines where a model of ours is taken: imported at first use, then found again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from config.load import load_config
from processors.cache import content_key
from utils.files import one_writer
from utils.hub import SAFE, model_folder
from utils.run_folder import REPOSITORY, find_weights

AUDIOLDM_CONFIG = "egs/tta/audioldm/exp_config_audioldm_vae.json"  # what diffusers' folders lack
INDEX = "model_index.json"  # what makes a folder a pipeline in diffusers' layout
NETWORKS = ("vae", "unet", "vocoder", "text_encoder")


def find_model(path: str | None, log_dir: str) -> Path:
    """As `find_weights` for a stage-2 model, and also from a pipeline in diffusers' layout.

    A pipeline, by folder or hub name, is imported into <log_dir>/imported/; a changed one anew.

    Raises:
        UserError: there is none, or it has a feature that is not here.
    """
    if path is not None:
        path = os.path.expanduser(path)
        pipeline = model_folder(path)
        if (pipeline / INDEX).is_file():
            return _imported(pipeline, path, log_dir)
    return find_weights(path, log_dir, "AudioLDM")


def _imported(pipeline: Path, name: str, log_dir: str) -> Path:
    """The folder of ours that a pipeline was or is now made into."""
    # Imported here: converting needs diffusers, which takes seconds to load.
    from models.tta.convert.from_diffusers import read_diffusers
    from models.tta.ldm.pipeline import PipelineSettings

    parts = [pipeline / part for part in NETWORKS if (pipeline / part).is_dir()]
    if not all(any(part.glob("*.safetensors")) for part in parts):
        pipeline = model_folder(name, (*SAFE, "*.bin"))
    files = sorted(file for file in pipeline.rglob("*") if file.is_file())
    stats = [(str(file.relative_to(pipeline)), file.stat().st_size) for file in files]
    times = [file.stat().st_mtime_ns for file in files]
    place = Path(log_dir, "imported").expanduser()
    folder = place / f"{Path(name).name}-{content_key(stats, times)}"
    with one_writer(place):
        if not folder.is_dir():
            print(f"{name}: imported into {folder}, once", file=sys.stderr)
            defaults = PipelineSettings.of(load_config(REPOSITORY / AUDIOLDM_CONFIG))
            found = read_diffusers([pipeline], defaults, None)
            found.check_whole(pipeline)
            found.write(folder, name)
            for note in found.notes:
                print(f"note: {note}", file=sys.stderr)
    return folder
