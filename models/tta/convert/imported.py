"""What an import found, as this repository's modules, and the folder that is made of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from config.schema import MelConfig
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import save_vae
from models.tta.ldm.pipeline import PipelineSettings, text_encoder_class
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.saved import TrainedVocos
from processors.mel import check_mel
from utils.checkpoint import load_weights, save_tensors, whole_folder
from utils.errors import UserError

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Imported:
    """Parts of a text-to-audio model; None where the files held no such part.

    `settings` has the mel of all of them, and what a U-Net's folder holds besides weights.
    """

    settings: PipelineSettings
    vae: AutoencoderKL | None = None
    unet: UNet | None = None
    text_encoder: TextEncoder | None = None
    vocoder: HiFiGAN | TrainedVocos | None = None
    mel_from: Path | None = None  # which of the files told the mel
    notes: list[str] = field(default_factory=list)  # what is here otherwise than in the files

    def add(self, name: str, part: nn.Module, source: Path) -> None:
        """Takes a part, unless there is one of its kind."""
        if getattr(self, name) is not None:
            raise UserError(f"{source}: a second {name}; import one at a time")
        setattr(self, name, part)

    def take_mel(self, mel: MelConfig, source: Path) -> None:
        """Takes the mel that a part was made for; the parts must agree."""
        if self.mel_from is not None:
            check_mel(self.settings.mel, mel, source, f"{self.mel_from}'s")
        duration = self.settings.frames / mel.frames_per_second
        sampling = dataclasses.replace(self.settings.sampling, duration=duration)
        self.settings = dataclasses.replace(self.settings, mel=mel, sampling=sampling)
        self.mel_from = source

    def check(self) -> None:
        """Raises UserError where the parts do not fit each other, or settings are out of range."""
        if self.unet is None:
            return
        self.settings.sampling_with()  # checks the steps
        shape = self.settings.unet
        if self.vae is not None and self.vae.config.z_channels != shape.in_channels:
            raise UserError(
                f"the U-Net takes latents of {shape.in_channels} channels, the VAE makes"
                f" {self.vae.config.z_channels}: they do not belong together"
            )
        encoder = self.text_encoder
        if encoder is not None and not isinstance(encoder, kind := text_encoder_class(shape)):
            raise UserError(
                f"the U-Net was trained with a {kind.TYPES[0]!r}, the text encoder is a"
                f" {encoder.TYPES[0]!r}"
            )
        if encoder is not None and encoder.dim != shape.text_dim:
            raise UserError(
                f"the U-Net takes text embeddings of width {shape.text_dim}, the text encoder"
                f" makes {encoder.dim}: it was trained with another"
            )

    def take_patches(self) -> None:
        """A U-Net of 4, 9, ... times the latent's channels has patches of it as its places."""
        if self.unet is None or self.vae is None:
            return
        shape, unet, z_channels = self.settings.unet, self.unet, self.vae.config.z_channels
        size = math.isqrt(shape.in_channels // z_channels)
        if shape.patch_size > 1 or size < 2 or shape.in_channels != z_channels * size**2:
            return
        shape = dataclasses.replace(
            shape, in_channels=z_channels, out_channels=z_channels, patch_size=size
        )
        self.unet = UNet(shape)
        self.unet.load_state_dict(unet.state_dict())
        self.settings = dataclasses.replace(self.settings, unet=shape)

    def check_whole(self, source: Path) -> None:
        """Raises UserError unless there is all that a text needs to become a mel."""
        names = ("unet", "vae", "text_encoder")
        if missing := [name for name in names if getattr(self, name) is None]:
            raise UserError(f"{source}: no whole text-to-audio model; {', '.join(missing)} missing")
        self.check()

    def write(self, folder: Path, source: str) -> list[str]:
        """Writes `folder`, whole or not at all; returns what is in it and how to use it.

        A VAE or a vocoder alone is the folder itself; a U-Net's folder has the others in it, as a
        stage-2 checkpoint has. `source` is noted as where the weights came from.
        """
        parts = (self.unet, self.text_encoder, self.vae, self.vocoder)
        alone = sum(part is not None for part in parts) == 1
        vae_in, vocoder_in = ("", "") if alone else ("vae", "vocoder")
        lines = [f"note: {note}" for note in self.notes]
        settings = dataclasses.replace(self.settings, made_from={"imported_from": source})
        if self.vocoder is not None:
            settings = dataclasses.replace(settings, vocoder="vocoder")
        with whole_folder(folder) as new:
            if self.unet is not None:
                settings.write(new)
                save_tensors(new / "unet.safetensors", self.unet.state_dict())
                lines.append(
                    f"U-Net: train.init_from={folder}, --checkpoint_path {folder}"
                    if self.vae is not None and self.text_encoder is not None
                    else f"U-Net: train.init_from={folder} (for --checkpoint_path, import it with a"
                    " VAE and a text encoder)"
                )
            if self.text_encoder is not None:
                self.text_encoder.save(new / "text_encoder")
                lines.append(f"text encoder: model.text_encoder.pretrained={folder}/text_encoder")
            if self.vae is not None:
                save_vae(new / vae_in, self.vae, self.settings.mel)
                lines.append(
                    f"VAE: model.autoencoder_path={folder / vae_in}, or train.init_from= the same"
                    " to fine-tune it"
                )
            if self.vocoder is not None:
                self.vocoder.save(new / vocoder_in)
                lines.append(f"vocoder: --vocoder {folder / vocoder_in}")
        return lines


def with_weights(module: Module, tensors: dict[str, Tensor], source: Path) -> Module:
    """The module with these weights; a key left over or missing is a UserError."""
    load_weights(module, tensors, source)
    return module
