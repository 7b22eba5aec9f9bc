"""Stage 2's network: what noise is in a latent, given the time and a text (Rombach et al. 2022).

Parameters carry the names of diffusers' UNet2DConditionModel, so that weights are interchangeable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from config.model_schema import UNetConfig
from models.tta.ldm.input_skip import InputSkip
from models.tta.ldm.noise_schedule import NoiseSchedule
from modules.attention import KeysValues, SpatialTransformer
from modules.patches import from_patches, to_patches
from modules.resnet import Downsample, Norm, ResnetBlock, Upsample
from modules.time_embedding import TimeEmbedding

EPS = 1e-5  # of the residual blocks' group norms
TRANSFORMER_EPS = 1e-6


# For each attention of a level what `SpatialTransformer` wants.
LevelText = list[list[KeysValues | None]]


class TextContext(NamedTuple):
    """A text as the U-Net's levels look it up: made once, good for every step of a sampler."""

    down: list[LevelText]
    middle: LevelText
    up: list[LevelText]
    embedding: torch.Tensor | None = None  # [B, time_width], goes along with the time's


def time_width(config: UNetConfig) -> int:
    """Of the time embedding: four times the width of the highest level."""
    return 4 * config.model_channels * config.channel_mult[0]


def block_embedding_width(config: UNetConfig) -> int:
    """Of what the residual blocks are told: the time, and beside it a text of one vector."""
    return time_width(config) * (1 if config.class_embed_dim is None else 2)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by an attention where there are any.

    With `gradient_checkpointing`, what happens inside a block is computed again in the backward
    pass and not kept.
    """

    gradient_checkpointing = False

    def __init__(
        self, config: UNetConfig, level: int, widths_in: list[int], attention: bool
    ) -> None:
        super().__init__()
        width, time_channels = config.width(level), block_embedding_width(config)
        norm = Norm(config.norm_groups, EPS)
        self.resnets = nn.ModuleList(
            ResnetBlock(width_in, width, norm, time_channels) for width_in in widths_in
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(
                width,
                config.at_level("num_heads", level),
                config.context_dim,
                config.at_level("transformer_depth", level),
                Norm(config.norm_groups, TRANSFORMER_EPS),
                config.linear_projections,
            )
            for _ in widths_in
            if attention
        )

    def text_keys_values(
        self, text_emb: torch.Tensor | None, mask: torch.Tensor | None
    ) -> LevelText:
        """text_emb [B, L, D], mask [B, 1, 1, L], True on tokens; None: no text is attended to."""
        return [attention.text_keys_values(text_emb, mask) for attention in self.attentions]

    def run(self, block: nn.Module, *inputs) -> torch.Tensor:
        """block(*inputs), checkpointed if that is asked for and there will be a backward pass."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # No block draws random numbers, so their state need not be kept.
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)

    def step(
        self, index: int, x: torch.Tensor, time_emb: torch.Tensor, text: LevelText
    ) -> torch.Tensor:
        """x [B, C_in, H, W] -> [B, C, H, W] by the residual block `index` and its attention."""
        x = self.run(self.resnets[index], x, time_emb)
        if self.attentions:
            x = self.run(self.attentions[index], x, text[index])
        return x


class DownLevel(Level):
    """A level on the way down; the lowest is not halved."""

    def __init__(self, config: UNetConfig, level: int, width_in: int) -> None:
        width = config.width(level)
        widths_in = [width_in] + [width] * (config.num_res_blocks - 1)
        super().__init__(config, level, widths_in, config.attends(level))
        last = level == config.lowest
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width, pad_end=False)])

    def forward(
        self, x: torch.Tensor, time_emb: torch.Tensor, text: LevelText
    ) -> list[torch.Tensor]:
        """x [B, C_in, H, W] -> the skips of this level; the last of them goes on."""
        skips = []
        for index in range(len(self.resnets)):
            x = self.step(index, x, time_emb, text)
            skips.append(x)
        for downsample in self.downsamplers:
            skips.append(downsample(x))
        return skips


class MiddleLevel(Level):
    """Two residual blocks and one attention, between them."""

    def __init__(self, config: UNetConfig) -> None:
        width = config.width(config.lowest)
        super().__init__(config, config.lowest, [width], attention=True)
        norm = Norm(config.norm_groups, EPS)
        self.resnets.append(ResnetBlock(width, width, norm, block_embedding_width(config)))

    def forward(self, x: torch.Tensor, time_emb: torch.Tensor, text: LevelText) -> torch.Tensor:
        """x [B, C, H, W] -> [B, C, H, W]"""
        x = self.step(0, x, time_emb, text)
        return self.run(self.resnets[1], x, time_emb)


class UpLevel(Level):
    """A level on the way up, where each residual block also gets a skip.

    Args:
        width_in: of what comes from below.
        widths_skip: of the skips, in the order of use.
    """

    def __init__(
        self,
        config: UNetConfig,
        level: int,
        width_in: int,
        widths_skip: list[int],
    ) -> None:
        width = config.width(level)
        widths = [width_in] + [width] * (len(widths_skip) - 1)
        widths_in = [width + skip for width, skip in zip(widths, widths_skip, strict=True)]
        super().__init__(config, level, widths_in, config.attends(level))
        crop_last = config.odd_sizes == "crop"
        self.upsamplers = nn.ModuleList([Upsample(width, crop_last)] if level else [])

    def forward(
        self,
        x: torch.Tensor,
        skips: list[torch.Tensor],
        time_emb: torch.Tensor,
        text: LevelText,
    ) -> torch.Tensor:
        """x [B, C_in, H, W] -> [B, C, *size of the next skip]; takes skips from the end."""
        for index in range(len(self.resnets)):
            x = torch.cat([x, skips.pop()], dim=1)
            x = self.step(index, x, time_emb, text)
        for upsample in self.upsamplers:
            x = upsample(x, skips[-1].shape[2:])
        return x


def _zero(module: nn.Conv2d) -> None:
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)


class UNet(nn.Module):
    """The denoiser. At the start of training it gives 0, and each of its blocks the identity.

    `schedule` is that of the noise, which an `input_skip` has to know.
    """

    def __init__(self, config: UNetConfig, schedule: NoiseSchedule | None = None) -> None:
        super().__init__()
        widths = [config.width(level) for level in range(config.lowest + 1)]
        self.patch_size = config.patch_size
        values = config.patch_size**2  # of a channel of the latent in a place
        self.conv_in = nn.Conv2d(config.in_channels * values, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], time_width(config), config.span_embedding)
        self.pooled_text = config.pooled_text
        vector = config.context_dim if config.pooled_text else config.class_embed_dim
        self.class_embedding = nn.Linear(vector, time_width(config)) if vector else None
        self.down_blocks = nn.ModuleList()
        widths_skip = [widths[0]]
        for level, width in enumerate(widths):
            self.down_blocks.append(DownLevel(config, level, widths_skip[-1]))
            widths_skip += [width] * (config.num_res_blocks + (level < config.lowest))
        self.mid_block = MiddleLevel(config)
        self.up_blocks = nn.ModuleList()
        width_in = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            used = [widths_skip.pop() for _ in range(config.num_res_blocks + 1)]
            self.up_blocks.append(UpLevel(config, level, width_in, used))
            width_in = width
        self.conv_norm_out = Norm(config.norm_groups, EPS).over(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels * values, 3, padding=1)
        self.input_skip = InputSkip(config, widths[0], schedule) if config.input_skip else None
        self._initialise()

    def _initialise(self) -> None:
        """Zeros where a block's branch joins, and at the end (Dhariwal & Nichol 2021's code)."""
        for module in self.modules():
            if isinstance(module, ResnetBlock):
                _zero(module.conv2)
            elif isinstance(module, SpatialTransformer):
                _zero(module.proj_out)
        _zero(self.conv_out)
        if self.input_skip is not None:
            _zero(self.input_skip.gate)
        if self.time_embedding.cond_proj is not None:
            nn.init.zeros_(self.time_embedding.cond_proj.weight)

    def enable_gradient_checkpointing(self, enabled: bool) -> None:
        """Whether to save memory in training by computing each block twice."""
        for level in (*self.down_blocks, self.mid_block, *self.up_blocks):
            level.gradient_checkpointing = enabled

    def set_precision(self, dtype: torch.dtype) -> None:
        """Weights in `dtype`, for inference; time embedding and schedule stay in float32."""
        for name, module in self.named_children():
            if name != "time_embedding":
                (module.gate if name == "input_skip" else module).to(dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return self.conv_in.weight.dtype

    def prepare_text(self, text_emb: torch.Tensor, text_mask: torch.Tensor) -> TextContext:
        """text_emb [B, L, D], text_mask [B, L] (1 on tokens, at least one) -> `context`.

        With `class_embed_dim`, the text is its first vector and goes beside the time; the
        attentions that look up a text elsewhere then look at the map itself (Liu et al. 2023,
        arXiv:2301.12503). With `pooled_text`, the mean over the text's tokens is added to the time,
        beside the attentions (as SDXL does with its text's vector: Podell et al. 2023,
        arXiv:2307.01952, section 2.1).
        """
        text_emb = text_emb.to(self._dtype)
        text, embedding = (text_emb, text_mask.bool()[:, None, None, :]), None
        if self.pooled_text:
            weights = text_mask.to(text_emb)[..., None]
            embedding = self.class_embedding((weights * text_emb).sum(1) / weights.sum(1))
        elif self.class_embedding is not None:
            text, embedding = (None, None), self.class_embedding(text_emb[:, 0])
        return TextContext(
            down=[level.text_keys_values(*text) for level in self.down_blocks],
            middle=self.mid_block.text_keys_values(*text),
            up=[level.text_keys_values(*text) for level in self.up_blocks],
            embedding=embedding,
        )

    def forward(
        self,
        latent: torch.Tensor,
        timesteps: torch.Tensor,
        text_emb: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        context: TextContext | None = None,
    ) -> torch.Tensor:
        """What the noise scheduler's prediction type names: the noise, v, or a flow's velocity.

        Args:
            latent: [B, in_channels, h, w], noisy, of any size; of an editor, with the source's
                latent behind it.
            timesteps: [B]; or [B, 2] where a step begins and ends, of which the network hears with
                `span_embedding`, and then gives its mean velocity.
            text_emb, text_mask: [B, L, D] and [B, L]; or
            context: what `prepare_text` made of them, which saves time from the second step on.

        Returns:
            [B, out_channels, h, w]
        """
        if context is None:
            context = self.prepare_text(text_emb, text_mask)
        # Every block starts with the SiLU of the embedding, so it is taken once.
        begin, end = timesteps.unbind(1) if timesteps.dim() == 2 else (timesteps, timesteps)
        time_emb = self.time_embedding(begin, end)
        if self.pooled_text:
            time_emb = time_emb + context.embedding.float()
        elif context.embedding is not None:
            time_emb = torch.cat([time_emb, context.embedding.float()], dim=1)
        time_emb = F.silu(time_emb).to(self._dtype)
        x = self.conv_in(to_patches(latent.to(self._dtype), self.patch_size))
        skips = [x]
        for level, text in zip(self.down_blocks, context.down, strict=True):
            skips += level(skips[-1], time_emb, text)
        x = self.mid_block(skips[-1], time_emb, context.middle)
        for level, text in zip(self.up_blocks, context.up, strict=True):
            x = level(x, skips, time_emb, text)
        x = F.silu(self.conv_norm_out(x))
        prediction = from_patches(self.conv_out(x), self.patch_size, latent.shape[2:])
        if self.input_skip is None:
            return prediction
        return prediction + self.input_skip(latent, begin, x)
