"""Files of published weights as named tensors; reading them runs no code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from utils.checkpoint import load_tensors
from utils.errors import UserError


def read_weights(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a pickle of torch.save (read with weights_only).

    Args:
        path: the file.
        entry: where in the pickle the tensors lie, as "model" in {"model": ..., "step": ...};
            None: at the top.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    data = read_pickle(path)
    if entry is not None:
        if not isinstance(data, dict) or entry not in data:
            found = ", ".join(map(str, list(data)[:8])) if isinstance(data, dict) else type(data)
            raise UserError(f"{path}: must hold {{{entry!r}: weights}}; it holds {found}")
        data = data[entry]
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}: must hold named weights, not {type(data).__name__}")
    strays = [n for n, v in data.items() if not (isinstance(n, str) and isinstance(v, Tensor))]
    if strays:
        raise UserError(f"{path}: not all of it are named tensors: {', '.join(map(str, strays))}")
    return data


def read_pickle(path: Path) -> object:
    """What torch.save wrote; a UserError where it needs more than tensors and plain values."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        # Mapped, so that optimizers which lie beside the weights are never read.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # Half of a file, or something else under its name, can make the unpickler raise anything.
    except Exception as error:
        reason = str(error).strip().splitlines()
        wanted = next((line.strip() for line in reason if "GLOBAL" in line), None)
        if wanted is None:
            raise UserError(f"{path}: not a file of torch.save: {(reason or [''])[0]}") from None
        raise UserError(
            f"{path}: refused, since it holds more than tensors and plain values ({wanted}) and"
            " opening such a pickle can run code that is in it. Where you trust its source, keep"
            " its tensors alone, with a torch of your own: x = torch.load(OLD,"
            " weights_only=False); then torch.save of x with the entries dropped that are neither"
            " weights nor numbers; and import that file"
        ) from None
