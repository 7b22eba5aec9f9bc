"""Run folders: <log_dir>/<exp_name>/, what is in them and how one is found.

config.json  log.txt  tensorboard/  samples/  checkpoints/step-00005000/  final/
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from utils.checkpoint import Checkpoints, read_json
from utils.commands import command
from utils.errors import UserError
from utils.hub import model_folder
from utils.nearest import nearest_path

REPOSITORY = Path(__file__).resolve().parent.parent
WEIGHTS = {
    "AutoencoderKL": "vae.safetensors",
    "AudioLDM": "unet.safetensors",
    "AUDIT": "editor.safetensors",
    "Vocoder": "vocoder.safetensors",
    "LoRA": "adapter_model.safetensors",
}
VERSIONS_OF = ("torch", "transformers", "diffusers", "accelerate")
START = ("model.autoencoder_path", "train.init_from")  # where a run's first weights come from


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


def described(config: dict, **more: object) -> dict:
    """What is saved as config.json: the resolved config, and what the weights were made with."""
    return {**config, "made_with": {"commit": git_commit(), **more, **_versions()}}


@functools.cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONS_OF}


@functools.cache  # of the code that this process began with
def git_commit() -> str | None:
    """The repository's commit, "+" where files differ from it; None outside git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def check_same_model(checkpoint: Path, config: dict, shapes: Sequence[str]) -> list[str]:
    """What differs between a config and the one that a run began with, as "key: old -> new".

    Args:
        config: plain values, as they will be saved in config.json.
        shapes: dotted keys that cannot change, with all below them.

    Raises:
        UserError: one of them did.
    """
    path = checkpoint / "config.json"
    before, now = _flat(read_json(path)), _flat(config)
    without = () if "train.lora.rank" in now else START  # adapters look for their base again
    changes = {
        key: f"{key}: {before.get(key)} -> {now.get(key)}"
        + (" (without effect: a run goes on with its own weights)" if key in without else "")
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith("made_with.")
    }
    below = tuple(f"{shape}." for shape in shapes)
    # A key that the run did not know when it began says nothing of it; one below a null does.
    kept = [
        change
        for key, change in changes.items()
        if f"{key}.".startswith(below) and {key, key.rpartition(".")[0]} & before.keys()
    ]
    if kept:
        raise UserError(
            f"{path}: what this run's weights and moments are made for has changed"
            f" ({', '.join(kept)}); go on as it was, or choose another --exp_name"
        )
    return list(changes.values())


def _flat(data: dict) -> dict[str, object]:
    """{"train.adam.lr": 4e-5, ...}: every value by its dotted key."""
    flat: dict[str, object] = {}
    for name, value in data.items():
        inner = _flat(value) if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return flat


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


def all_weights(log_dir: str, model_type: str) -> list[Path]:
    """Where the weights of the runs in `log_dir` lie, the newest last."""
    runs = Path(log_dir).expanduser().glob("*/")
    folders = [folder for run in runs if (folder := weights_folder(run, model_type))]
    return sorted(folders, key=lambda folder: folder.stat().st_mtime)


def _runs_near(place: Path, log_dir: str, model_type: str) -> list[Path]:
    """Runs and folders of weights beside `place`, and those in `log_dir`."""
    folders = [*place.parent.glob("*/"), *Path(log_dir).expanduser().glob("*/")]
    return [folder for folder in folders if weights_folder(folder, model_type)]


def find_weights(path: str | None, log_dir: str, model_type: str) -> Path:
    """The folder of weights that `path` names, or that of the newest run in `log_dir`.

    `path` is a run, a folder of weights or a hub model that is such a folder.
    """
    advice = f"to train one, run: {command(model_type)}"
    if path is None:
        folders = all_weights(log_dir, model_type)
        if not folders:
            raise UserError(
                f"{log_dir}: no trained {model_type} there (where training had another log_dir,"
                f" give that one); {advice}"
            )
        return folders[-1]
    place = model_folder(os.path.expanduser(path))
    if place.is_file():
        raise UserError(
            f"{path}: must be a folder (a run, or a checkpoint in it), not a file; weights of"
            " other frameworks and pickles (.pt, .ckpt, .bin) are not loaded, but made into"
            " such a folder by: python bins/tta/convert.py import"
        )
    if not place.is_dir():
        near = nearest_path(place, _runs_near(place, log_dir, model_type))
        raise UserError(f"{path}: no such folder{near}; {advice}")
    if (place / "model_index.json").is_file():
        raise UserError(
            f"{path}: a model in diffusers' layout; make a folder of ours of it first:"
            f" python bins/tta/convert.py import --from diffusers --to DIR {quote(path)}"
        )
    folder = weights_folder(place, model_type)
    if folder is None and weights_folder(place, "LoRA"):
        raise UserError(
            f"{path}: holds adapters (LoRA), not a whole model: give them as --lora {quote(path)},"
            f" or make a whole one: python bins/tta/convert.py merge --lora {quote(path)} OUT_DIR"
        )
    if folder is None:
        raise UserError(
            f"{path}: holds no {model_type} ({WEIGHTS[model_type]} in it, in final/ or in"
            f" checkpoints/step-*/); {advice}"
        )
    return folder
