"""AudioLDM's own code (AudioLDM-training-finetuning): the VAE in one of its .ckpt files.

There a mel is [time, mel], here [mel, time]: with every kernel transposed, the networks are equal.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from config.schema import Config
from models.tta.convert.imported import Imported, vae_with
from models.tta.convert.ldm_names import vae_tensors
from models.tta.convert.shapes import in_32_groups, vae_shape
from models.tta.convert.sources import only_file, read_weights

STAGE = "first_stage_model."  # where a latent-diffusion checkpoint keeps its VAE
BESIDE = ("loss.", "vocoder.")  # discriminator and vocoder, kept with the VAE there


def read_audioldm(files: list[Path], config: Config) -> Imported:
    """The VAE of a latent-diffusion or of a VAE checkpoint, {"state_dict": weights, ...}."""
    file = only_file(files, "an AudioLDM checkpoint")
    everything = read_weights(file, "state_dict")
    tensors = {n.removeprefix(STAGE): v for n, v in everything.items() if n.startswith(STAGE)}
    tensors = tensors or everything
    tensors = {name: value for name, value in tensors.items() if not name.startswith(BESIDE)}
    tensors = transposed(vae_tensors(tensors))
    latent_std = 1 / everything.get("scale_factor", torch.ones(())).double()
    shape = in_32_groups(vae_shape(tensors, file), file)
    return Imported(config, vae=vae_with(shape, tensors, latent_std.float(), file))


def transposed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network of [time, mel] maps as one of [mel, time] maps: its kernels [.., .., h, w] turn."""
    return {n: v.transpose(2, 3) if v.dim() == 4 else v for n, v in tensors.items()}
