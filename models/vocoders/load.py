"""The vocoder that a name stands for."""

from __future__ import annotations

import dataclasses

from config.schema import MelConfig
from models.vocoders.griffin_lim import GriffinLim
from models.vocoders.hifigan import HiFiGAN, load_hifigan
from utils.errors import UserError
from utils.hub import model_folder

GRIFFIN_LIM = "griffin_lim"
Vocoder = GriffinLim | HiFiGAN


def load_vocoder(name: str, mel: MelConfig) -> Vocoder:
    """The vocoder "griffin_lim", or the HiFi-GAN in the folder `name`, for mels of these settings.

    A hub model's name stands for its folder.

    Raises:
        UserError: there is none, it was made for another mel, or Griffin-Lim is asked for a mel
            whose frames do not overlap, so that phases cannot be found.
    """
    if name == GRIFFIN_LIM:
        if mel.hop_size >= mel.win_size:
            raise UserError(
                f"griffin_lim needs frames that overlap: hop_size {mel.hop_size} must be less than"
                f" win_size {mel.win_size}"
            )
        return GriffinLim(**dataclasses.asdict(mel))
    folder = model_folder(name)
    if not folder.is_dir():
        raise UserError(f"vocoder {name!r} is neither {GRIFFIN_LIM!r} nor a folder with a HiFi-GAN")
    return load_hifigan(folder, mel)
