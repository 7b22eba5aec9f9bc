"""Attention over the places of a feature map, and from them to the words of a text.

Parameters carry the names that diffusers gives them, so that weights are interchangeable. In
channels_last, a feature map [B, C, H, W] is a sequence [B, HW, C] without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from modules.resnet import Norm


class KeysValues(NamedTuple):
    """What attention looks things up in, split into heads: two of [B, heads, L, C / heads]."""

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None = None  # [B, 1, 1, L], True on what may be seen


def to_sequence(x: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W] -> [B, HW, C]"""
    return x.flatten(2).transpose(1, 2)


def to_map(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B, HW, C] -> [B, C, H, W], in channels_last where x is contiguous."""
    return x.transpose(1, 2).unflatten(2, (height, width))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None):
    """Scaled dot-product attention, q, k, v [B, heads, N or L, C]; in float32 on a CPU.

    There the kernel takes five times as long in half precision, at the few hundred places of a
    latent.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return out.to(q.dtype)


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d)) V per head (Vaswani et al. 2017, eq. 1).

    Args:
        channels: of the queries and of the output.
        heads: the number of heads, which divides `channels`.
        context_channels: of what is attended to; None: the queries' own sequence.
        bias: whether the projections to queries, keys and values have one.
    """

    def __init__(
        self, channels: int, heads: int, context_channels: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def keys_values(self, context: torch.Tensor, mask: torch.Tensor | None = None) -> KeysValues:
        """context [B, L, context_channels], mask [B, 1, 1, L] -> keys and values for `forward`."""
        return KeysValues(self._split(self.to_k(context)), self._split(self.to_v(context)), mask)

    def forward(self, x: torch.Tensor, kv: KeysValues) -> torch.Tensor:
        """x [B, N, C] -> [B, N, C]"""
        out = attend(self._split(self.to_q(x)), *kv)
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> [B, heads, N, C / heads]"""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class MapAttention(Attention):
    """One-headed self-attention over a feature map, with norm and residual: the autoencoder's."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = norm.over(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W] -> [B, C, H, W]"""
        h = to_sequence(self.group_norm(x))
        h = super().forward(h, self.keys_values(h))
        return x + to_map(h, *x.shape[2:])


class GatedProjection(nn.Module):
    """GEGLU: a x GELU(b), a and b linear in x (Shazeer 2020, eq. 6)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, N, C] -> [B, N, hidden]"""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The middle place is diffusers' dropout, which is none here: the names need the index.
        self.net = nn.Sequential(
            GatedProjection(channels, 4 * channels),
            nn.Identity(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text and feed-forward, each normed before and residual.

    Without `text_channels` the second attention is one to itself, too.
    """

    def __init__(self, channels: int, heads: int, text_channels: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, text_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: torch.Tensor, text: KeysValues | None) -> torch.Tensor:
        """x [B, N, C] -> [B, N, C]"""
        h = self.norm1(x)
        x = x + self.attn1(h, self.attn1.keys_values(h))
        h = self.norm2(x)
        x = x + self.attn2(h, self.attn2.keys_values(h) if text is None else text)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the places of a feature map (Rombach et al. 2022, appendix E.2.1).

    Args:
        text_channels: of the text; None: there is none to attend to.
        linear: whether the map goes in and out by matrices, or by 1x1 convolutions, which are the
            same but for the shape of their weights.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        text_channels: int | None,
        depth: int,
        norm: Norm,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm.over(channels)
        self.linear = linear
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, text_channels) for _ in range(depth)
        )
        self.proj_out = (
            nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        )

    def text_keys_values(
        self, text_emb: torch.Tensor | None, mask: torch.Tensor | None
    ) -> list[KeysValues | None]:
        """text_emb [B, L, D], mask [B, 1, 1, L] -> what each block's attention looks up."""
        if text_emb is None:
            return [None] * len(self.transformer_blocks)
        return [block.attn2.keys_values(text_emb, mask) for block in self.transformer_blocks]

    def forward(self, x: torch.Tensor, text: list[KeysValues | None]) -> torch.Tensor:
        """x [B, C, H, W], text from `text_keys_values` -> [B, C, H, W]"""
        h, size = self.norm(x), x.shape[2:]
        h = self.proj_in(to_sequence(h)) if self.linear else to_sequence(self.proj_in(h))
        for block, kv in zip(self.transformer_blocks, text, strict=True):
            h = block(h, kv)
        return x + (
            to_map(self.proj_out(h), *size) if self.linear else self.proj_out(to_map(h, *size))
        )
