"""Arrays that are computed once: in blocks, resumable, shared out to processes, keyed by content.

A cache is a folder whose name holds a hash of all that its content depends on, so that a stale one
is never found. Each block is a .npy file that appears whole or not at all; a run that was stopped
goes on with the blocks that are missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from utils.device import fits, to_device
from utils.files import one_writer, remove_unfinished, write_array
from utils.progress import progress

if TYPE_CHECKING:
    from accelerate import Accelerator

MOST_BLOCKS = 256  # of a cache: each is an open file in every process
MAKE_ROOM = "make room, or name another folder for the cache: preprocess.cache_dir=DIR"
Item = TypeVar("Item")


def content_key(*parts: object) -> str:
    """Twelve hex digits that change when any part (anything JSON can hold) does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _block_paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"block-{block:05d}.npy" for block in range(count)]


@contextlib.contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """The other processes of a machine run the `with` block when the first one has.

    So they do where it raises, and come to the same error by themselves.
    """
    first = accelerator.is_local_main_process
    if not first:
        accelerator.wait_for_everyone()
    try:
        yield
    finally:
        if first:
            accelerator.wait_for_everyone()


def rows_per_block(items: int, least: int) -> int:
    """How many items make a block: `least`, or as many more as leave `MOST_BLOCKS` blocks."""
    return max(least, -(-items // MOST_BLOCKS))


def compute_rows(
    folder: Path,
    items: Sequence[Item],
    least: int,
    compute: Callable[[Sequence[Item]], np.ndarray],
    accelerator: Accelerator,
    title: str,
) -> Rows:
    """The rows that `compute` makes of the items of each block. All processes take part.

    A block is of `least` items, or of more where there are very many.
    Blocks that are in the cache folder are not computed again. Where another run fills the same
    folder, this one waits for it and uses the result. A folder that is complete is only read.
    Raises UserError where it cannot be written.
    """
    per_block = rows_per_block(len(items), least)
    paths = _block_paths(folder, -(-len(items) // per_block))

    def missing_blocks() -> list[int]:
        """As the main process sees them."""
        missing = [block for block, path in enumerate(paths) if not path.exists()]
        return broadcast_object_list([missing])[0]

    main = accelerator.is_main_process
    if missing_blocks():
        with one_writer(folder, MAKE_ROOM) if main else contextlib.nullcontext():
            if main:
                remove_unfinished(folder)
            missing = missing_blocks()
            mine = missing[accelerator.process_index :: accelerator.num_processes]
            for block in progress(mine, title=title, unit="block", disable=not (main and mine)):
                first = block * per_block
                write_array(paths[block], compute(items[first : first + per_block]))
            accelerator.wait_for_everyone()
    return Rows(paths, accelerator.device)


class Rows:
    """The rows of all blocks as one array, mapped from disk.

    They are in the memory of `device` where it is a GPU and they take little of it.
    """

    def __init__(self, paths: Sequence[Path], device: torch.device) -> None:
        self.blocks = [np.load(path, mmap_mode="r") for path in paths]
        self.first = np.cumsum([0, *(len(block) for block in self.blocks)])
        self.resident = None
        if fits(sum(block.nbytes for block in self.blocks), device):
            self.resident = torch.from_numpy(np.concatenate(self.blocks)).to(device)

    def take(self, numbers: np.ndarray) -> torch.Tensor:
        """The rows of these numbers, [*numbers.shape, *row shape], in memory or on the device."""
        if self.resident is not None:
            return self.resident[to_device(torch.from_numpy(numbers), self.resident.device)]
        flat = numbers.ravel()
        inside = np.searchsorted(self.first, flat, side="right") - 1
        taken = np.empty((len(flat), *self.blocks[0].shape[1:]), self.blocks[0].dtype)
        for block in np.unique(inside):
            here = inside == block
            taken[here] = self.blocks[block][flat[here] - self.first[block]]
        return torch.from_numpy(taken.reshape(*numbers.shape, *taken.shape[1:]))
