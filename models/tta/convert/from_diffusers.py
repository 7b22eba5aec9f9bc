"""Folders in diffusers' layout: vae/, unet/, vocoder/, or a whole text-to-audio pipeline of them.

diffusers' AudioLDM pipelines work on [time, mel]; what this repository exports works on
[mel, time] and says so by a mel_config.json beside the weights.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from config.model_schema import UNetConfig, VocosConfig
from config.schema import MelConfig
from config.typed_json import build
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.convert.imported import Imported, with_weights
from models.tta.convert.latent_diffusion import transposed
from models.tta.convert.shapes import (
    check_settings,
    unet_settings,
    unet_shape,
    vae_settings,
    vae_shape,
)
from models.tta.ldm.pipeline import PipelineSettings, text_encoder_class
from models.tta.ldm.sampling import FLOW_SAMPLERS, LEADING, SAMPLERS
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.hifigan import make_hifigan
from models.vocoders.saved import TrainedVocos, VocoderSettings
from processors.mel import SETTINGS_FILE
from utils.checkpoint import read_json, save_tensors
from utils.errors import UserError
from utils.weight_files import read_weights

# What attention was called in files of diffusers before 0.18.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# What a pipeline's own call has as its defaults, by the class that model_index.json names.
CALLS = {"AudioLDMPipeline": {"guidance_scale": 2.5}}
# What a scheduler may do to the schedule or the prediction, and none does here.
NOT_HERE = ("rescale_betas_zero_snr", "trained_betas", "thresholding")
MAX_TOKENS = 512  # of a text, where model_index.json does not say: RoBERTa's and T5's limit
VOCODER_TYPES = ("speecht5_hifigan", "hifigan")  # the second until transformers 4


def read_diffusers(folders: list[Path], defaults: PipelineSettings, layout: str | None) -> Imported:
    """The networks in these folders.

    Args:
        folders: a network's each, or a pipeline's.
        defaults: what the folders do not tell.
        layout: "time_mel" or "mel_time"; None: "mel_time" beside a mel_config.json, else
            "time_mel".
    """
    found = Imported(defaults)
    for folder in folders:
        if (folder / "model_index.json").is_file():
            _read_pipeline(folder, found, layout)
        else:
            _read_network(folder, found, layout)
    found.take_patches()
    return found


def _read_network(folder: Path, found: Imported, layout: str | None) -> None:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: must be a folder in diffusers' layout (vae/, unet/, vocoder/, or a whole"
            " pipeline), not a file; single files are imported --from amphion, audioldm or hifigan"
            if folder.exists()
            else f"{folder}: no such folder"
        )
    settings = read_json(folder / "config.json")
    kind = settings.get("_class_name") or settings.get("model_type")
    if (folder / SETTINGS_FILE).is_file():
        path = folder / SETTINGS_FILE
        found.take_mel(build(MelConfig, read_json(path), path), folder)
        layout = layout or "mel_time"
    if kind == "AutoencoderKL":
        _read_vae(folder, settings, found, layout)
    elif kind == "UNet2DConditionModel":
        _read_unet(folder, settings, found, layout)
    elif kind in VOCODER_TYPES:
        _read_vocoder(folder, settings, found)
    elif kind == "ExportedVocos":
        _read_vocos(folder, settings, found)
    else:
        raise UserError(
            f"{folder}: of class {kind}; an AutoencoderKL, a UNet2DConditionModel or a"
            " SpeechT5HifiGan is wanted, or a pipeline of them (of others, import vae/ or vocoder/"
            " alone)"
        )


def _read_vae(folder: Path, settings: dict, found: Imported, layout: str | None) -> None:
    import diffusers

    tensors = {
        ".".join(OLD_NAMES.get(part, part) for part in name.split(".")): value
        for name, value in _network_tensors(folder, layout).items()
    }
    shape = vae_shape(tensors, folder)
    check_settings(settings, vae_settings(shape), diffusers.AutoencoderKL, folder)
    scaling = settings.get("scaling_factor", 0.18215)  # diffusers' default
    if not isinstance(scaling, float | int) or not 0 < scaling < math.inf:
        raise UserError(f"{folder / 'config.json'}: scaling_factor {scaling!r} must be above 0")
    tensors["latent_std"] = torch.tensor(1 / scaling)
    found.add("vae", with_weights(AutoencoderKL(shape), tensors, folder), folder)


def unet_config(settings: dict, tensors: dict[str, Tensor], folder: Path) -> UNetConfig:
    """The shape of the U-Net with this config.json and these weights; UserError: it is no such."""
    from diffusers import UNet2DConditionModel

    heads = settings.get("attention_head_dim", 8)  # diffusers' default; it counts heads
    if isinstance(heads, list) and heads == heads[:1] * len(heads):
        heads = heads[0]
    shape = unet_shape(tensors, heads, folder)
    check_settings(settings, unet_settings(shape), UNet2DConditionModel, folder)
    return shape


def _read_unet(folder: Path, settings: dict, found: Imported, layout: str | None) -> None:
    tensors = _network_tensors(folder, layout)
    shape = unet_config(settings, tensors, folder)
    found.add("unet", with_weights(UNet(shape), tensors, folder), folder)
    found.settings = dataclasses.replace(found.settings, unet=shape)


def _read_vocoder(folder: Path, settings: dict, found: Imported) -> None:
    """A SpeechT5HifiGan; what its files do not tell of its mel is as it was."""
    mel = found.settings.mel
    if not (folder / SETTINGS_FILE).is_file():
        try:
            known = {
                "sample_rate": settings["sampling_rate"],
                "hop_size": math.prod(settings["upsample_rates"]),
                "n_mel": settings["model_in_dim"],
            }
            mel = dataclasses.replace(mel, **known)
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / 'config.json'}: no SpeechT5HifiGan: {error}") from None
        found.take_mel(mel, folder)
    settings = {**settings, "model_type": VOCODER_TYPES[0]}
    tensors = read_weights(_weights_file(folder, TRANSFORMERS))
    found.add("vocoder", make_hifigan(settings, mel, tensors, folder), folder)


def _read_vocos(folder: Path, settings: dict, found: Imported) -> None:
    """A Vocos that was exported from here."""
    shape = {name: settings.get(name) for name in ("dim", "intermediate_dim", "num_layers")}
    of_vocos = VocoderSettings(
        found.settings.mel, build(VocosConfig, shape, folder / "config.json")
    )
    tensors = read_weights(_weights_file(folder, NETWORK))
    tensors = {name.removeprefix("generator."): value for name, value in tensors.items()}
    generator = with_weights(of_vocos.make(), tensors, folder)
    found.add("vocoder", TrainedVocos(generator, of_vocos), folder)


NETWORK = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")


def _network_tensors(folder: Path, layout: str | None) -> dict[str, Tensor]:
    """The weights in a folder of diffusers, for [mel, time]."""
    tensors = read_weights(_weights_file(folder, NETWORK))
    return tensors if layout == "mel_time" else transposed(tensors)


def _weights_file(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no weights there; {' or '.join(names)} is wanted")


# ---------------------------------------------------------------- whole pipelines


def _read_pipeline(folder: Path, found: Imported, layout: str | None) -> None:
    index = read_json(folder / "model_index.json")
    if not isinstance(index.setdefault("defaults", {}), dict):
        raise UserError(f"{folder / 'model_index.json'}: defaults must be an object")
    for name in ("vae", "unet", "vocoder"):
        if isinstance(index.get(name), list) and index[name][:1] != [None]:
            _read_network(folder / name, found, layout)
    if "text_encoder" in index:
        limit = index["defaults"].setdefault("max_tokens", MAX_TOKENS)
        kind = text_encoder_class(found.settings.unet)
        found.add("text_encoder", _read_text_encoder(folder, kind, limit), folder)
    _take_pipeline_settings(found, index, folder)


def _read_text_encoder(folder: Path, kind: type[TextEncoder], max_tokens: int) -> TextEncoder:
    """A text encoder and its tokenizer, which share a folder here."""
    with tempfile.TemporaryDirectory() as together:
        for part in ("text_encoder", "tokenizer"):
            if not (folder / part).is_dir():
                raise UserError(f"{folder / part}: no such folder")
            shutil.copytree(folder / part, together, dirs_exist_ok=True)
        safe, pickled = (Path(together, name) for name in TRANSFORMERS)
        if not safe.is_file() and pickled.is_file():
            save_tensors(safe, read_weights(pickled))
        return kind.from_pretrained(together, max_tokens)


def _take_pipeline_settings(found: Imported, index: dict, folder: Path) -> None:
    """Takes a pipeline's noise schedule, sampler, lengths, steps and guidance."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if strange := [f"{name} is {scheduler[name]!r}" for name in NOT_HERE if scheduler.get(name)]:
        raise UserError(f"{folder / 'scheduler'}: {', '.join(strange)}, which is not known here")
    settings = found.settings
    defaults = {**CALLS.get(str(index.get("_class_name")), {}), **index["defaults"]}
    data = dataclasses.asdict(settings)
    # Where a foreign sampler lays its steps is its own affair, but for what is known here.
    of_schedule = data["noise_scheduler"].keys() - {
        *("steps_offset", "skip_prk_steps", "timestep_spacing")
    }
    data["noise_scheduler"] |= {n: scheduler[n] for n in of_schedule if n in scheduler}
    data["noise_scheduler"]["timestep_spacing"] = "trailing"
    if scheduler.get("_class_name") == FLOW_SAMPLERS["euler"][0]:
        data["noise_scheduler"]["prediction_type"] = "flow_prediction"
    if scheduler.get("_class_name") in LEADING.values():
        if (spacing := _spacing(scheduler)) is None:
            found.notes.append(
                f"its {scheduler['_class_name']} lays its steps by timestep_spacing"
                f" {scheduler.get('timestep_spacing', 'leading')!r} and steps_offset"
                f" {scheduler.get('steps_offset', 0)}, which is not known here: the samplers of"
                " this repository start at the last timestep"
            )
        data["noise_scheduler"]["timestep_spacing"] = spacing or "trailing"
    elif _sampler_of(scheduler) is None:
        found.notes.append(
            f"its {scheduler.get('_class_name')} is not known here;"
            f" {data['sampling']['sampler']} takes its place"
        )
    data |= {name: defaults[name] for name in ("frames", "max_tokens") if name in defaults}
    data["sampling"]["sampler"] = _sampler_of(scheduler) or data["sampling"]["sampler"]
    same = ("guidance_scale",) * 2, ("guidance_mean",) * 2
    for ours, theirs in (("num_steps", "num_inference_steps"), *same):
        data["sampling"][ours] = defaults.get(theirs, data["sampling"][ours])
    if isinstance(data["frames"], int):
        data["sampling"]["duration"] = data["frames"] / settings.mel.frames_per_second
    found.settings = build(PipelineSettings, data, folder)


def _spacing(scheduler: dict) -> str | None:
    """Where a DDIM or PNDM scheduler starts, or None where that is not known here."""
    spacing = scheduler.get("timestep_spacing", "leading")  # diffusers' default
    if spacing == "leading" and scheduler.get("steps_offset", 0) != 1:
        return None
    return spacing if spacing in ("leading", "trailing") else None


def _sampler_of(scheduler: dict) -> str | None:
    """The sampler with all settings of a scheduler_config.json, else the one of its class."""
    kind = {"DDIMScheduler": "ddim"}.get(scheduler.get("_class_name"))
    for name, (class_name, settings) in [*SAMPLERS.items(), *FLOW_SAMPLERS.items()]:
        if scheduler.get("_class_name") == class_name:
            kind = kind or name
            if settings.items() <= scheduler.items():
                return name
    return kind
