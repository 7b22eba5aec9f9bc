"""A trained model as a folder in diffusers' layout, which needs none of this repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch
from torch import Tensor

from models.tta.convert import exported_pipeline
from models.tta.convert.diffusers_settings import unet_settings, vae_settings
from models.tta.ldm.pipeline import Pipeline, make_sampler
from models.vocoders import hifigan_v3
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import Vocoder
from processors.mel import SETTINGS_FILE
from utils.checkpoint import whole_folder, write_json


def export(pipeline: Pipeline, vocoder: Vocoder, card: str, folder: Path) -> None:
    """Writes the folder, whole or not at all.

    vae/ unet/ scheduler/ text_encoder/ tokenizer/ vocoder/ model_index.json pipeline.py README.md;
    Griffin-Lim has no weights and so no vocoder/. `card` is the README.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    config, vae = pipeline.config, pipeline.vae
    vae_arguments = {**vae_settings(vae.config), "scaling_factor": 1 / float(vae.latent_std)}
    vae_weights = {name: v for name, v in vae.state_dict().items() if name != "latent_std"}
    unet_arguments = unet_settings(config.model.audioldm)
    models = {
        "vae": _twin(AutoencoderKL, vae_arguments, vae_weights),
        "unet": _twin(UNet2DConditionModel, unet_arguments, pipeline.unet.state_dict()),
    }
    if isinstance(vocoder, HiFiGAN):
        models["vocoder"] = vocoder.generator
    scheduler = make_sampler(config.inference.sampler, config.model.noise_scheduler)
    with whole_folder(folder) as new:
        for name, model in models.items():
            model.save_pretrained(new / name)
            write_json(new / name / SETTINGS_FILE, dataclasses.asdict(pipeline.mel))
        scheduler.save_pretrained(new / "scheduler")
        pipeline.text_encoder.model.save_pretrained(new / "text_encoder")
        pipeline.text_encoder.tokenizer.save_pretrained(new / "tokenizer")
        if isinstance(models.get("vocoder"), hifigan_v3.HifiGanV3):
            shutil.copyfile(hifigan_v3.__file__, new / "vocoder" / "hifigan_v3.py")
        write_json(new / "model_index.json", _index(pipeline, {**models, "scheduler": scheduler}))
        shutil.copyfile(exported_pipeline.__file__, new / "pipeline.py")
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

    config = pipeline.config
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
    index["mel"] = dataclasses.asdict(pipeline.mel)
    index["defaults"] = {
        "frames": config.preprocess.segment_frames,
        "num_inference_steps": config.inference.num_steps,
        "guidance_scale": config.inference.guidance_scale,
        "max_tokens": pipeline.text_encoder.max_tokens,
    }
    return index
