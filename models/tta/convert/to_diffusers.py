"""A trained model as a folder in diffusers' layout, which needs none of this repository."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.tta.convert import exported_pipeline, exported_vocos
from models.tta.convert.exported_vocos import ExportedVocos
from models.tta.convert.shapes import unet_settings, vae_settings
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.sampling import make_scheduler
from models.vocoders import griffin_lim, hifigan_v3, pieces, vocos
from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import Vocoder
from models.vocoders.saved import TrainedVocos
from processors.mel import SETTINGS_FILE
from utils.checkpoint import read_json, whole_folder, write_json
from utils.errors import UserError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin


def export(pipeline: Pipeline, vocoder: Vocoder, card: str, folder: Path) -> None:
    """Writes the folder, whole or not at all.

    vae/ unet/ scheduler/ text_encoder/ tokenizer/ vocoder/ model_index.json pipeline.py
    griffin_lim.py README.md; Griffin-Lim has no weights and so no vocoder/. `card` is the README.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    faults = {
        "CLAP's embedding of the text": pipeline.settings.unet.class_embed_dim is not None,
        "odd sizes cropped behind the convolution": pipeline.settings.unet.odd_sizes == "crop",
        "pads seen beside the negative text": pipeline.settings.pads_negative,
    }
    if wrong := [name for name, is_so in faults.items() if is_so]:
        raise UserError(
            f"an export cannot do what this model does: {', '.join(wrong)}; it would sound"
            " otherwise there than here"
        )
    settings, vae, text_encoder = pipeline.settings, pipeline.vae, pipeline.text_encoder
    vae_arguments = {**vae_settings(vae.config), "scaling_factor": 1 / float(vae.latent_std)}
    vae_weights = {name: v for name, v in vae.state_dict().items() if name != "latent_std"}
    unet_arguments, unet_weights = unet_settings(settings.unet), pipeline.unet.state_dict()
    sampling, mel = settings.sampling, dataclasses.asdict(settings.mel)
    exported = exported_pipeline.TextToAudioPipeline(
        vae=_twin(AutoencoderKL, vae_arguments, vae_weights),
        unet=_twin(UNet2DConditionModel, unet_arguments, unet_weights),
        scheduler=_scheduler(settings),
        text_encoder=text_encoder.model,
        tokenizer=text_encoder.tokenizer,
        vocoder=_component(vocoder),
        mel=mel,
        defaults={
            "frames": settings.frames,
            "num_inference_steps": sampling.num_steps,
            "guidance_scale": sampling.guidance_scale,
            "guidance_mean": sampling.guidance_mean,
            "max_tokens": text_encoder.max_tokens,
        },
    )
    with whole_folder(folder) as new:
        exported.save_pretrained(new)
        # Classes of the files beside it, and the one tokenizer that every transformers has.
        index = read_json(new / "model_index.json")
        index["_class_name"] = ["pipeline", index["_class_name"]]
        index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
        if isinstance(exported.vocoder, hifigan_v3.HifiGanV3):
            index["vocoder"][0] = "hifigan_v3"
            shutil.copyfile(hifigan_v3.__file__, new / "vocoder" / "hifigan_v3.py")
        if isinstance(exported.vocoder, ExportedVocos):
            index["vocoder"][0] = "exported_vocos"
            _write_vocos(new / "vocoder")
        write_json(new / "model_index.json", index)
        for name in ("vae", "unet", "vocoder"):
            if (new / name).is_dir():
                write_json(new / name / SETTINGS_FILE, mel)
        _write_code(new)
        (new / "README.md").write_text(card, encoding="utf-8")


def _write_code(folder: Path) -> None:
    """pipeline.py, and griffin_lim.py, which needs no other file.

    Of a local folder, diffusers copies what pipeline.py itself imports, and no more.
    """
    pipeline, vocoder, by_pieces = (
        Path(module.__file__).read_text(encoding="utf-8")
        for module in (exported_pipeline, griffin_lim, pieces)
    )
    pipeline = pipeline.replace("from models.vocoders.griffin_lim", "from .griffin_lim")
    vocoder = vocoder.replace("from models.vocoders.pieces import WHOLE, by_pieces\n", by_pieces)
    (folder / "pipeline.py").write_text(pipeline, encoding="utf-8")
    (folder / "griffin_lim.py").write_text(vocoder, encoding="utf-8")


def _scheduler(settings: PipelineSettings) -> SchedulerMixin:
    """diffusers' own class where the sampler is one that was made of it."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    sampling = settings.sampling
    scheduler = make_scheduler(sampling.sampler, settings.noise_scheduler, sampling.num_steps)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    return scheduler


def _component(vocoder: Vocoder) -> nn.Module | None:
    """What a pipeline carries of a vocoder; None for Griffin-Lim."""
    if isinstance(vocoder, HiFiGAN):
        return vocoder.generator
    if isinstance(vocoder, TrainedVocos):
        shape = dataclasses.asdict(vocoder.settings.vocos)
        twin = ExportedVocos(mel=dataclasses.asdict(vocoder.settings.mel), **shape)
        twin.generator.load_state_dict(vocoder.generator.state_dict())
        return twin
    return None


def _write_vocos(folder: Path) -> None:
    """The two files of a Vocos's code, without what they take of this repository."""
    for module in (exported_vocos, vocos):
        path = Path(module.__file__)
        source = path.read_text(encoding="utf-8").replace("models.vocoders.vocos", ".vocos")
        source = source.replace("if TYPE_CHECKING:\n    from config.schema import MelConfig\n", "")
        (folder / path.name).write_text(source, encoding="utf-8")


def _twin(cls: type, arguments: dict, weights: dict[str, Tensor]):
    """diffusers' network with our weights."""
    with torch.device("meta"):
        network = cls(**arguments)
    network.load_state_dict(weights, assign=True)
    return network
