"""Run folders: <log_dir>/<exp_name>/, what is in them and how one is found.

config.json  log.txt  tensorboard/  samples/  checkpoints/step-00005000/  final/
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import subprocess
from pathlib import Path

from config.load import config_from_dict
from config.schema import Config, MelConfig
from utils.checkpoint import Checkpoints, read_json
from utils.errors import UserError
from utils.hub import model_folder

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN_COMMANDS = {
    "AutoencoderKL": "sh egs/tta/autoencoderkl/run_train.sh",
    "AudioLDM": "sh egs/tta/audioldm/run_train.sh",
}
WEIGHTS = {"AutoencoderKL": "vae.safetensors", "AudioLDM": "unet.safetensors"}


VERSIONS_OF = ("torch", "transformers", "diffusers", "accelerate")


# ---------------------------------------------------------------- a run's own folder


def run_folder(log_dir: str, exp_name: str) -> Path:
    """<log_dir>/<exp_name>; UserError where the name would lead elsewhere."""
    if Path(exp_name).name != exp_name or exp_name in ("", ".", "..") or "\0" in exp_name:
        raise UserError(f"--exp_name {exp_name!r} must be a plain folder name")
    return Path(log_dir) / exp_name


def finished_at(folder: Path) -> int | None:
    """The step at which a run wrote final/; None where it did not yet."""
    path = folder / "final" / "config.json"
    made_with = read_json(path).get("made_with") if path.is_file() else None
    return made_with.get("step") if isinstance(made_with, dict) else None


def claim(folder: Path) -> None:
    """Makes the run's folder this process's own until it ends, however that happens.

    Raises UserError where another training is at work in it.
    """
    # The lock lives as long as this.
    handle = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f"{folder}: another training is at work there; wait for it, or choose another"
                " --exp_name"
            ) from None  # other errors: a file system without locks


def described(config: Config, step: int) -> dict:
    """What is saved as config.json: the resolved config, and what the weights were made with."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {**config.to_dict(), "made_with": {"commit": git_commit(), "step": step, **versions}}


def git_commit() -> str | None:
    """The repository's commit, "+" where files differ from it; None outside git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def check_same_model(checkpoint: Path, config: Config) -> None:
    """A run goes on with the model and the mel that it began with, else UserError."""
    path = checkpoint / "config.json"
    before, now = read_json(path), config.to_dict()
    changed = different_keys(before.get("model_type"), now["model_type"], "model_type")
    changed |= different_keys(before.get("model"), now["model"], "model")
    for name in MelConfig.__dataclass_fields__:
        key = f"preprocess.{name}"
        changed |= different_keys(before["preprocess"][name], now["preprocess"][name], key)
    changed -= {"model.autoencoder_path"}  # a copy of that VAE is in the checkpoint
    if changed:
        raise UserError(
            f"{path}: this run was started with another {', '.join(sorted(changed))}; go on with"
            " that, or choose another --exp_name"
        )


def different_keys(before: object, now: object, path: str) -> set[str]:
    """Dotted paths of the keys whose values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return set().union(
            *(different_keys(before.get(k), now.get(k), f"{path}.{k}") for k in keys)
        )
    return set() if before == now else {path}


# ---------------------------------------------------------------- other runs' weights


def weights_folder(path: Path, model_type: str) -> Path | None:
    """Where the weights lie in a run or a folder of them.

    In a run that is final/, or the newest checkpoint where the run went on since.
    """
    if (path / WEIGHTS[model_type]).is_file():
        return path
    found = Checkpoints(path / "checkpoints", keep=1).all()
    newest = found[-1] if found else None
    if (path / "final" / WEIGHTS[model_type]).is_file():
        step = finished_at(path)
        if newest is None or step is None or newest.name <= f"step-{step:08d}":
            return path / "final"
    return newest if newest and (newest / WEIGHTS[model_type]).is_file() else None


def find_weights(path: str | None, log_dir: str, model_type: str) -> Path:
    """The folder of weights that `path` names, or that of the newest run in `log_dir`.

    `path` is a run, a folder of weights or a hub model that is such a folder.
    """
    command = TRAIN_COMMANDS[model_type]
    if path is not None:
        place = model_folder(path)
        if place.is_file():
            raise UserError(
                f"{path}: must be a folder (a run, or a checkpoint in it), not a file; weights of"
                " other frameworks and pickles (.pt, .ckpt, .bin) are not loaded, but made into"
                " such a folder by: python bins/tta/convert.py import"
            )
        if not place.is_dir():
            raise UserError(f"{path}: no such folder; to train one, run: {command}")
        if (place / "model_index.json").is_file():
            raise UserError(
                f"{path}: a model in diffusers' layout; make a folder of ours of it first:"
                f" python bins/tta/convert.py import --from diffusers --to DIR {path}"
            )
        folder = weights_folder(place, model_type)
        if folder is None:
            raise UserError(
                f"{path}: holds no {model_type} ({WEIGHTS[model_type]} in it, in final/ or in"
                f" checkpoints/step-*/); to train one, run: {command}"
            )
        return folder
    runs = Path(log_dir).glob("*/")
    folders = [folder for run in runs if (folder := weights_folder(run, model_type))]
    if not folders:
        raise UserError(f"{log_dir}: no trained {model_type} there; to train one, run: {command}")
    return max(folders, key=lambda folder: folder.stat().st_mtime)


def read_config(folder: Path) -> Config:
    """The config that the run or checkpoint in `folder` was made with."""
    data = read_json(folder / "config.json")
    data.pop("made_with", None)  # versions and commit, for people
    return config_from_dict(data, None, str(folder / "config.json"))
