"""Folders of weights: written whole or not at all, verified, found again.

A checkpoint is <log_dir>/<exp_name>/checkpoints/step-00005000/; `state.json` in it holds the step,
the best validation loss so far, and the size of every other file. Weights and optimizers are
safetensors files: loading them runs no code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_text

STATE = "state.json"


# ---------------------------------------------------------------- tensors


def save_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Writes tensors by name; those that are not contiguous, or share memory, are copied."""
    import torch
    from safetensors.torch import save_file

    seen: set[int] = set()

    def plain(tensor):
        # channels_last weights are stored in the ordinary order, as every reader expects
        tensor = tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        address = tensor.untyped_storage().data_ptr()  # T5's embedding has two names
        tensor = tensor.clone() if address in seen else tensor
        seen.add(address)
        return tensor

    save_file({name: plain(tensor) for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors by name, or a UserError where the file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from None


def check_finite(tensors: dict[str, Any], source: Path) -> None:
    """Raises UserError where weights are no numbers, as a run that gave up leaves them."""
    if wrong := next((name for name, x in tensors.items() if not x.isfinite().all()), None):
        raise UserError(
            f"{source}: weights are not finite ({wrong}), and of no use; take an earlier"
            " checkpoint, or train anew with a smaller train.adam.lr"
        )


def load_weights(module, tensors: dict[str, Any], source: Path) -> None:
    """Loads tensors into a module.

    Keys left over or missing, other shapes, and what is no number are a UserError.
    """
    check_finite(tensors, source)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        listed = textwrap.shorten(str(error).partition(":")[2], 1000, placeholder=" ...")
        raise UserError(
            f"{source}: weights of another model than its config says: {listed}"
        ) from None


def read_weights_into(module, path: Path) -> None:
    """Loads the file `path`, which holds the weights of a module of this shape and nothing else."""
    load_weights(module, load_tensors(path), path)


def optimizer_tensors(optimizer) -> dict[str, Any]:
    """An optimizer's state as named tensors: "<parameter number>.<exp_avg, exp_avg_sq, step>"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer, tensors: dict[str, Any], source: Path) -> None:
    """The inverse of `optimizer_tensors`; learning rate and the like stay as they are.

    Files keep no strides, and the fused kernel of a GPU wants moments laid out as their weights
    are, which is channels last for convolutions.

    Raises:
        UserError: the moments are another optimizer's, or other weights'. `source` is their file.
    """
    import torch

    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, entry = name.split(".", 1)
        state.setdefault(int(number), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    matrices = {id(weight) for weight in getattr(optimizer, "matrices", ())}  # Muon's
    for number, entries in state.items():
        weight = weights[number] if number < len(weights) else None
        moments = ["momentum"] if id(weight) in matrices else ["exp_avg", "exp_avg_sq"]
        shapes = {name: value.shape for name, value in entries.items() if name != "step"}
        if weight is None or shapes != dict.fromkeys(moments, weight.shape):
            raise UserError(
                f"{source}: its moments are not those of {type(optimizer).__name__} for this"
                " model's weights; go on with the train.optimizer that the run began with, or"
                " choose another --exp_name"
            )
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)


# ---------------------------------------------------------------- folders


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that becomes `path` at the end, or leaves nothing behind on an error.

    A full disk is a UserError; what was at `path` before stays until the new folder is complete.
    """
    temporary = path.with_name(f".{path.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        readable = temporary.stat().st_mode & 0o666  # as the umask has it
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(readable)  # safetensors makes files that only their owner can read
            _to_disk(file)
        replaced = path.with_name(f".{path.name}.replaced")
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        temporary.rename(path)
        _to_disk(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # safetensors reports a full disk as an error of its own, with the system's text in it.
        if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            raise UserError(
                f"{path}: the disk is full; make room on it and run the same command again"
                " (what was saved before is untouched)"
            ) from error
        raise


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: object) -> None:
    """Writes JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type = dict, advice: str = "") -> Any:
    """What a JSON file holds, a `kind`; else a UserError, with `advice` where there is no file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON in UTF-8: {error}") from None
    if not isinstance(data, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise UserError(f"{path}: must hold {wanted}, not {type(data).__name__}")
    return data


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- checkpoints of a run


class Checkpoints:
    """The checkpoints of one run: the newest `keep` of them, and the best.

    Only real folders named exactly "step-" and eight digits are checkpoints: a user's copy
    (step-00000002-good), an archive or a link is neither counted nor removed.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def all(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return self._folders(r"step-\d{8}")

    def clear_unfinished(self) -> None:
        """Removes what a killed run left half written."""
        for path in self._folders(r"\.step-\d{8}\.(incomplete|replaced|old)"):
            shutil.rmtree(path)

    def _folders(self, pattern: str) -> list[Path]:
        paths = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        named = [path for path in paths if re.fullmatch(pattern, path.name, re.ASCII)]
        return [path for path in named if path.is_dir() and not path.is_symlink()]

    def save(self, step: int, state: dict, write: Callable[[Path], None]) -> Path:
        """Writes a checkpoint, then drops those that are neither among the newest nor the best."""
        with whole_folder(self.path(step)) as temporary:
            write(temporary)
            files = sorted(file for file in temporary.rglob("*") if file.is_file())
            sizes = {str(file.relative_to(temporary)): file.stat().st_size for file in files}
            write_json(temporary / STATE, {"step": step, **state, "files": sizes})
        self._drop_old(state.get("best_step"))
        return self.path(step)

    def keep_best(self, step: int, loss: float) -> None:
        """Notes in the checkpoint of `step` that it is the best one so far."""
        path = self.path(step) / STATE
        write_json(path, {**read_json(path), "best_step": step, "best_loss": loss})
        self._drop_old(step)

    def _drop_old(self, best: int | None) -> None:
        for old in self.all()[: -self.keep]:
            if best is None or old != self.path(best):
                going = old.with_name(f".{old.name}.old")  # a kill here leaves no half checkpoint
                old.rename(going)
                shutil.rmtree(going)

    def newest(self) -> tuple[Path, dict] | None:
        """The newest checkpoint and its state, None where there is none.

        Raises UserError where it is damaged, naming it and the one before it.
        """
        found = self.all()
        if not found:
            return None
        try:
            return found[-1], checked_state(found[-1])
        except UserError as error:
            before = f" {found[-2].name} is before it." if len(found) > 1 else ""
            raise UserError(
                f"{error}\nThe newest checkpoint is damaged.{before} To go on without it:"
                f" rm -r '{found[-1]}' and run the same command again"
            ) from None


def checked_state(checkpoint: Path) -> dict:
    """The state of a checkpoint whose files are all there in their sizes, else a UserError."""
    state = read_json(checkpoint / STATE)
    try:
        files = [(name, int(size)) for name, size in state["files"].items()]
        state["step"] = int(state["step"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{checkpoint / STATE}: not a checkpoint's state: {error!r}") from None
    for name, size in files:
        file = checkpoint / name
        if not file.is_file():
            raise UserError(f"{file}: missing")
        if file.stat().st_size != size:
            raise UserError(f"{file}: has {file.stat().st_size} bytes, not {size} as saved")
    return state
