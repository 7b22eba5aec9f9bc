"""diffusers' networks with random weights, and their weights under latent-diffusion's names.

The naming is checked against diffusers' own converter, which reads such weights.
"""

from __future__ import annotations

import re

import diffusers
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor

from tests.models.tta.convert.small_models import randomise


def random_vae(levels: int, attention: bool, z: int, **settings) -> diffusers.AutoencoderKL:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=z,
        block_out_channels=[128] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=1,
        mid_block_add_attention=attention,
        **settings,
    )
    return randomise(vae).eval().requires_grad_(False)


def random_unet(**settings) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(0)
    kinds = ["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"]
    shape = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [128, 128, 128],
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "layers_per_block": 2,
        "cross_attention_dim": 24,
        "attention_head_dim": 8,
    }
    unet = diffusers.UNet2DConditionModel(**{**shape, **settings})
    return randomise(unet).eval().requires_grad_(False)


def ldm_vae_weights(vae: diffusers.AutoencoderKL) -> dict[str, Tensor]:
    """The VAE's weights as latent-diffusion's code names and shapes them."""
    top = len(vae.config.block_out_channels) - 1
    rules = [
        (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{top - int(m[1])}.block"),
        (r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{top - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ]
    named = _renamed(vae.state_dict(), rules)
    for name, value in named.items():
        if "attn_1" in name and value.dim() == 2:
            named[name] = value[:, :, None, None]
    _assert_same(convert_ldm_vae_checkpoint(named, vae.config), vae.state_dict())
    return named


def ldm_unet_weights(unet: diffusers.UNet2DConditionModel) -> dict[str, Tensor]:
    """The U-Net's weights as latent-diffusion's code names them."""
    period = unet.config.layers_per_block + 1
    attends = [f"up_blocks.{n}.attentions.0.norm.weight" in unet.state_dict() for n in range(3)]

    def down(m) -> str:
        return f"input_blocks.{1 + int(m[1]) * period + int(m[2])}"

    def up(m) -> str:
        return f"output_blocks.{int(m[1]) * period + int(m[2])}"

    def last(m) -> str:
        return f"output_blocks.{int(m[1]) * period + period - 1}.{1 + attends[int(m[1])]}"

    rules = [
        (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: down(m) + ".0"),
        (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: down(m) + ".1"),
        (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: _after(m, period) + ".0.op"),
        (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: up(m) + ".0"),
        (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: up(m) + ".1"),
        (r"^up_blocks\.(\d)\.upsamplers\.0", last),
        (r"^mid_block\.resnets\.0", "middle_block.0"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^mid_block\.resnets\.1", "middle_block.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^conv_norm_out", "out.0"),
        (r"^conv_out", "out.2"),
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"(\.\d+\.0|middle_block\.\d)\.norm1\.", r"\1.in_layers.0."),
        (r"(\.\d+\.0|middle_block\.\d)\.norm2\.", r"\1.out_layers.0."),
        (r"\.conv1\.", ".in_layers.2."),
        (r"\.conv2\.", ".out_layers.3."),
        (r"\.time_emb_proj\.", ".emb_layers.1."),
        (r"\.conv_shortcut\.", ".skip_connection."),
    ]
    named = _renamed(unet.state_dict(), rules)
    prefixed = {f"model.diffusion_model.{name}": value for name, value in named.items()}
    _assert_same(convert_ldm_unet_checkpoint(prefixed, unet.config), unet.state_dict())
    return named


def _after(m, period: int) -> str:
    return f"input_blocks.{(int(m[1]) + 1) * period}"


def _renamed(tensors: dict[str, Tensor], rules: list) -> dict[str, Tensor]:
    named = {}
    for name, value in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        named[name] = value.clone()
    return named


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
