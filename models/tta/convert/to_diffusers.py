"""A trained model as a folder in diffusers' layout, which needs none of this repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch
from torch import Tensor

from models.tta.convert import exported_pipeline
from models.tta.convert.shapes import unet_settings, vae_settings
from models.tta.ldm.pipeline import Pipeline
from models.tta.ldm.sampling import make_scheduler
from models.vocoders import griffin_lim, hifigan_v3
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import Vocoder
from models.vocoders.saved import TrainedVocos
from processors.mel import SETTINGS_FILE
from utils.checkpoint import whole_folder, write_json
from utils.errors import UserError


def export(pipeline: Pipeline, vocoder: Vocoder, card: str, folder: Path) -> None:
    """Writes the folder, whole or not at all.

    vae/ unet/ scheduler/ text_encoder/ tokenizer/ vocoder/ model_index.json pipeline.py
    griffin_lim.py README.md; Griffin-Lim has no weights and so no vocoder/. `card` is the README.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if isinstance(vocoder, TrainedVocos):
        raise UserError(
            "an export does not carry a Vocos, which diffusers and transformers do not know; to"
            " export with Griffin-Lim, run the same command with --vocoder griffin_lim"
        )
    settings, vae = pipeline.settings, pipeline.vae
    vae_arguments = {**vae_settings(vae.config), "scaling_factor": 1 / float(vae.latent_std)}
    vae_weights = {name: v for name, v in vae.state_dict().items() if name != "latent_std"}
    unet_arguments = unet_settings(settings.unet)
    models = {
        "vae": _twin(AutoencoderKL, vae_arguments, vae_weights),
        "unet": _twin(UNet2DConditionModel, unet_arguments, pipeline.unet.state_dict()),
    }
    if isinstance(vocoder, HiFiGAN):
        models["vocoder"] = vocoder.generator
    sampling = settings.sampling
    scheduler = make_scheduler(sampling.sampler, settings.noise_scheduler, sampling.num_steps)
    with whole_folder(folder) as new:
        for name, model in models.items():
            model.save_pretrained(new / name)
            write_json(new / name / SETTINGS_FILE, dataclasses.asdict(pipeline.settings.mel))
        scheduler.save_pretrained(new / "scheduler")
        pipeline.text_encoder.model.save_pretrained(new / "text_encoder")
        pipeline.text_encoder.tokenizer.save_pretrained(new / "tokenizer")
        if isinstance(models.get("vocoder"), hifigan_v3.HifiGanV3):
            shutil.copyfile(hifigan_v3.__file__, new / "vocoder" / "hifigan_v3.py")
        write_json(new / "model_index.json", _index(pipeline, {**models, "scheduler": scheduler}))
        source = Path(exported_pipeline.__file__).read_text(encoding="utf-8")
        source = source.replace("from models.vocoders.griffin_lim", "from .griffin_lim")
        (new / "pipeline.py").write_text(source, encoding="utf-8")
        shutil.copyfile(griffin_lim.__file__, new / "griffin_lim.py")
        (new / "README.md").write_text(card, encoding="utf-8")


def _twin(cls: type, arguments: dict, weights: dict[str, Tensor]):
    """diffusers' network with our weights."""
    with torch.device("meta"):
        network = cls(**arguments)
    network.load_state_dict(weights, assign=True)
    return network


def _index(pipeline: Pipeline, parts: dict) -> dict:
    """model_index.json: which class each part is of, and the pipeline's own settings."""
    import diffusers

    settings = pipeline.settings
    index = {
        "_class_name": ["pipeline", exported_pipeline.TextToAudioPipeline.__name__],
        "_diffusers_version": diffusers.__version__,
    }
    for name in ("vae", "unet", "scheduler"):
        index[name] = ["diffusers", type(parts[name]).__name__]
    index["text_encoder"] = ["transformers", type(pipeline.text_encoder.model).__name__]
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]  # under any version of it
    index["vocoder"] = [None, None]
    if "vocoder" in parts:
        plain = isinstance(parts["vocoder"], hifigan_v3.HifiGanV3)
        library = "hifigan_v3" if plain else "transformers"
        index["vocoder"] = [library, type(parts["vocoder"]).__name__]
    index["mel"] = dataclasses.asdict(pipeline.settings.mel)
    index["defaults"] = {
        "frames": settings.frames,
        "num_inference_steps": settings.sampling.num_steps,
        "guidance_scale": settings.sampling.guidance_scale,
        "max_tokens": pipeline.text_encoder.max_tokens,
    }
    return index
