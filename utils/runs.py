"""Run folders: <log_dir>/<exp_name>/, what is in them and how one is found.

config.json  log.txt  tensorboard/  samples/  checkpoints/step-00005000/  final/
"""

from __future__ import annotations

from pathlib import Path

from utils.checkpoint import Checkpoints, read_json
from utils.config import Config, config_from_dict
from utils.errors import UserError

TRAIN_COMMANDS = {
    "AutoencoderKL": "sh egs/tta/autoencoderkl/run_train.sh",
    "AudioLDM": "sh egs/tta/audioldm/run_train.sh",
}
WEIGHTS = {"AutoencoderKL": "vae.safetensors", "AudioLDM": "unet.safetensors"}


def weights_folder(path: Path, model_type: str) -> Path | None:
    """Where the weights lie in a run (final/, else its newest checkpoint) or a folder of them."""
    if (path / WEIGHTS[model_type]).is_file():
        return path
    if (path / "final" / WEIGHTS[model_type]).is_file():
        return path / "final"
    found = Checkpoints(path / "checkpoints", keep=1).all()
    if found and (found[-1] / WEIGHTS[model_type]).is_file():
        return found[-1]
    return None


def find_weights(path: str | None, log_dir: str, model_type: str) -> Path:
    """The folder of weights that `path` names, or that of the newest run in `log_dir`."""
    command = TRAIN_COMMANDS[model_type]
    if path is not None:
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; to train one, run: {command}")
        folder = weights_folder(Path(path), model_type)
        if folder is None:
            raise UserError(
                f"{path}: holds no {model_type} ({WEIGHTS[model_type]} in it, in final/ or in"
                f" checkpoints/step-*/); to train one, run: {command}"
            )
        return folder
    runs = [run for run in Path(log_dir).glob("*/") if _model_type(run) == model_type]
    folders = [folder for run in runs if (folder := weights_folder(run, model_type))]
    if not folders:
        raise UserError(f"{log_dir}: no trained {model_type} there; to train one, run: {command}")
    return max(folders, key=lambda folder: folder.stat().st_mtime)


def read_config(folder: Path) -> Config:
    """The config that the run or checkpoint in `folder` was made with."""
    data = read_json(folder / "config.json")
    data.pop("made_with", None)  # versions and commit, for people
    return config_from_dict(data, None, str(folder / "config.json"))


def _model_type(run: Path) -> str | None:
    try:
        return read_json(run / "config.json").get("model_type")
    except UserError:
        return None
