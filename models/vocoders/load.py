"""The vocoder that a name stands for."""

from __future__ import annotations

from config.schema import MelConfig
from models.vocoders.griffin_lim import GRIFFIN_LIM, GriffinLim
from models.vocoders.hifigan import HiFiGAN
from utils.errors import UserError
from utils.hub import model_folder

Vocoder = GriffinLim | HiFiGAN


def load_vocoder(name: str, mel: MelConfig) -> Vocoder:
    """The vocoder "griffin_lim", or the HiFi-GAN in the folder `name`, for mels of these settings.

    A hub model's name stands for its folder.

    Raises:
        UserError: there is none, or it was made for another mel.
    """
    if name == GRIFFIN_LIM:
        return GriffinLim(mel)
    folder = model_folder(name)
    if not folder.is_dir():
        raise UserError(f"vocoder {name!r} is neither {GRIFFIN_LIM!r} nor a folder with a HiFi-GAN")
    return HiFiGAN(folder, mel)
