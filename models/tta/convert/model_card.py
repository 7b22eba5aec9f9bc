"""The README.md of an exported model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from models.tta.ldm.pipeline import Pipeline
from utils.checkpoint import STATE, Checkpoints, read_json
from utils.errors import UserError

CARD = """\
---
license: {license}
library_name: diffusers
pipeline_tag: text-to-audio
---

# {name}

Text to sound by latent diffusion: a T5 reads the sentence, a U-Net makes a latent of it, a VAE's
decoder a mel of that, and {vocoder} a wav.

## Usage

Needs torch, torchaudio, diffusers and transformers (and a way to write a wav: here scipy).

```python
import scipy.io.wavfile
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(
    "{name}", custom_pipeline="pipeline", trust_remote_code=True
)
wav = pipe("A man is whistling", generator=torch.Generator().manual_seed(0)).audios[0]
scipy.io.wavfile.write("whistling.wav", {sample_rate}, wav)
```

`trust_remote_code` runs the `pipeline.py` of this folder: one short file, read it first. Latents
and mels have bands before time, [bands, frames].

## Mel

{mel}

Natural logarithm of max(magnitude, 1e-5), Slaney filters and norm, no centring (HiFi-GAN's
definition).

## Data

{data}

## Figures

{figures}

## Licence

{license_text}
"""


def model_card(pipeline: Pipeline, folder: Path, name: str, license: str, vocoder: str) -> str:
    """The card of the model in the checkpoint or final folder `folder`."""
    return CARD.format(
        name=name,
        license=license,
        vocoder="Griffin-Lim" if vocoder == "griffin_lim" else "HiFi-GAN",
        sample_rate=pipeline.settings.mel.sample_rate,
        mel=_table(dataclasses.asdict(pipeline.settings.mel)),
        data=_data(pipeline.settings.made_from),
        figures=_table(_figures(pipeline, folder)),
        license_text=f"The weights: {license}. `pipeline.py`: MIT."
        if license != "other"
        else "The weights: not stated by whoever trained them. `pipeline.py`: MIT.",
    )


def _data(made_from: dict[str, str]) -> str:
    if "imported_from" in made_from:
        return f"Not known here: the weights were imported from {made_from['imported_from']}."
    return f"Trained on {made_from['dataset']}."


def _figures(pipeline: Pipeline, folder: Path) -> dict[str, object]:
    settings, made_from = pipeline.settings, dict(pipeline.settings.made_from)
    parts = (
        ("U-Net", pipeline.unet),
        ("VAE", pipeline.vae),
        ("text encoder", pipeline.text_encoder),
    )
    figures: dict[str, object] = {
        f"parameters of the {name}": f"{sum(p.numel() for p in part.parameters()):,}"
        for name, part in parts
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


def _table(rows: dict[str, object]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
