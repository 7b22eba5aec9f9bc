"""Arrays that are computed once: in blocks, resumable, shared out to processes, keyed by content.

A cache is a folder whose name holds a hash of all that its content depends on, so that a stale one
is never found. Each block is a .npy file that appears whole or not at all; a run that was stopped
goes on with the blocks that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from utils.device import fits, to_device
from utils.errors import UserError
from utils.progress import progress

if TYPE_CHECKING:
    from accelerate import Accelerator


def content_key(*parts: object) -> str:
    """Twelve hex digits that change when any part (anything JSON can hold) does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def block_path(folder: Path, block: int) -> Path:
    return folder / f"block-{block:05d}.npy"


def missing_blocks(folder: Path, blocks: int) -> list[int]:
    return [block for block in range(blocks) if not block_path(folder, block).exists()]


def compute_blocks(
    folder: Path,
    blocks: int,
    compute: Callable[[int], np.ndarray],
    accelerator: Accelerator,
    title: str,
) -> None:
    """Fills a cache folder: `compute(block)` gives the block's rows. All processes take part.

    Where another run fills the same folder, this one waits for it and uses the result. A folder
    that is complete is only read. Raises UserError where it cannot be written.
    """
    if not _of_main_process(missing_blocks(folder, blocks)):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_writer(folder) if accelerator.is_main_process else contextlib.nullcontext():
            missing = _of_main_process(missing_blocks(folder, blocks))
            mine = missing[accelerator.process_index :: accelerator.num_processes]
            quiet = not mine or not accelerator.is_main_process
            for block in progress(mine, title=title, unit="block", disable=quiet):
                _write(block_path(folder, block), compute(block))
            accelerator.wait_for_everyone()
    except OSError as error:
        raise UserError(
            f"{folder}: the cache cannot be written ({error.strerror or error}); make room, or name"
            " another folder for it: preprocess.cache_dir=DIR"
        ) from None


def _of_main_process(value: list[int]) -> list[int]:
    """The main process's `value`, in all processes."""
    return broadcast_object_list([value])[0]


def _write(path: Path, rows: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            np.save(file, rows)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half a block would fill the disk that is full
        raise


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Within the `with` block no other process writes to `folder`; waits until that is so."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log = logging.getLogger("arion")
        log.info("%s: another process is writing there; waiting for its result", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Rows:
    """The rows of all blocks of a cache as one array, mapped from disk."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.blocks = [np.load(block_path(folder, b), mmap_mode="r") for b in range(blocks)]
        self.first = np.cumsum([0, *(len(block) for block in self.blocks)])

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def take(self, numbers: np.ndarray) -> torch.Tensor:
        """The rows of these numbers, [*numbers.shape, *row shape], read into memory."""
        flat = numbers.ravel()
        inside = np.searchsorted(self.first, flat, side="right") - 1
        taken = np.empty((len(flat), *self.blocks[0].shape[1:]), self.blocks[0].dtype)
        for block in np.unique(inside):
            here = inside == block
            taken[here] = self.blocks[block][flat[here] - self.first[block]]
        return torch.from_numpy(taken.reshape(*numbers.shape, *taken.shape[1:]))

    def all(self) -> np.ndarray:
        return np.concatenate(self.blocks)


class ResidentRows:
    """The same rows, kept in the memory of a device, where they are also taken."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self.tensor = torch.from_numpy(rows.all()).to(device)

    def take(self, numbers: np.ndarray) -> torch.Tensor:
        return self.tensor[to_device(torch.from_numpy(numbers), self.tensor.device)]


def open_rows(folder: Path, blocks: int, device: torch.device) -> Rows | ResidentRows:
    """The rows of a cache for training on `device`: in its memory where they take little of it."""
    rows = Rows(folder, blocks)
    return ResidentRows(rows, device) if fits(rows.nbytes, device) else rows
