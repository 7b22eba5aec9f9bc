"""Which keys an experiment's config has, their types, their ranges and what must fit together.

Values live in the JSON files alone: base.json here has what every model shares, <model>.json what
is its own. At the end is a class for each model_type.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_type_hints

from pydantic import BeforeValidator, Field

from config.edits_schema import EditsConfig
from config.model_schema import (
    AudioLDMModel,
    AUDITModel,
    AutoencoderKLModel,
    VocoderModel,
)
from config.schedule_schema import SamplerName
from config.typed_json import Count, NotNegative, Place, Positive, Share, Text, Texts, Whole, typed


@typed
class MelConfig:
    """What fixes a mel. Two mels are interchangeable exactly if these agree."""

    sample_rate: Annotated[int, Field(ge=1000, le=192000)]  # Hz
    n_fft: Annotated[int, Field(ge=16)]  # samples
    win_size: Annotated[int, Field(ge=16)]  # samples
    hop_size: Count  # samples
    n_mel: Count  # bands
    fmin: NotNegative  # Hz
    fmax: Positive  # Hz

    def __post_init__(self) -> None:
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"fmax {self.fmax:g} and fmin {self.fmin:g} must satisfy fmin < fmax <="
                f" sample_rate / 2 = {self.sample_rate / 2:g} Hz"
            )
        if not self.hop_size <= self.win_size <= self.n_fft:
            raise ValueError(
                f"hop_size {self.hop_size} <= win_size {self.win_size} <= n_fft {self.n_fft}"
                " must hold"
            )
        if (self.n_fft - self.hop_size) % 2:
            raise ValueError(
                f"n_fft - hop_size = {self.n_fft - self.hop_size} must be even: half pads each side"
            )

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when any setting does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def differences(self, other: MelConfig) -> list[str]:
        """The settings that differ, as "hop_size 256 and 160"."""
        return [
            f"{field.name} {getattr(self, field.name)} and {getattr(other, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.hop_size


MEL_KEYS = tuple(field.name for field in dataclasses.fields(MelConfig))


@typed
class PreprocessConfig(MelConfig):
    """The mel's settings, and where it goes and how much of it a model sees."""

    processed_dir: Place
    cache_dir: Place | None
    keep_wavs: bool
    valid_fraction: Share
    segment_frames: Count

    @property
    def mel(self) -> MelConfig:
        return MelConfig(**{name: getattr(self, name) for name in MEL_KEYS})


@typed
class AdamConfig:
    lr: Positive
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    eps: Positive
    weight_decay: NotNegative


@typed
class LoRAConfig:
    rank: Count
    alpha: Positive
    target: Literal["attention", "all"]
    text_encoder: bool = False  # whether it gets adapters, too


@typed
class TrainConfig:
    random_seed: Annotated[int, Field(ge=0, lt=2**32)]
    batch_size: Count
    gradient_accumulation_steps: Count
    max_steps: Count
    optimizer: Literal["adamw", "muon"]
    adam: AdamConfig
    warmup_steps: Whole
    lr_schedule: Literal["constant", "linear", "cosine"]
    grad_clip: Positive
    ema_decay: Share
    mixed_precision: Literal["auto", "no", "bf16"]
    compile: bool
    gradient_checkpointing: bool
    init_from: Place | None
    lora: LoRAConfig | None
    num_workers: Whole
    save_summary_steps: Count
    valid_interval: Count
    sample_interval: Count
    save_checkpoints_steps: Count
    keep_checkpoint_max: Count
    valid_clips: Count | None
    evaluation: Place | None

    def __post_init__(self) -> None:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} must divide"
                f" batch_size {self.batch_size}"
            )
        if self.lora is not None and self.init_from is None:
            raise ValueError("init_from null must name the model whose adapters lora trains")


@typed
class InferenceConfig:
    sampler: SamplerName
    num_steps: Count
    guidance_scale: Annotated[float, Field(ge=1)]
    guidance_mean: Annotated[float, Field(ge=0, le=1)]
    vocoder: Place
    demo_prompts: Annotated[Texts, Field(min_length=1)]


@typed
class EditingConfig(InferenceConfig):
    source_guidance: NotNegative


# ---------------------------------------------------------------- whole experiments


def _split(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


@typed
class Experiment:
    """What the config of every model has."""

    # An optimizer's moments mean nothing to another one.
    SHAPES: ClassVar = ("model_type", "train.optimizer", *(f"preprocess.{m}" for m in MEL_KEYS))
    """What a run's weights and moments are made for: it cannot change when the run goes on."""

    # dataset=ESC10,AudioCaps on a command line
    dataset: Annotated[list[Text], Field(min_length=1), BeforeValidator(_split)]
    dataset_path: dict[str, Place]
    log_dir: Place
    preprocess: PreprocessConfig
    train: TrainConfig

    def __post_init__(self) -> None:
        for name in self.dataset:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"dataset {name!r} must be a plain folder name")
        if len(set(self.dataset)) != len(self.dataset):
            raise ValueError(f"dataset {self.dataset} must name each data set once")
        if self.train.lora is not None and self.model_type not in ("AudioLDM", "AUDIT"):
            raise ValueError("train.lora is for model_type AudioLDM and AUDIT: set it to null")

    @property
    def task(self) -> str:
        """What there is to be trained, by its name in TASKS of bins/tta/train.py."""
        return self.model_type

    def to_dict(self) -> dict:
        """Plain JSON values, from which `config_from_dict` makes the same config again."""
        return dataclasses.asdict(self)


@typed
class AutoencoderKLExperiment(Experiment):
    SHAPES: ClassVar = (
        *(*Experiment.SHAPES, "model.autoencoderkl"),
        *("model.loss.disc_channels", "model.loss.disc_num_layers", "model.loss.decoder_alone"),
    )

    model_type: Literal["AutoencoderKL"]
    model: AutoencoderKLModel

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train.gradient_checkpointing:
            raise ValueError(
                "train.gradient_checkpointing is for model_type AudioLDM; in stage 1, save memory"
                " with train.gradient_accumulation_steps"
            )
        factor = self.model.autoencoderkl.downsampling
        for name in ("n_mel", "segment_frames"):
            if getattr(self.preprocess, name) % factor:
                raise ValueError(
                    f"preprocess.{name} {getattr(self.preprocess, name)} must be a multiple of"
                    f" {factor}, the downsampling of model.autoencoderkl.ch_mult"
                )


@typed
class AudioLDMExperiment(Experiment):
    SHAPES: ClassVar = (
        *(*Experiment.SHAPES, "model.latent", "model.audioldm", "model.noise_scheduler"),
        *("model.text_encoder.pretrained", "model.text_encoder.small", "train.lora"),
    )

    model_type: Literal["AudioLDM"]
    model: AudioLDMModel
    inference: InferenceConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        lora = self.train.lora
        if lora and lora.text_encoder and self.model.conditioner == "clap":
            raise ValueError(
                "train.lora.text_encoder true must be false where model.conditioner is 'clap': no"
                " text is read in training then"
            )
        (_, height, width), mel = self.model.latent, self.preprocess
        factor = mel.n_mel // height or 1
        fitting = [mel.n_mel // factor, mel.segment_frames // factor]
        if [height * factor, width * factor] != [mel.n_mel, mel.segment_frames]:
            raise ValueError(
                f"model.latent {self.model.latent} must be [z, height, width] of preprocess.n_mel"
                f" {mel.n_mel} and preprocess.segment_frames {mel.segment_frames}, both divided by"
                f" the VAE's downsampling: {fitting} where that is {factor}"
            )
        sampling = self.inference
        if fault := self.model.noise_scheduler.fault_of(sampling.sampler, sampling.num_steps):
            raise ValueError(f"inference.{fault}")
        if self.model.flow_map and self.train.lora:
            raise ValueError("train.lora must be null where model.flow_map makes a flow map")
        if self.model.flow_map and not self.train.init_from:
            raise ValueError(
                "train.init_from null must name the run that a flow map is made of (model.flow_map)"
            )

    @property
    def task(self) -> str:
        return self.model_type if self.model.flow_map is None else f"{self.model_type} flow map"


@typed
class AUDITExperiment(AudioLDMExperiment):
    model_type: Literal["AUDIT"]
    model: AUDITModel
    inference: EditingConfig


@typed
class VocoderExperiment(Experiment):
    SHORTEST: ClassVar = 1024  # samples; an STFT of 2048 reflects 768 at either end
    SHAPES: ClassVar = (
        *(*Experiment.SHAPES, "model.generator", "model.vocos", "model.hifigan"),
        "model.discriminators",
    )

    model_type: Literal["Vocoder"]
    model: VocoderModel

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gradient_checkpointing", "compile"):
            if getattr(self.train, name):
                raise ValueError(f"train.{name} is not for model_type Vocoder: set it to false")
        mel = self.preprocess
        if mel.segment_frames * mel.hop_size < self.SHORTEST:
            raise ValueError(
                f"preprocess.segment_frames {mel.segment_frames} must be at least"
                f" {-(-self.SHORTEST // mel.hop_size)}, {self.SHORTEST} samples: less is too short"
                " for the discriminators' and the loss's longest windows"
            )
        rates = self.model.hifigan.upsample_rates
        if self.model.generator == "hifigan" and math.prod(rates) != mel.hop_size:
            raise ValueError(
                f"model.hifigan.upsample_rates {rates} must multiply to preprocess.hop_size"
                f" {mel.hop_size}"
            )


@typed
class EditsExperiment(Experiment):
    """Not a model: how a data set of triplets is made."""

    model_type: Literal["Edits"]
    edits: EditsConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.dataset) != 1:
            raise ValueError(f"dataset {self.dataset} must be one: the data set that is made")
        if self.dataset[0] in (*self.edits.beds, *self.edits.events):
            raise ValueError(
                f"dataset {self.dataset} is one of edits.beds or edits.events; the data set that is"
                " made needs a name of its own"
            )
        nyquist = self.preprocess.sample_rate / 2
        if max(self.edits.cutoffs) >= nyquist:
            raise ValueError(
                f"edits.cutoffs {self.edits.cutoffs} must be below half of preprocess.sample_rate,"
                f" {nyquist:g} Hz"
            )


Config = (
    AutoencoderKLExperiment
    | AudioLDMExperiment
    | AUDITExperiment
    | VocoderExperiment
    | EditsExperiment
)
EXPERIMENTS = {get_type_hints(cls)["model_type"].__args__[0]: cls for cls in get_args(Config)}
