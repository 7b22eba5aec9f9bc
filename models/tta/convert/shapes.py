"""Shapes of networks: read from weights under diffusers' names; as settings of its classes."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from config.model_schema import AutoencoderKLConfig, UNetConfig
from utils.errors import UserError

# Settings that do not change what comes out in float32.
WITHOUT_EFFECT = ("sample_size", "force_upcast", "upcast_attention", "scaling_factor")


def vae_shape(tensors: dict[str, Tensor], source: Path) -> AutoencoderKLConfig:
    """The config of an AutoencoderKL with these weights."""
    with _named(source, "an AutoencoderKL"):
        ch, in_channels = tensors["encoder.conv_in.weight"].shape[:2]
        widths = _widths(tensors, "encoder.down_blocks")
        return AutoencoderKLConfig(
            ch=ch,
            ch_mult=[width // ch for width in widths],
            num_res_blocks=_count(tensors, "encoder.down_blocks.0.resnets"),
            attention=any(name.startswith("encoder.mid_block.attentions") for name in tensors),
            in_channels=in_channels,
            out_ch=tensors["decoder.conv_out.weight"].shape[0],
            z_channels=tensors["post_quant_conv.weight"].shape[0],
            double_z=True,
        )


def unet_shape(tensors: dict[str, Tensor], num_heads: int | list[int], source: Path) -> UNetConfig:
    """The config of a U-Net with these weights; they do not tell the number of heads."""
    with _named(source, "a U-Net with attention to a text"):
        model_channels, in_channels = tensors["conv_in.weight"].shape[:2]
        widths = _widths(tensors, "down_blocks")
        middle, projected = "mid_block.attentions.0", tensors.get("class_embedding.weight")
        attends = [_count(tensors, f"down_blocks.{n}.attentions") for n in range(len(widths))]
        depths = [
            _count(tensors, f"down_blocks.{n}.attentions.0.transformer_blocks")
            for n in range(len(widths))
        ]
        # A level without attention has no depth; the middle has that of the lowest.
        depths[-1] = _count(tensors, f"{middle}.transformer_blocks")
        depths = [depth or depths[-1] for depth in depths]
        text_dim = tensors[f"{middle}.transformer_blocks.0.attn2.to_k.weight"].shape[1]
        # What the blocks are told is as wide as the time's embedding where a text is added to it.
        told = tensors["down_blocks.0.resnets.0.time_emb_proj.weight"].shape[1]
        pooled = projected is not None and projected.shape[0] == told
        return UNetConfig(
            in_channels=in_channels,
            out_channels=tensors["conv_out.weight"].shape[0],
            model_channels=model_channels,
            channel_mult=[width // model_channels for width in widths],
            num_res_blocks=_count(tensors, "down_blocks.0.resnets"),
            attention_resolutions=[2**n for n in reversed(range(len(widths))) if attends[n]],
            num_heads=num_heads,
            transformer_depth=depths[0] if len(set(depths)) == 1 else depths,
            context_dim=text_dim if projected is None or pooled else None,
            class_embed_dim=None if projected is None or pooled else projected.shape[1],
            pooled_text=pooled,
            span_embedding="time_embedding.cond_proj.weight" in tensors,
            linear_projections=tensors[f"{middle}.proj_in.weight"].dim() == 2,
        )


def in_32_groups(shape: AutoencoderKLConfig | UNetConfig, source: Path):
    """The shape, unless its group norms have other groups than the 32 of latent-diffusion code."""
    if shape.norm_groups != 32:
        raise UserError(
            f"{source}: {shape.norm_groups * 4} channels at full resolution; a network of 32 groups"
            " a norm has at least 128 here"
        )
    return shape


def _widths(tensors: dict[str, Tensor], blocks: str) -> list[int]:
    """Channels of each level."""
    levels = range(_count(tensors, blocks))
    return [tensors[f"{blocks}.{level}.resnets.0.conv1.weight"].shape[0] for level in levels]


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are below a name."""
    start = prefix + "."
    return len({n.removeprefix(start).split(".")[0] for n in tensors if n.startswith(start)})


@contextmanager
def _named(source: Path, what: str):
    try:
        yield
    except KeyError as error:
        raise UserError(f"{source}: not the weights of {what}: missing: {error.args[0]}") from None
    except (ValueError, IndexError):  # of tensors with too few dimensions
        raise UserError(f"{source}: not the weights of {what}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


# ---------------------------------------------------------------- settings of diffusers


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
    levels = range(len(shape.channel_mult))
    attends = [shape.attends(level) for level in levels]
    widths = [shape.width(level) for level in levels]
    beside_time = shape.class_embed_dim is not None
    with_time = beside_time or shape.pooled_text
    return {
        "in_channels": shape.in_channels * shape.patch_size**2,
        "out_channels": shape.out_channels * shape.patch_size**2,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "layers_per_block": shape.num_res_blocks,
        "transformer_layers_per_block": shape.transformer_depth,
        # Its own width where it attends to the map, as it does without a text there.
        "cross_attention_dim": widths if beside_time else shape.context_dim,
        "class_embed_type": "simple_projection" if with_time else None,
        # Of what is added to the time's sinusoids: here as many of a step's length.
        "time_cond_proj_dim": shape.model_channels if shape.span_embedding else None,
        "projection_class_embeddings_input_dim": shape.text_dim if with_time else None,
        "class_embeddings_concat": beside_time,
        "use_linear_projection": shape.linear_projections,
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
