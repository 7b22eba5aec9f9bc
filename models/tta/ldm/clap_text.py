"""Texts to CLAP's embeddings, of the space that sounds have, too (arXiv:2211.06687)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.nn import functional as F
from transformers import ClapTextModelWithProjection

from models.tta.ldm.text_encoder import TextEncoder


class ClapText(TextEncoder):
    """CLAP's text half with its tokenizer: a text is one vector of length 1.

    To the rest of the program that is a text of a single token.
    """

    TYPES: ClassVar = ("clap", "clap_text_model")
    EXAMPLES: ClassVar = "laion/clap-htsat-unfused is"
    MODEL: ClassVar = ClapTextModelWithProjection

    @property
    def dim(self) -> int:
        """Width D of the text embeddings."""
        return self.model.config.projection_dim

    def _with_ends(self, words: list[int]) -> list[int]:
        """<s> text </s>, as RoBERTa has it."""
        config = self.model.config
        most = min(self.max_tokens, config.max_position_embeddings - config.pad_token_id - 1)
        return [self.tokenizer.bos_token_id, *words[: most - 2], self.tokenizer.eos_token_id]

    def forward(self, token_ids: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """token_ids and text_mask [B, L] -> [B, 1, D] float32, of length 1."""
        with torch.autocast(token_ids.device.type, enabled=False):
            found = self.model(token_ids, attention_mask=text_mask.long())
        return F.normalize(found.text_embeds, dim=-1)[:, None]

    def encode(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts -> [B, 1, D] and a mask [B, 1] of ones, on the model's device."""
        embedding, mask = super().encode(texts)
        return embedding, mask[:, :1]

    def encode_guided(
        self, texts: Sequence[str], negative: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `encode`, of the texts and, behind them, of the negative text once for each."""
        return self.encode([*texts, *([negative] * len(texts))])
