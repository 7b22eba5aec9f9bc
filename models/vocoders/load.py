"""The vocoder that a name stands for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from config.schema import MelConfig
from models.vocoders.griffin_lim import GriffinLim
from models.vocoders.hifigan import HiFiGAN, load_hifigan
from models.vocoders.saved import MODEL_TYPE, TrainedVocos, VocoderSettings, load_trained
from utils.errors import UserError
from utils.hub import model_folder
from utils.nearest import nearest_path
from utils.run_folder import all_weights, weights_folder

GRIFFIN_LIM = "griffin_lim"
Vocoder = GriffinLim | HiFiGAN | TrainedVocos


def load_vocoder(name: str, mel: MelConfig) -> Vocoder:
    """The vocoder "griffin_lim", or the one in the folder `name`, for mels of these settings.

    The folder is a run or checkpoint of a vocoder's training, or a HiFi-GAN's. A hub model's name
    stands for its folder.

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
        runs = [run for run in folder.parent.glob("*/") if weights_folder(run, MODEL_TYPE)]
        near = nearest_path(folder, [Path(GRIFFIN_LIM), *runs])
        raise UserError(
            f"vocoder {name!r} is neither {GRIFFIN_LIM!r} nor a folder with a Vocos or a"
            f" HiFi-GAN{near}"
        )
    trained = weights_folder(folder, MODEL_TYPE)
    return load_trained(trained, mel) if trained else load_hifigan(folder, mel)


def newest_vocoder(log_dir: str, mel: MelConfig) -> str:
    """The name of the newest vocoder that was trained for such mels in `log_dir`, if there is one.

    Else it is Griffin-Lim.
    """
    folders = reversed(all_weights(log_dir, MODEL_TYPE))
    fitting = (str(folder) for folder in folders if VocoderSettings.read(folder).mel == mel)
    return next(fitting, GRIFFIN_LIM)
