"""caption -> text embedding, once: the frozen T5's states of all captions, without pads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from processors.cache import Rows, compute_rows, content_key
from processors.json_lines import digest_of
from utils.device import to_device

if TYPE_CHECKING:
    from accelerate import Accelerator

CAPTIONS_PER_BLOCK = 1024
CAPTIONS_PER_BATCH = 64
SHORTEST = 16  # tokens that a batch of texts is padded to


def padded_length(longest: int) -> int:
    """The length [tokens] that texts are padded to: 16, 32, 64, ..., so that few shapes occur."""
    return max(SHORTEST, 1 << (longest - 1).bit_length())


@dataclasses.dataclass(frozen=True)
class TextCache:
    """States of all captions: rows [D] float16, one per token."""

    rows: Rows
    first: np.ndarray  # [captions + 1]: tokens of caption c are first[c]..first[c + 1]

    def batch(self, captions: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """text_emb [B, L, D] float16 and text_mask [B, L] bool, zeros behind each caption."""
        numbers = np.asarray(captions)
        first, lengths = self.first[numbers], self.first[numbers + 1] - self.first[numbers]
        place = np.arange(padded_length(int(lengths.max())))
        mask = place < lengths[:, None]
        text_emb = self.rows.take(np.where(mask, first[:, None] + place, 0))
        text_mask = to_device(torch.from_numpy(mask), text_emb.device)
        return text_emb.masked_fill_(~text_mask[..., None], 0), text_mask


def build_text_cache(
    folder: Path,
    captions: Sequence[str],
    text_encoder: nn.Module,
    fingerprint: str,
    accelerator: Accelerator,
) -> TextCache:
    """Encodes these captions, no two alike, or finds that it was done before."""
    key = content_key(fingerprint, text_encoder.max_tokens, digest_of(captions))
    here = folder / f"text-{key}"

    def count(chosen: Sequence[str]) -> np.ndarray:
        return text_encoder.tokenize(chosen)[1].sum(1).numpy()

    @torch.inference_mode()
    def encode(chosen: Sequence[str]) -> np.ndarray:
        rows = []
        for i in range(0, len(chosen), CAPTIONS_PER_BATCH):
            states, mask = text_encoder.encode(chosen[i : i + CAPTIONS_PER_BATCH])
            rows.append(states[mask].half().cpu().numpy())
        return np.concatenate(rows)

    tokens, rows = (
        compute_rows(place, captions, CAPTIONS_PER_BLOCK, of, accelerator, title)
        for place, of, title in (
            (here / "tokens", count, "counting tokens"),
            (here, encode, "encoding captions"),
        )
    )
    first = np.cumsum(np.concatenate([np.zeros(1, np.int64), *tokens.blocks]))
    return TextCache(rows, first)
