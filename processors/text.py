"""caption -> text embedding, once: the frozen T5's states of all captions, packed by true length."""

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
        spans = [(int(self.first[n]), int(self.first[n + 1])) for n in numbers]
        longest = max(stop - start for start, stop in spans)
        length = -(-longest // PAD_TO) * PAD_TO
        states = np.zeros((len(spans), length, self.rows.blocks[0].shape[1]), np.float16)
        mask = np.zeros((len(spans), length), bool)
        for i, (start, stop) in enumerate(spans):
            states[i, : stop - start] = self.rows.span(start, stop)
            mask[i, : stop - start] = True
        return torch.from_numpy(states), torch.from_numpy(mask)


def build_text_cache(
    folder: Path, captions: Sequence[str], text_encoder, fingerprint: str, accelerator
) -> TextCache:
    """Encodes every distinct caption and the empty prompt, or finds that it was done before."""
    distinct = ["", *sorted(set(captions) - {""})]
    here = folder / f"text-{content_key(fingerprint, text_encoder.max_tokens, distinct)}"
    lengths = []
    for i in range(0, len(distinct), CAPTIONS_PER_BLOCK):
        _, mask = text_encoder.tokenize(distinct[i : i + CAPTIONS_PER_BLOCK])
        lengths += mask.sum(1).tolist()

    @torch.inference_mode()
    def encode(block: int) -> np.ndarray:
        rows = []
        chosen = distinct[block * CAPTIONS_PER_BLOCK : (block + 1) * CAPTIONS_PER_BLOCK]
        for i in range(0, len(chosen), CAPTIONS_PER_BATCH):
            states, mask = text_encoder.encode(chosen[i : i + CAPTIONS_PER_BATCH])
            rows.append(states[mask.bool()].half().cpu().numpy())
        return np.concatenate(rows)

    blocks = -(-len(distinct) // CAPTIONS_PER_BLOCK)
    compute_blocks(here, blocks, encode, accelerator, "encoding captions")
    first = np.cumsum([0, *lengths])
    return TextCache(Rows(here, blocks), first, {text: n for n, text in enumerate(distinct)})
