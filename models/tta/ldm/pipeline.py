"""Sentence to mel: T5 -> sampler with the U-Net -> VAE decoder; and its folder on disk."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config.model_schema import UNetConfig
from config.schedule_schema import NoiseSchedulerConfig
from config.schema import AudioLDMExperiment, MelConfig
from config.typed_json import ConfigError, build, typed
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import load_vae, save_vae
from models.tta.ldm.clap_text import ClapText
from models.tta.ldm.known import Known, last_part, noised, sample_around
from models.tta.ldm.lora import TEXT_ENCODER, Adapter, merge
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.sampling import (
    Denoiser,
    OnStep,
    SamplingSettings,
    guided,
    make_scheduler,
    sample,
    starting_noise,
    watched,
)
from models.tta.ldm.source import SourceMel
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.tta.ldm.windows import by_windows, windowed
from models.tta.pipeline_json import picked, read_settings, write_settings
from processors.mel import check_mel
from utils.checkpoint import read_weights_into, save_tensors
from utils.device import memory_format, precision
from utils.run_folder import WEIGHTS, described

MODEL_TYPE = "AudioLDM"


@typed
class PipelineSettings:
    """What pipeline.json holds: all that inference needs to know besides the weights."""

    mel: MelConfig
    frames: int  # of the mels that it was trained on
    unet: UNetConfig
    noise_scheduler: NoiseSchedulerConfig
    max_tokens: int  # of a text
    sampling: SamplingSettings  # where nothing else is asked for
    vocoder: str  # likewise: a name, or a folder in this one
    mixed_precision: str  # "auto", "no" or "bf16"
    made_from: dict[str, str]  # for people: data sets, commit and versions, or what was imported
    pads_negative: bool = False  # see `TextEncoder.encode_guided`

    @classmethod
    def of(cls, config: AudioLDMExperiment) -> PipelineSettings:
        """Those of a training."""
        data = _from_training(described(config.to_dict()))
        return build(cls, data, "config")

    @classmethod
    def read(cls, folder: Path) -> PipelineSettings:
        """Those of a stage-2 checkpoint, final or imported folder."""
        return read_settings(folder, MODEL_TYPE, cls, _from_training)

    def write(self, folder: Path) -> None:
        write_settings(folder, MODEL_TYPE, self)

    def vocoder_of(self, folder: Path) -> str:
        """The vocoder's name for `load_vocoder`: one that was imported with the rest lies inside"""
        return str(folder / self.vocoder) if (folder / self.vocoder).is_dir() else self.vocoder

    def sampling_with(self, **changes: object) -> SamplingSettings:
        """The sampling settings with those changes that are not None, checked."""
        given = {name: value for name, value in changes.items() if value is not None}
        sampling = dataclasses.replace(self.sampling, **given)
        if fault := self.noise_scheduler.fault_of(sampling.sampler, sampling.num_steps):
            raise ConfigError(fault)
        return sampling


def _from_training(config: dict[str, Any]) -> dict[str, Any]:
    """The settings in the config.json of a training."""
    preprocess, inference, model = config["preprocess"], config["inference"], config["model"]
    mel, frames = picked(MelConfig, preprocess), preprocess["segment_frames"]
    names = ("sampler", "num_steps", "guidance_scale", "guidance_mean")
    made_with = {name: str(value) for name, value in config.get("made_with", {}).items()}
    return {
        "mel": mel,
        "frames": frames,
        "unet": picked(UNetConfig, model["audioldm"]),
        "noise_scheduler": picked(NoiseSchedulerConfig, model["noise_scheduler"]),
        "max_tokens": model["text_encoder"]["max_tokens"],
        "sampling": {
            **{name: inference[name] for name in names if name in inference},
            "duration": frames * mel["hop_size"] / mel["sample_rate"],
        },
        "vocoder": inference["vocoder"],
        "mixed_precision": config["train"]["mixed_precision"],
        "made_from": {
            "dataset": ", ".join(config["dataset"]),
            "batch_size": str(config["train"]["batch_size"]),
            **made_with,
        },
    }


def text_encoder_class(unet: UNetConfig) -> type[TextEncoder]:
    """What encodes the texts of such a U-Net: a T5, or CLAP where a text is one vector."""
    return TextEncoder if unet.class_embed_dim is None else ClapText


class Pipeline:
    """What turns texts into mels, with the settings that it was trained under."""

    settings_type = PipelineSettings
    weights_file = WEIGHTS[MODEL_TYPE]

    def __init__(
        self,
        settings: PipelineSettings,
        unet: UNet,
        vae: AutoencoderKL,
        text_encoder: TextEncoder,
        autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> None:
        self.settings = settings
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.autocast = autocast

    @torch.no_grad()
    def __call__(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingSettings | None = None,
        source: SourceMel | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """mel [B, n_mel, frames], one for each text and seed, whatever else is in the batch.

        Args:
            sampling: tells all but the seeds; None: the pipeline's own.
            source: the sound that is changed, where `sampling` names one.
            on_step: called after each step of the sampler.
        """
        sampling = sampling or self.settings.sampling
        if (source is None) != (sampling.audio is None):
            raise ValueError(f"settings for the audio {sampling.audio}, and source {source}")
        mel, device = self.settings.mel, next(self.unet.parameters()).device
        whole = sampling.whole_frames(mel, self.vae.config.downsampling)
        shape = self.vae.config.latent_shape(mel.n_mel, whole)
        noise = starting_noise(shape, seeds, device)
        scheduler = make_scheduler(
            sampling.sampler, self.settings.noise_scheduler, sampling.num_steps
        )
        scheduler = last_part(scheduler, sampling.strength)
        with self.autocast():
            start = known = None
            if source is not None:
                known = Known(self.encode(source.mel.to(device)), source.remade.to(device))
                start = noised(scheduler, known.latent, noise) if sampling.strength < 1 else None
            denoise = self.denoiser(texts, sampling, noise, known)
            if on_step:
                steps = len(scheduler.timesteps) * sampling.resample
                denoise = watched(denoise, on_step, steps)
            if known is None or known.remade.all():
                latent = sample(denoise, scheduler, noise, start)
            else:
                latent = sample_around(
                    denoise, scheduler, noise, known, start, sampling.resample, seeds
                )
            mels = self.decode(latent)
        return mels[:, 0, :, : sampling.frames(mel)].float()

    def denoiser(
        self, texts: Sequence[str], sampling: SamplingSettings, noise: Tensor, known: Known | None
    ) -> Denoiser:
        """The U-Net's prediction for these texts and for latents of the noise's shape."""
        scale, negative = sampling.guidance_scale, sampling.negative_text
        share = sampling.guidance_mean
        denoise = guided(self.unet, self.text_encoder, texts, negative, scale, share)
        return windowed(denoise, noise.shape[3], self.columns)

    @property
    def columns(self) -> int:
        """Of the latents that it was trained on; longer ones are worked on in such windows."""
        return self.settings.frames // self.vae.config.downsampling

    def encode(self, mel: Tensor) -> Tensor:
        """mel [B, 1, n_mel, frames] -> the posterior's mean, scaled [B, z, n_mel/f, frames/f]"""
        vae, columns = self.vae, mel.shape[3] // self.vae.config.downsampling
        return by_windows(lambda x: vae.scale(vae.encode(x).mean), mel, columns, self.columns)

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latent [B, z, n_mel/f, frames/f] -> mel [B, 1, n_mel, frames]"""
        vae = self.vae
        return by_windows(
            lambda x: vae.decode(vae.unscale(x)), latent, latent.shape[3], self.columns
        )

    @torch.no_grad()
    def round_trip(self, mel: Tensor) -> Tensor:
        """mel [B, 1, n_mel, frames] through the VAE, in float32"""
        with self.autocast():
            return self.decode(self.encode(mel.to(next(self.unet.parameters()).device))).float()

    def for_inference(self, device: torch.device) -> Pipeline:
        """This pipeline on `device`, frozen.

        U-Net and VAE are in the precision that mixed_precision means there, T5 in float32.
        """
        for module in (self.unet, self.vae):
            module.requires_grad_(False).eval().to(device, memory_format=memory_format(device))
            if precision(self.settings.mixed_precision, device) == "bf16":
                module.set_precision(torch.bfloat16)
        self.text_encoder.requires_grad_(False).eval().to(device)
        return self

    def write(self, folder: Path) -> None:
        """Writes all that `load_pipeline` takes."""
        self.settings.write(folder)
        save_tensors(folder / self.weights_file, self.unet.state_dict())
        save_vae(folder / "vae", self.vae, self.settings.mel)
        self.text_encoder.save(folder / "text_encoder")


def load_pipeline(
    folder: Path,
    device: str | torch.device,
    kind: type[Pipeline] = Pipeline,
    adapters: Sequence[Adapter] = (),
) -> Pipeline:
    """The pipeline in a stage-2 checkpoint or final folder, to make mels on `device`."""
    return read_pipeline(folder, kind, adapters).for_inference(torch.device(device))


def read_pipeline(
    folder: Path, kind: type[Pipeline] = Pipeline, adapters: Sequence[Adapter] = ()
) -> Pipeline:
    """The pipeline in a stage-2 checkpoint or final folder, its weights as they are there.

    `adapters` of these weights are added to them; those of others are a UserError.
    """
    settings = kind.settings_type.read(folder)
    for adapter in adapters:
        adapter.check_base(folder)
    saved = load_vae(folder / "vae")
    check_mel(settings.mel, saved.mel, folder / "vae")
    text = text_encoder_class(settings.unet).from_pretrained(
        str(folder / "text_encoder"), settings.max_tokens
    )
    text.pads_negative = settings.pads_negative
    unet = UNet(settings.unet, NoiseSchedule(settings.noise_scheduler))
    weights = folder / kind.weights_file
    read_weights_into(unet, weights)
    merge(unet, adapters)
    merge(text.model, adapters, TEXT_ENCODER)
    return kind(settings, unet, saved.vae, text)
