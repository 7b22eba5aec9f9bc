"""Random numbers that depend on (seed, what for, when) and on nothing that happened before."""

from __future__ import annotations

import zlib

import numpy as np


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose at one place, such as ("noise", step)."""
    entropy = [seed, zlib.crc32(purpose.encode()), *numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(device, seed: int, purpose: str, *numbers: int):
    """A torch.Generator on `device` with the derived seed."""
    import torch

    return torch.Generator(device).manual_seed(derived_seed(seed, purpose, *numbers))
