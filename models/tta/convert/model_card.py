"""The README.md of an exported model, from model_card.md.j2."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from models.tta.ldm.pipeline import Pipeline
from models.vocoders.griffin_lim import GriffinLim
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import Vocoder
from models.vocoders.saved import TrainedVocos
from utils.checkpoint import STATE, Checkpoints, read_json
from utils.errors import UserError

KINDS = {GriffinLim: "Griffin-Lim", HiFiGAN: "HiFi-GAN", TrainedVocos: "Vocos"}


def model_card(pipeline: Pipeline, folder: Path, name: str, license: str, vocoder: Vocoder) -> str:
    """The card of the model in the checkpoint or final folder `folder`."""
    from huggingface_hub import ModelCard, ModelCardData

    card = ModelCard.from_template(
        ModelCardData(license=license, library_name="diffusers", pipeline_tag="text-to-audio"),
        template_path=str(Path(__file__).with_name("model_card.md.j2")),
        name=name,
        vocoder=KINDS[type(vocoder)],
        mel=dataclasses.asdict(pipeline.settings.mel),
        figures=_figures(pipeline, folder),
        **pipeline.settings.made_from,
    )
    return f"{card}\n"


def _figures(pipeline: Pipeline, folder: Path) -> dict[str, object]:
    settings, made_from = pipeline.settings, dict(pipeline.settings.made_from)
    parts = {"U-Net": pipeline.unet, "VAE": pipeline.vae, "text encoder": pipeline.text_encoder}
    figures: dict[str, object] = {
        f"parameters of the {name}": f"{sum(p.numel() for p in part.parameters()):,}"
        for name, part in parts.items()
    }
    latent = pipeline.vae.config.latent_shape(settings.mel.n_mel, settings.frames)
    figures["latent"] = " x ".join(map(str, latent))
    figures["length trained at"] = f"{settings.frames / settings.mel.frames_per_second:.2f} s"
    figures["target"] = settings.noise_scheduler.prediction_type
    batch_size = made_from.pop("batch_size", None)
    made_from.pop("dataset", None)
    state = _state(folder)
    if "step" in state:
        figures["steps"] = f"{state['step']} of {batch_size} clips"
    if state.get("best_loss") is not None:
        figures["best validation loss"] = f"{state['best_loss']:.4g} at step {state['best_step']}"
    return figures | {f"made with {name}": version for name, version in made_from.items()}


def _state(folder: Path) -> dict:
    """The state of a checkpoint, or of the newest one beside final/; {} where there is none."""
    newest = Checkpoints(folder.parent / "checkpoints", keep=1).all()[-1:]
    for place in (folder, *newest):
        try:
            return read_json(place / STATE)
        except UserError:
            continue
    return {}
