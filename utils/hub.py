"""Models by name: a folder here, or one on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from utils.errors import UserError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)*")  # owner/model, or a folder in it
SAFE = ("*.safetensors", "*.json", "*.txt", "*.model")  # weights, settings, tokenizers


def model_folder(name: str, patterns: tuple[str, ...] = SAFE) -> Path:
    """The folder `name`; where there is none and it can be a hub model's, that one, fetched.

    Args:
        name: a path, "owner/model" or "owner/model/folder".
        patterns: which of a hub model's files are wanted.

    Raises:
        UserError: the hub has no such model or cannot be reached.
    """
    path = Path(name)
    # With a folder of that name here, the rest of a path is more likely mistyped than on the hub.
    if path.exists() or Path(path.parts[0]).exists() or not HUB_NAME.fullmatch(name):
        return path
    from huggingface_hub import snapshot_download

    owner, model, *inner = path.parts
    start = "/".join([*inner, ""])
    try:
        root = snapshot_download(
            f"{owner}/{model}", allow_patterns=[start + pattern for pattern in patterns]
        )
    # Network, permission and naming errors of several libraries, without a common base.
    except Exception as error:
        raise UserError(
            f"{name}: no such folder here, and the hub does not give it: {_line(error)}\nWithout a"
            " network, give a folder in place of the name"
        ) from error
    return Path(root, *inner)


def push(folder: Path, name: str) -> str:
    """Uploads a folder as the hub model `name`; returns its address."""
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, exist_ok=True)
        HfApi().upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:
        raise UserError(
            f"--push_to_hub {name}: the hub does not take it: {_line(error)}\nThe folder is"
            f" complete, use it as it is: {folder}\nTo upload it later: hf auth login; hf upload"
            f" {name} '{folder}'"
        ) from error
    return f"https://huggingface.co/{name}"


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
