"""Checkpoints of CompVis' latent-diffusion code and of those who took it over: Amphion, AudioLDM.

Amphion's text-to-audio recipe: AutoencoderKL and AudioLDM, {"model": weights, "step": ...}. Its
discriminator and optimizers are not taken over. It does not scale its latents.

AudioLDM's own code (AudioLDM-training-finetuning): the VAE in one of its .ckpt files. There a mel
is [time, mel], here [mel, time]: with every kernel transposed, the networks are equal.

Their names of weights become those of diffusers and of this repository. Names that no rule knows
stay as they are; the network then refuses them by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from models.tta.convert.imported import Imported, unet_with, vae_with
from models.tta.convert.shapes import in_32_groups, unet_shape, vae_shape
from models.tta.ldm.pipeline import PipelineSettings
from utils.errors import UserError
from utils.weight_files import read_weights

STAGE = "first_stage_model."  # where a latent-diffusion checkpoint keeps its VAE
BESIDE = ("loss.", "vocoder.")  # discriminator and vocoder, kept with the VAE there
VAE_RULES = [
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up_blocks\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up_blocks\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"(attentions\.0)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.0)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.0)\.proj_out\.", r"\1.to_out.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
]
UNET_RULES = [
    (r"^time_embed\.0\.", "time_embedding.linear_1."),
    (r"^time_embed\.2\.", "time_embedding.linear_2."),
    (r"^input_blocks\.0\.0\.", "conv_in."),
    (r"^out\.0\.", "conv_norm_out."),
    (r"^out\.2\.", "conv_out."),
    (r"^middle_block\.0\.", "mid_block.resnets.0."),
    (r"^middle_block\.1\.", "mid_block.attentions.0."),
    (r"^middle_block\.2\.", "mid_block.resnets.1."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time_emb_proj."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.skip_connection\.", ".conv_shortcut."),
]


def read_amphion(files: list[Path], defaults: PipelineSettings) -> Imported:
    """A VAE, a U-Net or both, told apart by their weights' names.

    `defaults` give what the weights do not tell: the mel, and the U-Net's number of heads.
    """
    found = Imported(defaults)
    for file in files:
        tensors = read_weights(file, "model")
        is_unet = any(name.startswith("unet.") for name in tensors)
        if is_unet:
            tensors = unet_tensors({k.removeprefix("unet."): v for k, v in tensors.items()})
            shape = in_32_groups(unet_shape(tensors, defaults.unet.num_heads, file), file)
            found.add("unet", unet_with(shape, tensors, file), file)
            found.settings = dataclasses.replace(defaults, unet=shape)
        else:
            tensors = vae_tensors(tensors)
            shape = in_32_groups(vae_shape(tensors, file), file)
            found.add("vae", vae_with(shape, tensors, torch.ones(()), file), file)
    return found


def read_audioldm(files: list[Path], defaults: PipelineSettings) -> Imported:
    """The VAE of a latent-diffusion or of a VAE checkpoint, {"state_dict": weights, ...}."""
    if len(files) != 1:
        raise UserError(f"{len(files)} files given; an AudioLDM checkpoint is one")
    (file,) = files
    everything = read_weights(file, "state_dict")
    tensors = {n.removeprefix(STAGE): v for n, v in everything.items() if n.startswith(STAGE)}
    tensors = tensors or everything
    tensors = {name: value for name, value in tensors.items() if not name.startswith(BESIDE)}
    tensors = transposed(vae_tensors(tensors))
    latent_std = 1 / everything.get("scale_factor", torch.ones(())).double()
    shape = in_32_groups(vae_shape(tensors, file), file)
    return Imported(defaults, vae=vae_with(shape, tensors, latent_std.float(), file))


def transposed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network of [time, mel] maps as one of [mel, time] maps: its kernels [.., .., h, w] turn."""
    return {n: v.transpose(2, 3) if v.dim() == 4 else v for n, v in tensors.items()}


# ---------------------------------------------------------------- names


def vae_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights; the 1x1 convolutions of its attention become matrices."""
    levels = [int(found[1]) for name in tensors if (found := re.match(r"decoder\.up\.(\d+)", name))]
    top = max(levels, default=0)  # levels of the decoder are numbered from the other end here

    def renamed(name: str) -> str:
        name = re.sub(r"\.up\.(\d+)\.", lambda m: f".up_blocks.{top - int(m[1])}.", name)
        return _apply(VAE_RULES, name)

    named = {renamed(name): value for name, value in tensors.items()}
    return {
        name: value.flatten(1) if re.search(r"\.(to_[qkv]|to_out\.0)\.weight$", name) else value
        for name, value in named.items()
    }


def unet_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's weights."""
    period = _blocks_per_level(tensors)

    def numbered(name: str) -> str:
        side, number, part, rest = re.match(r"(\w+)_blocks\.(\d+)\.(\d+)\.(.*)", name).groups()
        if side == "input":  # 0 is conv_in; a level ends with its downsampling
            level, index = divmod(int(number) - 1, period)
            blocks, last = f"down_blocks.{level}", rest.startswith("op.")
        else:
            level, index = divmod(int(number), period)
            blocks, last = f"up_blocks.{level}", rest.startswith("conv.")
        if last:
            sampler = "downsamplers" if side == "input" else "upsamplers"
            return f"{blocks}.{sampler}.0.conv.{rest.split('.')[-1]}"
        return f"{blocks}.{'attentions' if int(part) else 'resnets'}.{index}.{rest}"

    def renamed(name: str) -> str:
        if re.match(r"(input|output)_blocks\.\d+\.\d+\.", name) and not re.match(
            r"input_blocks\.0\.", name
        ):
            name = numbered(name)
        return _apply(UNET_RULES, name)

    return {renamed(name): value for name, value in tensors.items()}


def _blocks_per_level(names: Iterable[str]) -> int:
    """Residual blocks of a level and one more: each level's downsampling is numbered, too."""
    samplers = [int(m[1]) for n in names if (m := re.match(r"input_blocks\.(\d+)\.0\.op\.", n))]
    blocks = [int(m[1]) for n in names if (m := re.match(r"input_blocks\.(\d+)\.", n))]
    return min(samplers) if samplers else max(blocks, default=0) + 1


def _apply(rules: list[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
