"""Checkpoints of CompVis' latent-diffusion code and of those who took it over: Amphion, AudioLDM.

Amphion's text-to-audio recipe: AutoencoderKL and AudioLDM, {"model": weights, "step": ...}. Its
discriminator and optimizers are not taken over. It does not scale its latents.

AudioLDM's own code (AudioLDM-training-finetuning): the VAE in one of its .ckpt files. There a mel
is [time, mel], here [mel, time]: with every kernel transposed, the networks are equal.

diffusers' own rules give the weights their names there and here. Names that no rule knows stay as
they are; the network then refuses them by name.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import torch
from torch import Tensor

from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.convert.imported import Imported, with_weights
from models.tta.convert.shapes import in_32_groups, unet_shape, vae_shape
from models.tta.ldm.pipeline import PipelineSettings
from models.tta.ldm.unet import UNet
from utils.errors import UserError
from utils.weight_files import read_weights

STAGE = "first_stage_model."  # where a latent-diffusion checkpoint keeps its VAE
BESIDE = ("loss.", "vocoder.")  # discriminator and vocoder, kept with the VAE there


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
            found.add("unet", with_weights(UNet(shape), tensors, file), file)
            found.settings = dataclasses.replace(defaults, unet=shape)
        else:
            tensors = vae_tensors(tensors)
            vae = AutoencoderKL(in_32_groups(vae_shape(tensors, file), file))
            tensors["latent_std"] = torch.ones(())
            found.add("vae", with_weights(vae, tensors, file), file)
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
    vae = AutoencoderKL(in_32_groups(vae_shape(tensors, file), file))
    tensors["latent_std"] = latent_std.float()
    return Imported(defaults, vae=with_weights(vae, tensors, file))


def transposed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network of [time, mel] maps as one of [mel, time] maps: its kernels [.., .., h, w] turn."""
    return {n: v.transpose(2, 3) if v.dim() == 4 else v for n, v in tensors.items()}


def vae_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights; the 1x1 convolutions of its attention become matrices."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    levels = {found[1] for name in tensors if (found := re.match(r"decoder\.up\.(\d+)", name))}
    shape = dict.fromkeys(("down_block_types", "up_block_types"), levels)
    return _with_left_over(convert_ldm_vae_checkpoint(tensors, shape), tensors)


def unet_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's weights."""
    from diffusers.loaders.single_file_utils import LDM_UNET_KEY, convert_ldm_unet_checkpoint

    samplers = [int(m[1]) for n in tensors if (m := re.match(r"input_blocks\.(\d+)\.0\.op\.", n))]
    blocks = [int(m[1]) for n in tensors if (m := re.match(r"input_blocks\.(\d+)\.", n))]
    # Block 0 is conv_in, the last of a level its downsampling; a single level has none.
    shape = {"layers_per_block": min(samplers) - 1 if samplers else max(blocks, default=0)}
    prefixed = {LDM_UNET_KEY + name: value for name, value in tensors.items()}
    return _with_left_over(convert_ldm_unet_checkpoint(prefixed, shape), tensors)


def _with_left_over(named: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The renamed weights, and under their old names those that diffusers left out."""
    taken = {value.data_ptr() for value in named.values()}
    return named | {n: value for n, value in tensors.items() if value.data_ptr() not in taken}
