"""Experiment configs: json5 files with a `base_config` chain, checked against typed dataclasses.

    exp_config.json -> exp_config_base.json -> config/<model>.json -> config/base.json

The nearest file wins, objects merge, lists replace; `key.path=value` overrides come last. Values
live in the JSON files alone; the dataclasses here say which keys there are, their type and range.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from config.model_schema import (
    AutoencoderKLConfig,
    LossConfig,
    NoiseSchedulerConfig,
    TextEncoderConfig,
    UNetConfig,
)
from config.typed_json import ConfigError, key


@dataclass(frozen=True)
class MelConfig:
    """What fixes a mel. Two mels are interchangeable exactly if these agree."""

    sample_rate: int = key(low=1000, high=192000)  # Hz
    n_fft: int = key(low=16)  # samples
    win_size: int = key(low=16)  # samples
    hop_size: int = key(low=1)  # samples
    n_mel: int = key(low=1)  # bands
    fmin: float = key(low=0)  # Hz
    fmax: float = key(above=0)  # Hz

    def __post_init__(self) -> None:
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ConfigError(
                f"fmin {self.fmin:g} and fmax {self.fmax:g} must satisfy fmin < fmax <="
                f" sample_rate / 2 = {self.sample_rate / 2:g} Hz"
            )
        if not self.hop_size <= self.win_size <= self.n_fft:
            raise ConfigError(
                f"hop_size {self.hop_size} <= win_size {self.win_size} <= n_fft {self.n_fft}"
                " must hold"
            )
        if (self.n_fft - self.hop_size) % 2:
            raise ConfigError(
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


@dataclass(frozen=True)
class PreprocessConfig:
    processed_dir: str
    train_file: str
    valid_file: str
    test_file: str
    valid_fraction: float = key(low=0, below=1)
    sample_rate: int = key()
    n_fft: int = key()
    win_size: int = key()
    hop_size: int = key()
    n_mel: int = key()
    fmin: float = key()
    fmax: float = key()
    segment_frames: int = key(low=1)
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        _ = self.mel  # MelConfig declares and checks the ranges

    @property
    def mel(self) -> MelConfig:
        return MelConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(MelConfig)})


@dataclass(frozen=True)
class ModelConfig:
    # Stage 1
    autoencoderkl: AutoencoderKLConfig | None = None
    loss: LossConfig | None = None
    # Stage 2
    autoencoder_path: str | None = None
    text_encoder: TextEncoderConfig | None = None
    audioldm: UNetConfig | None = None
    noise_scheduler: NoiseSchedulerConfig | None = None
    caption_dropout: float | None = key(low=0, high=1, default=None)
    snr_gamma: float | None = key(above=0, default=None)


@dataclass(frozen=True)
class AdamConfig:
    lr: float = key(above=0)
    betas: list[float] = key(low=0, below=1)
    eps: float = key(above=0)
    weight_decay: float = key(low=0)

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"betas {self.betas} must be two numbers")


@dataclass(frozen=True)
class TrainConfig:
    random_seed: int = key(low=0, below=2**32)
    batch_size: int = key(low=1)
    gradient_accumulation_steps: int = key(low=1)
    max_steps: int = key(low=1)
    adam: AdamConfig = key()
    warmup_steps: int = key(low=0)
    lr_schedule: str = key(choices=("constant", "linear", "cosine"))
    grad_clip: float = key(above=0)
    ema_decay: float = key(low=0, below=1)
    mixed_precision: str = key(choices=("auto", "no", "bf16"))
    compile: bool = key()
    gradient_checkpointing: bool = key()
    init_from: str | None = key()
    num_workers: int = key(low=0)
    save_summary_steps: int = key(low=1)
    valid_interval: int = key(low=1)
    sample_interval: int = key(low=1)
    save_checkpoints_steps: int = key(low=1)
    keep_checkpoint_max: int = key(low=1)
    valid_clips: int | None = key(low=1)

    def __post_init__(self) -> None:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ConfigError(
                f"gradient_accumulation_steps {self.gradient_accumulation_steps} must divide"
                f" batch_size {self.batch_size}"
            )


@dataclass(frozen=True)
class InferenceConfig:
    sampler: str = key(choices=("ddim", "dpm++", "pndm", "unipc"))
    num_steps: int = key(low=1)
    guidance_scale: float = key(low=1)
    vocoder: str = key()
    demo_prompts: list[str] = key()


def fault_of_steps(sampler: str, num_steps: int, timesteps: int) -> str | None:
    """The rule that so many steps of a sampler break on a schedule of `timesteps`, or None."""
    if num_steps > timesteps:
        return f"must be at most {timesteps}, as trained"
    # diffusers' steps of pndm are whole timesteps: rounded off often enough, they leave noise.
    if sampler == "pndm" and num_steps > timesteps // 10 and timesteps % num_steps:
        return (
            f"must be at most {timesteps // 10}, or divide {timesteps}, where the sampler is pndm"
        )
    return None


STAGE_KEYS = {
    "AutoencoderKL": ("autoencoderkl", "loss"),
    "AudioLDM": ("text_encoder", "audioldm", "noise_scheduler", "caption_dropout"),
}


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    dataset: list[str]
    dataset_path: dict[str, str]
    log_dir: str
    preprocess: PreprocessConfig
    train: TrainConfig
    model_type: str = key(choices=tuple(STAGE_KEYS))
    model: ModelConfig = key()
    inference: InferenceConfig | None = None

    def __post_init__(self) -> None:
        for name in self.dataset:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ConfigError(f"dataset {name!r} must be a plain folder name")
        if not self.dataset or len(set(self.dataset)) != len(self.dataset):
            raise ConfigError(f"dataset {self.dataset} must name at least one data set, each once")
        for stage, keys in STAGE_KEYS.items():
            for name in keys:
                present = getattr(self.model, name) is not None
                if present != (stage == self.model_type):
                    rule = "is needed by" if not present else "does not belong in"
                    raise ConfigError(
                        f"model.{name} {rule} a config of model_type {self.model_type}"
                    )
        if self.train.gradient_checkpointing and self.model_type != "AudioLDM":
            raise ConfigError(
                "train.gradient_checkpointing is for model_type AudioLDM; in stage 1, save memory"
                " with train.gradient_accumulation_steps"
            )
        if self.model.autoencoderkl is not None:
            factor = self.model.autoencoderkl.downsampling
            for name in ("n_mel", "segment_frames"):
                if getattr(self.preprocess, name) % factor:
                    raise ConfigError(
                        f"preprocess.{name} {getattr(self.preprocess, name)} must be a multiple of"
                        f" {factor}, the downsampling of model.autoencoderkl.ch_mult"
                    )
        if self.model_type == "AudioLDM":
            if self.inference is None:
                raise ConfigError("inference is needed by a config of model_type AudioLDM")
            steps = self.inference.num_steps
            schedule = self.model.noise_scheduler.num_train_timesteps
            if fault := fault_of_steps(self.inference.sampler, steps, schedule):
                raise ConfigError(f"inference.num_steps {steps} {fault}")
            text, unet = self.model.text_encoder, self.model.audioldm
            if text.learns and text.small.d_model != unet.context_dim:
                raise ConfigError(
                    f"model.text_encoder.small.d_model {text.small.d_model} and"
                    f" model.audioldm.context_dim {unet.context_dim} must be equal"
                )

    def to_dict(self) -> dict:
        """Plain JSON values, from which `config_from_dict` makes the same config again."""
        return dataclasses.asdict(self)
