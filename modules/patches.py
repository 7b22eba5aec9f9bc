"""Latents as maps of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def to_patches(latent: torch.Tensor, size: int) -> torch.Tensor:
    """[B, C, h, w] -> [B, C size^2, h / size, w / size], rounded up: zeros fill the last patches.

    As in DiT (Peebles & Xie 2023, arXiv:2212.09748): `size`^2 times fewer places to compute.
    """
    height, width = latent.shape[2:]
    return F.pixel_unshuffle(F.pad(latent, (0, -width % size, 0, -height % size)), size)


def from_patches(patches: torch.Tensor, size: int, shape: torch.Size) -> torch.Tensor:
    """The inverse of `to_patches` for a latent of height and width `shape`."""
    return F.pixel_shuffle(patches, size)[:, :, : shape[0], : shape[1]]
