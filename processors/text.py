"""caption -> text embedding, once: the frozen T5's states of all captions, without pads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from processors.cache import Rows, compute_blocks, content_key

CAPTIONS_PER_BLOCK = 1024
CAPTIONS_PER_BATCH = 64
PAD_TO = 8  # captions are padded to a multiple of this, so that few shapes occur


@dataclasses.dataclass(frozen=True)
class TextCache:
    """States of all captions: rows [D] float16, one per token; caption 0 is the empty prompt."""

    rows: Rows
    first: np.ndarray  # [captions + 1]: tokens of caption c are first[c]..first[c + 1]
    index: dict[str, int]

    def batch(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """text_emb [B, L, D] float16 and text_mask [B, L] bool, zeros behind each caption."""
        numbers = [self.index[caption] for caption in captions]
        return packed([self.rows.span(int(self.first[n]), int(self.first[n + 1])) for n in numbers])


@dataclasses.dataclass(frozen=True)
class ComputedText:
    """What a TextCache gives, computed each time, where nothing may be written."""

    text_encoder: torch.nn.Module

    def batch(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return packed(encode_captions(self.text_encoder, captions))


def packed(states: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """States [tokens, D] of each caption -> text_emb [B, L, D] float16 and text_mask [B, L]."""
    longest = max(len(rows) for rows in states)
    length = -(-longest // PAD_TO) * PAD_TO
    text_emb = np.zeros((len(states), length, states[0].shape[1]), np.float16)
    text_mask = np.zeros((len(states), length), bool)
    for i, rows in enumerate(states):
        text_emb[i, : len(rows)] = rows
        text_mask[i, : len(rows)] = True
    return torch.from_numpy(text_emb), torch.from_numpy(text_mask)


@torch.inference_mode()
def encode_captions(text_encoder, captions: Sequence[str]) -> list[np.ndarray]:
    """States [tokens, D] float16 of each caption."""
    states, mask = text_encoder.encode(captions)
    return [rows[kept.bool()].half().cpu().numpy() for rows, kept in zip(states, mask, strict=True)]


def build_text_cache(
    folder: Path | None, captions: Sequence[str], text_encoder, fingerprint: str, accelerator
) -> TextCache | ComputedText:
    """Encodes every distinct caption and the empty prompt, or finds that it was done before.

    Without a folder each caption is encoded when it is used.
    """
    if folder is None:
        return ComputedText(text_encoder)
    distinct = ["", *sorted(set(captions) - {""})]
    here = folder / f"text-{content_key(fingerprint, text_encoder.max_tokens, distinct)}"
    lengths = []
    for i in range(0, len(distinct), CAPTIONS_PER_BLOCK):
        _, mask = text_encoder.tokenize(distinct[i : i + CAPTIONS_PER_BLOCK])
        lengths += mask.sum(1).tolist()

    def encode(block: int) -> np.ndarray:
        rows: list[np.ndarray] = []
        chosen = distinct[block * CAPTIONS_PER_BLOCK : (block + 1) * CAPTIONS_PER_BLOCK]
        for i in range(0, len(chosen), CAPTIONS_PER_BATCH):
            rows += encode_captions(text_encoder, chosen[i : i + CAPTIONS_PER_BATCH])
        return np.concatenate(rows)

    blocks = -(-len(distinct) // CAPTIONS_PER_BLOCK)
    compute_blocks(here, blocks, encode, accelerator, "encoding captions")
    first = np.cumsum([0, *lengths])
    return TextCache(Rows(here, blocks), first, {text: n for n, text in enumerate(distinct)})
