"""Amphion's text-to-audio recipe: AutoencoderKL and AudioLDM, {"model": weights, "step": ...}.

Discriminator and optimizers are not taken over. Amphion does not scale its latents.
"""

from __future__ import annotations

from pathlib import Path

import torch

from config.schema import Config
from models.tta.convert.imported import Imported, unet_with, vae_with, with_model
from models.tta.convert.ldm_names import unet_tensors, vae_tensors
from models.tta.convert.shapes import in_32_groups, unet_shape, vae_shape
from models.tta.convert.sources import read_weights


def read_amphion(files: list[Path], config: Config) -> Imported:
    """A VAE, a U-Net or both, told apart by their weights' names.

    `config` gives what the weights do not tell: the mel, and the U-Net's number of heads.
    """
    found = Imported(config)
    for file in files:
        tensors = read_weights(file, "model")
        is_unet = any(name.startswith("unet.") for name in tensors)
        if is_unet:
            tensors = unet_tensors({k.removeprefix("unet."): v for k, v in tensors.items()})
            shape = in_32_groups(unet_shape(tensors, config.model.audioldm.num_heads, file), file)
            found.add("unet", unet_with(shape, tensors, file), file)
            found.config = with_model(config, audioldm=shape)
        else:
            tensors = vae_tensors(tensors)
            shape = in_32_groups(vae_shape(tensors, file), file)
            found.add("vae", vae_with(shape, tensors, torch.ones(()), file), file)
    return found
