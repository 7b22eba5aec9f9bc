"""Our networks' shapes as the settings of diffusers' classes, and the check of foreign settings."""

from __future__ import annotations

import inspect
from pathlib import Path

from config.model_schema import AutoencoderKLConfig, UNetConfig
from utils.errors import UserError

# Settings that do not change what comes out in float32.
WITHOUT_EFFECT = ("sample_size", "force_upcast", "upcast_attention", "scaling_factor")


def vae_settings(shape: AutoencoderKLConfig) -> dict:
    """Arguments of diffusers.AutoencoderKL for a VAE of this shape."""
    levels = len(shape.ch_mult)
    return {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_ch,
        "latent_channels": shape.z_channels,
        "block_out_channels": [shape.ch * mult for mult in shape.ch_mult],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": shape.num_res_blocks,
        "norm_num_groups": shape.norm_groups,
        "mid_block_add_attention": shape.attention,
    }


def unet_settings(shape: UNetConfig) -> dict:
    """Arguments of diffusers.UNet2DConditionModel for a U-Net of this shape."""
    levels = len(shape.channel_mult)
    attends = [2**level in shape.attention_resolutions for level in range(levels)]
    return {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": [shape.model_channels * mult for mult in shape.channel_mult],
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "layers_per_block": shape.num_res_blocks,
        "transformer_layers_per_block": shape.transformer_depth,
        "cross_attention_dim": shape.context_dim,
        "attention_head_dim": shape.num_heads,  # its name there; it counts heads
        "norm_num_groups": shape.norm_groups,
    }


def check_settings(found: dict, expected: dict, cls: type, source: Path) -> None:
    """Raises UserError unless the settings `found` make of `cls` what `expected` does."""
    arguments = inspect.signature(cls.__init__).parameters.items()
    defaults = {name: argument.default for name, argument in arguments if name != "self"}
    expected = {**defaults, **expected}
    faults = [
        f"{name} is {value!r}, not {expected.get(name)!r}"
        for name, value in {**defaults, **found}.items()
        if not name.startswith("_")
        and name not in WITHOUT_EFFECT
        and _plain(value) != _plain(expected.get(name))
    ]
    if faults:
        raise UserError(
            f"{source}: a {cls.__name__} of another architecture than the one here:\n  "
            + "\n  ".join(faults)
        )


def _plain(value: object) -> object:
    """One form for what diffusers takes in several: 8, [8, 8] and (8, 8) for two levels."""
    if isinstance(value, tuple | list):
        return value[0] if value and all(item == value[0] for item in value) else list(value)
    return value
