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

Needs torch, diffusers and transformers (and a way to write a wav: here scipy).

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
        sample_rate=pipeline.mel.sample_rate,
        mel=_table(dataclasses.asdict(pipeline.mel)),
        data=_data(pipeline, folder),
        figures=_table(_figures(pipeline, folder)),
        license_text=f"The weights: {license}. `pipeline.py`: MIT."
        if license != "other"
        else "The weights: not stated by whoever trained them. `pipeline.py`: MIT.",
    )


def _data(pipeline: Pipeline, folder: Path) -> str:
    imported = _made_with(folder).get("imported_from")
    if imported is not None:
        return f"Not known here: the weights were imported from {imported}."
    return f"Trained on {', '.join(pipeline.config.dataset)}."


def _figures(pipeline: Pipeline, folder: Path) -> dict[str, object]:
    config, made_with = pipeline.config, _made_with(folder)
    vae, frames = pipeline.vae.config, config.preprocess.segment_frames
    factor = vae.downsampling
    parts = (
        ("U-Net", pipeline.unet),
        ("VAE", pipeline.vae),
        ("text encoder", pipeline.text_encoder),
    )
    figures: dict[str, object] = {
        f"parameters of the {name}": f"{sum(p.numel() for p in part.parameters()):,}"
        for name, part in parts
    }
    figures["latent"] = f"{vae.z_channels} x {pipeline.mel.n_mel // factor} x {frames // factor}"
    figures["length trained at"] = f"{frames / pipeline.mel.frames_per_second:.2f} s"
    figures["target"] = config.model.noise_scheduler.prediction_type
    state = _state(folder)
    if "step" in state:
        figures["steps"] = f"{state['step']} of {config.train.batch_size} clips"
    if state.get("best_loss") is not None:
        figures["best validation loss"] = f"{state['best_loss']:.4g} at step {state['best_step']}"
    return figures | {f"made with {name}": version for name, version in made_with.items()}


def _made_with(folder: Path) -> dict:
    return read_json(folder / "config.json").get("made_with", {})


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
