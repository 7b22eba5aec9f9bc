"""The keys below `model.` and samplers: shapes of networks, losses and the noise schedule."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from config.typed_json import Count, NotNegative, Place, Positive, Whole, fixed, typed

NormWidth = Annotated[int, Field(ge=32, multiple_of=32)]  # channels that group norms divide
SmallNormWidth = Annotated[int, Field(ge=16, multiple_of=16)]
Counts = Annotated[list[Count], Field(min_length=1)]
Beta = Annotated[float, Field(gt=0, lt=1)]


def norm_groups(channels: int) -> int:
    """Groups of a network's group norms: 32, or fewer so that 4 channels share one.

    With a group for each channel, the level of what a channel carries would be lost.
    """
    return min(32, channels // 4)


@typed
class AutoencoderKLConfig:
    ch: SmallNormWidth
    ch_mult: Counts
    num_res_blocks: Count
    attention: bool
    in_channels: Annotated[int, fixed(1, "a mel has one channel")]
    out_ch: Annotated[int, fixed(1, "a mel has one channel")]
    z_channels: Count
    double_z: Annotated[bool, fixed(True, "the encoder gives mean and log-variance")]

    @property
    def norm_groups(self) -> int:
        return norm_groups(self.ch)

    @property
    def downsampling(self) -> int:
        """Mel frames (and bands) per latent column (and row)."""
        return 2 ** (len(self.ch_mult) - 1)

    def latent_shape(self, n_mel: int, frames: int) -> tuple[int, int, int]:
        """[z, height, width] of the latent of a mel; `downsampling` divides both its sizes."""
        return self.z_channels, n_mel // self.downsampling, frames // self.downsampling


@typed
class VocosConfig:
    dim: Count
    intermediate_dim: Count
    num_layers: Count


@typed
class HiFiGANConfig:
    """The keys of HiFi-GAN's published config.json, under their names there."""

    upsample_initial_channel: Count
    upsample_rates: Counts
    upsample_kernel_sizes: Counts
    resblock_kernel_sizes: Counts
    resblock_dilation_sizes: Annotated[list[Counts], Field(min_length=1)]

    def __post_init__(self) -> None:
        for one, other in (
            ("upsample_rates", "upsample_kernel_sizes"),
            ("resblock_kernel_sizes", "resblock_dilation_sizes"),
        ):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise ValueError(f"{one} and {other} must have as many entries as each other")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate:
                raise ValueError(
                    f"upsample_kernel_sizes {kernel} must be at least its rate, {rate}"
                )
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise ValueError(
                f"upsample_initial_channel {self.upsample_initial_channel} must be a multiple of"
                f" {2 ** len(self.upsample_rates)}: each of upsample_rates halves it"
            )


@typed
class DiscriminatorsConfig:
    period_channels: NormWidth
    resolution_channels: Whole


@typed
class VocoderLossConfig:
    mel_weight: Positive
    feature_weight: NotNegative
    adversarial_weight: NotNegative
    disc_start: Whole


@typed
class LossConfig:
    logvar_init: float
    level_weight: NotNegative
    kl_weight: NotNegative
    disc_start: Whole
    disc_weight: NotNegative
    disc_factor: NotNegative
    disc_channels: Annotated[int, Field(ge=8, multiple_of=8)]
    disc_num_layers: Count
    max_adapt_d_weight: Positive


@typed
class UNetConfig:
    in_channels: Count
    out_channels: Count
    model_channels: NormWidth
    channel_mult: Counts
    num_res_blocks: Count
    attention_resolutions: list[Count]
    num_heads: Count | Counts
    transformer_depth: Count | Counts
    context_dim: Count | None
    # What follows has a default, since weights of before it say nothing of it.
    class_embed_dim: Count | None = None
    linear_projections: bool = False
    odd_sizes: Literal["resize", "crop"] = "resize"
    patch_size: Count = 1

    def __post_init__(self) -> None:
        for name in ("num_heads", "transformer_depth"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != len(self.channel_mult):
                raise ValueError(
                    f"{name} {value} must be one number, or one for each of the"
                    f" {len(self.channel_mult)} levels of channel_mult"
                )
        for level in range(self.lowest + 1):
            heads = self.at_level("num_heads", level)
            if self.width(level) % heads:
                raise ValueError(
                    f"num_heads {heads} must divide model_channels x channel_mult ="
                    f" {self.width(level)}"
                )
        if (self.context_dim is None) == (self.class_embed_dim is None):
            raise ValueError(
                f"context_dim {self.context_dim} and class_embed_dim {self.class_embed_dim}: one of"
                " them must be null; a text is looked up by attention, or goes along with the time"
            )
        reachable = [2**level for level in range(len(self.channel_mult))]
        for factor in self.attention_resolutions:
            if factor not in reachable:
                raise ValueError(
                    f"attention_resolutions {factor} must be one of {reachable}, the downsampling"
                    f" factors of {len(reachable)} levels"
                )

    @property
    def norm_groups(self) -> int:
        return norm_groups(self.model_channels)

    @property
    def lowest(self) -> int:
        """The number of the lowest level; the highest is 0."""
        return len(self.channel_mult) - 1

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.model_channels * self.channel_mult[level]

    def attends(self, level: int) -> bool:
        """Whether a level has attention; the middle has it always."""
        return 2**level in self.attention_resolutions

    def at_level(self, name: str, level: int) -> int:
        """`num_heads` or `transformer_depth` of a level."""
        value = getattr(self, name)
        return value[level] if isinstance(value, list) else value

    @property
    def text_dim(self) -> int:
        """Width of the text embeddings."""
        return self.context_dim or self.class_embed_dim


SamplerName = Literal["ddim", "dpm++", "euler", "pndm", "unipc"]
SAMPLER_NAMES = get_args(SamplerName)
DIFFUSION_SAMPLERS: tuple[SamplerName, ...] = ("ddim", "dpm++", "pndm", "unipc")
FLOW_SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "euler", "unipc")


@typed
class NoiseSchedulerConfig:
    """The keys of diffusers' schedulers, under their names there."""

    num_train_timesteps: Annotated[int, Field(ge=2)]
    beta_start: Beta
    beta_end: Beta
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    prediction_type: Literal["epsilon", "v_prediction", "flow_prediction"]
    clip_sample: Annotated[bool, fixed(False, "a latent has no bounds to be clipped to")]
    steps_offset: Annotated[int, fixed(1, "samplers lay their steps to the schedule's last")]
    set_alpha_to_one: bool
    skip_prk_steps: Annotated[bool, fixed(True, "pndm starts without Runge-Kutta steps")]
    timestep_spacing: Literal["trailing", "leading"] = "trailing"

    def __post_init__(self) -> None:
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start {self.beta_start} must not exceed beta_end {self.beta_end}"
            )

    @property
    def samplers(self) -> tuple[SamplerName, ...]:
        """Those that can go by what such a network predicts."""
        return FLOW_SAMPLERS if self.prediction_type == "flow_prediction" else DIFFUSION_SAMPLERS

    def fault_of(self, sampler: str, num_steps: int) -> str | None:
        """The rule that so many steps of a sampler break, beginning with the setting; or None."""
        if sampler not in self.samplers:
            return (
                f"sampler {sampler!r} must be one of {', '.join(self.samplers)} where"
                f" prediction_type is {self.prediction_type}"
            )
        fault = fault_of_steps(sampler, num_steps, self.num_train_timesteps)
        return fault and f"num_steps {num_steps} {fault}"


@typed
class SmallT5Config:
    vocab_size: Annotated[int, Field(ge=64)]
    d_model: Annotated[int, Field(ge=8)]
    num_layers: Count
    num_heads: Count
    d_ff: Annotated[int, Field(ge=8)]

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide d_model {self.d_model}")


@typed
class TextEncoderConfig:
    pretrained: Place | None
    max_tokens: Annotated[int, Field(ge=2)]
    small: SmallT5Config

    @property
    def learns(self) -> bool:
        """Whether the encoder is a small one that learns together with the U-Net."""
        return self.pretrained is None


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


# ---------------------------------------------------------------- all of `model.`, by model_type


@typed
class AutoencoderKLModel:
    autoencoderkl: AutoencoderKLConfig
    loss: LossConfig


@typed
class VocoderModel:
    generator: Literal["vocos", "hifigan"]
    vocos: VocosConfig
    hifigan: HiFiGANConfig
    discriminators: DiscriminatorsConfig
    loss: VocoderLossConfig
    autoencoder_path: Place | None


@typed
class AudioLDMModel:
    LATENTS_IN: ClassVar = 1  # that the U-Net reads: the noisy one

    latent: Annotated[list[Count], Field(min_length=3, max_length=3)]  # z, height, width
    autoencoder_path: Place | None
    conditioner: Literal["t5", "clap"]
    text_encoder: TextEncoderConfig
    audioldm: UNetConfig
    noise_scheduler: NoiseSchedulerConfig
    caption_dropout: Annotated[float, Field(ge=0, le=1)]
    snr_gamma: Positive | None

    def __post_init__(self) -> None:
        text, unet, channels = self.text_encoder, self.audioldm, self.latent[0]
        if self.snr_gamma and self.noise_scheduler.prediction_type == "flow_prediction":
            raise ValueError(
                f"snr_gamma {self.snr_gamma:g} must be null where noise_scheduler.prediction_type"
                " is flow_prediction: there the draw of times weighs the loss"
            )
        if [unet.in_channels, unet.out_channels] != [self.LATENTS_IN * channels, channels]:
            raise ValueError(
                f"audioldm.in_channels {unet.in_channels} and audioldm.out_channels"
                f" {unet.out_channels} must be {self.LATENTS_IN * channels} and {channels}:"
                f" {self.LATENTS_IN} latent(s) in and one out, of the channels of model.latent"
                f" {self.latent}"
            )
        if (self.conditioner == "clap") != (unet.class_embed_dim is not None):
            raise ValueError(
                f"conditioner {self.conditioner!r}, audioldm.class_embed_dim"
                f" {unet.class_embed_dim} and audioldm.context_dim {unet.context_dim} do not fit:"
                " a T5 has context_dim, its width; a CLAP has class_embed_dim, its width (512)"
            )
        if self.conditioner == "clap" and text.learns:
            raise ValueError(
                "text_encoder.pretrained null must name a CLAP where conditioner is 'clap', such as"
                " laion/clap-htsat-unfused"
            )
        if text.learns and text.small.d_model != unet.context_dim:
            raise ValueError(
                f"text_encoder.small.d_model {text.small.d_model} and audioldm.context_dim"
                f" {unet.context_dim} must be equal"
            )


@typed
class AUDITModel(AudioLDMModel):
    LATENTS_IN: ClassVar = 2  # and that of the sound to edit

    source_dropout: Annotated[float, Field(ge=0, le=1)]
