"""The keys below `model.`: shapes of networks and losses."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from config.schedule_schema import NoiseSchedulerConfig
from config.typed_json import Count, NotNegative, Place, Positive, Whole, fixed, typed

NormWidth = Annotated[int, Field(ge=32, multiple_of=32)]  # channels that group norms divide
SmallNormWidth = Annotated[int, Field(ge=16, multiple_of=16)]
Counts = Annotated[list[Count], Field(min_length=1)]


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
    decoder_alone: bool
    decoder_noise: NotNegative


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
    span_embedding: bool = False
    pooled_text: bool = False
    input_skip: bool = False

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
        if self.pooled_text and self.context_dim is None:
            raise ValueError(
                "pooled_text true needs context_dim; with class_embed_dim, the text goes along with"
                " the time anyway"
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
class FlowMapConfig:
    guidance_scale: Annotated[float, Field(ge=1)] | None
    jump_every: Annotated[int, Field(ge=2)]


@typed
class FlowTimesConfig:
    mean: float
    std: Positive


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
    flow_times: FlowTimesConfig
    flow_map: FlowMapConfig | None

    @property
    def trains_text(self) -> bool:
        """Whether the text encoder learns with the U-Net; that of a flow map is its teacher's."""
        return self.text_encoder.learns and self.flow_map is None

    def __post_init__(self) -> None:
        text, unet, channels = self.text_encoder, self.audioldm, self.latent[0]
        flows = self.noise_scheduler.prediction_type == "flow_prediction"
        if (self.flow_map is not None) != unet.span_embedding or (self.flow_map and not flows):
            raise ValueError(
                f"flow_map, audioldm.span_embedding {str(unet.span_embedding).lower()} and"
                f" noise_scheduler.prediction_type {self.noise_scheduler.prediction_type} do not"
                " fit: a flow map has all three, with true and flow_prediction"
            )
        if unet.input_skip and self.LATENTS_IN == 1:
            raise ValueError(
                "audioldm.input_skip true is for model_type AUDIT: no other sound is read here"
            )
        if self.snr_gamma and flows:
            raise ValueError(
                f"snr_gamma {self.snr_gamma:g} must be null where noise_scheduler.prediction_type"
                " is flow_prediction: there the draw of times weighs the loss"
            )
        if self.flow_times != FlowTimesConfig(0.0, 1.0) and not flows:
            raise ValueError(
                f"flow_times.mean {self.flow_times.mean:g} and flow_times.std"
                f" {self.flow_times.std:g} must be 0 and 1 where noise_scheduler.prediction_type is"
                f" {self.noise_scheduler.prediction_type}: a flow alone has them"
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
