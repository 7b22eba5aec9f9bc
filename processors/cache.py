"""Arrays that are computed once: in blocks, resumable, shared out to processes, keyed by content.

A cache is a folder whose name holds a hash of all that its content depends on, so that a stale one
is never found. Each block is a .npy file that appears whole or not at all; a run that was stopped
goes on with the blocks that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np


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
    accelerator,
    title: str,
) -> None:
    """Fills a cache folder: `compute(block)` gives the block's rows. All processes take part."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    missing = missing_blocks(folder, blocks)
    accelerator.wait_for_everyone()  # all processes have the same list before the first new block
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    quiet = not mine or not accelerator.is_main_process
    for block in tqdm(mine, desc=title, unit="block", disable=quiet):
        temporary = folder / f"block-{block:05d}.tmp"
        with open(temporary, "wb") as file:
            np.save(file, compute(block))
        os.replace(temporary, block_path(folder, block))
    accelerator.wait_for_everyone()


class Rows:
    """The rows of all blocks of a cache as one array, mapped from disk."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.blocks = [np.load(block_path(folder, b), mmap_mode="r") for b in range(blocks)]
        self.first = np.cumsum([0, *(len(block) for block in self.blocks)])

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def __getitem__(self, row: int) -> np.ndarray:
        block = int(np.searchsorted(self.first, row, side="right")) - 1
        return self.blocks[block][row - self.first[block]]

    def span(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop, which lie in one block."""
        block = int(np.searchsorted(self.first, start, side="right")) - 1
        return self.blocks[block][start - self.first[block] : stop - self.first[block]]

    def all(self) -> np.ndarray:
        return np.concatenate(self.blocks)
