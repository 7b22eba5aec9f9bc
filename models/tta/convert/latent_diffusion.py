"""Checkpoints of CompVis' latent-diffusion code and of those who took it over: Amphion, AudioLDM.

Amphion's text-to-audio recipe: AutoencoderKL and AudioLDM, {"model": weights, "step": ...}. Its
discriminator and optimizers are not taken over. It does not scale its latents.

AudioLDM's own code (AudioLDM, AudioLDM-training-finetuning): VAE, U-Net, vocoder and CLAP's text
half in one of its .ckpt files. There a mel is [time, mel], here [mel, time]: with every kernel
transposed, the networks are equal.

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
from models.tta.ldm.clap_text import ClapText
from models.tta.ldm.pipeline import PipelineSettings
from models.tta.ldm.unet import UNet
from models.vocoders.hifigan import make_published
from utils.checkpoint import load_weights
from utils.errors import UserError
from utils.weight_files import read_weights

STAGE = "first_stage_model."  # where a latent-diffusion checkpoint keeps its VAE
DENOISER = "model.diffusion_model."  # its U-Net
AVERAGE = "model_ema."  # the U-Net's moving average, which its sampling uses; names without dots
TEXT = "cond_stage_model.model.text_"  # CLAP's text half
BESIDE = ("loss.", "vocoder.")  # discriminator and vocoder, kept with the VAE there
AUDIOLDM_SCHEDULE = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
# A .ckpt does not tell its vocoder's shape; its code has this one, in HiFi-GAN's terms.
AUDIOLDM_VOCODER = {
    "resblock": "1",
    "upsample_initial_channel": 1024,
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "num_mels": 64,
    "sampling_rate": 16000,
    **{"n_fft": 1024, "win_size": 1024, "hop_size": 160, "fmin": 0.0, "fmax": 8000.0},
}


def read_amphion(files: list[Path], defaults: PipelineSettings) -> Imported:
    """A VAE, a U-Net or both, told apart by their weights' names.

    `defaults` give what the weights do not tell: the mel, and the U-Net's number of heads. How
    Amphion's code runs its U-Net is noted with it: a size that is odd is cropped behind the
    convolution, pads are seen, and PNDM takes 200 steps from below the noisiest timestep.
    """
    found = Imported(defaults)
    for file in files:
        tensors = read_weights(file, "model")
        is_unet = any(name.startswith("unet.") for name in tensors)
        if is_unet:
            tensors = unet_tensors({k.removeprefix("unet."): v for k, v in tensors.items()})
            shape = in_32_groups(unet_shape(tensors, defaults.unet.num_heads, file), file)
            shape = dataclasses.replace(shape, odd_sizes="crop")
            found.add("unet", with_weights(UNet(shape), tensors, file), file)
            schedule, sampling = defaults.noise_scheduler, defaults.sampling
            found.settings = dataclasses.replace(
                defaults,
                unet=shape,
                noise_scheduler=dataclasses.replace(schedule, timestep_spacing="leading"),
                sampling=dataclasses.replace(sampling, sampler="pndm", num_steps=200),
                pads_negative=True,
            )
        else:
            tensors = vae_tensors(tensors)
            vae = AutoencoderKL(in_32_groups(vae_shape(tensors, file), file))
            tensors["latent_std"] = torch.ones(())
            found.add("vae", with_weights(vae, tensors, file), file)
    return found


def read_audioldm(
    files: list[Path], defaults: PipelineSettings, text_encoder: str | None = None
) -> Imported:
    """The parts of a latent-diffusion or of a VAE checkpoint, {"state_dict": weights, ...}.

    `text_encoder` is the CLAP whose shape and tokenizer its text half has (laion's HTSAT-unfused);
    without it, the text half is left where it is.
    """
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
    found = Imported(defaults, vae=with_weights(vae, tensors, file))
    if denoiser := _below(DENOISER, everything):
        _add_audioldm_unet(found, denoiser, everything, file)
        if text_encoder is not None:
            found.text_encoder = _audioldm_text(text_encoder, everything, defaults, file)
    if vocoder := _below(STAGE + "vocoder.", everything):
        found.vocoder = make_published(AUDIOLDM_VOCODER, vocoder, file, file)
        found.take_mel(found.vocoder.mel, file)
    return found


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _add_audioldm_unet(
    found: Imported, denoiser: dict[str, Tensor], everything: dict[str, Tensor], file: Path
) -> None:
    """Adds the U-Net, its average where there is one, with how AudioLDM's code samples it."""
    for name in denoiser:
        average = AVERAGE + f"diffusion_model.{name}".replace(".", "")
        denoiser[name] = everything.get(average, denoiser[name])
    tensors = transposed(unet_tensors(denoiser))
    shape = unet_shape(tensors, 1, file)
    head_width = 64 if shape.model_channels == 256 else 32  # the large model's, and the others'
    heads = [shape.width(level) // head_width for level in range(shape.lowest + 1)]
    shape = in_32_groups(dataclasses.replace(shape, num_heads=heads), file)
    found.unet = with_weights(UNet(shape), tensors, file)
    schedule, sampling = found.settings.noise_scheduler, found.settings.sampling
    schedule = dataclasses.replace(schedule, **AUDIOLDM_SCHEDULE, timestep_spacing="leading")
    found.settings = dataclasses.replace(
        found.settings,
        unet=shape,
        noise_scheduler=schedule,
        sampling=dataclasses.replace(sampling, sampler="ddim", num_steps=200, guidance_scale=2.5),
    )


def _audioldm_text(
    name: str, everything: dict[str, Tensor], defaults: PipelineSettings, file: Path
) -> ClapText:
    """CLAP's text half with the weights in the file, where it was trained with the U-Net."""
    clap = ClapText.from_pretrained(name, defaults.max_tokens)
    rules = {"branch.": "model.", "projection.0.": "projection.linear1."}
    rules["projection.2."] = "projection.linear2."
    tensors = {}
    for theirs, value in _below(TEXT, everything).items():
        for old, new in rules.items():
            if theirs.startswith(old):
                tensors[f"text_{new}{theirs.removeprefix(old)}"] = value
    # Counts, not weights, which some versions of transformers keep and others do not.
    tensors = {n: v for n, v in tensors.items() if not n.endswith("_ids")}
    tensors |= {n: v for n, v in clap.model.state_dict().items() if n.endswith("_ids")}
    load_weights(clap.model, tensors, file)
    return clap


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
    """A U-Net's weights; AudioLDM's projection of CLAP's embedding has diffusers' name then."""
    tensors = {n.replace("film_emb.", "class_embedding."): v for n, v in tensors.items()}
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
