"""The keys below `model.`: shapes of networks, losses and the noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

from config.typed_json import ConfigError, key


def norm_groups(channels: int) -> int:
    """Groups of a network's group norms: 32, or fewer so that 4 channels share one.

    With a group for each channel, the level of what a channel carries would be lost.
    """
    return min(32, channels // 4)


@dataclass(frozen=True)
class AutoencoderKLConfig:
    ch: int = key(low=32)
    ch_mult: list[int] = key(low=1)
    num_res_blocks: int = key(low=1)
    attention: bool = key()
    in_channels: int = key(low=1)
    out_ch: int = key(low=1)
    z_channels: int = key(low=1)
    double_z: bool = key(choices=(True,))

    def __post_init__(self) -> None:
        if self.ch % 32:
            raise ConfigError(f"ch {self.ch} must be a multiple of 32 (for its group norms)")
        if not self.ch_mult:
            raise ConfigError("ch_mult must name at least one level")

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


@dataclass(frozen=True)
class LossConfig:
    logvar_init: float = key()
    kl_weight: float = key(low=0)
    disc_start: int = key(low=0)
    disc_weight: float = key(low=0)
    disc_factor: float = key(low=0)
    disc_channels: int = key(low=8)
    disc_num_layers: int = key(low=1)
    max_adapt_d_weight: float = key(above=0)

    def __post_init__(self) -> None:
        if self.disc_channels % 8:
            raise ConfigError(f"disc_channels {self.disc_channels} must be a multiple of 8")


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = key(low=1)
    out_channels: int = key(low=1)
    model_channels: int = key(low=32)
    channel_mult: list[int] = key(low=1)
    num_res_blocks: int = key(low=1)
    attention_resolutions: list[int] = key(low=1)
    num_heads: int = key(low=1)
    transformer_depth: int = key(low=1)
    context_dim: int = key(low=1)

    def __post_init__(self) -> None:
        if self.model_channels % 32:
            raise ConfigError(
                f"model_channels {self.model_channels} must be a multiple of 32 (for its group"
                " norms)"
            )
        if not self.channel_mult:
            raise ConfigError("channel_mult must name at least one level")
        for mult in self.channel_mult:
            if self.model_channels * mult % self.num_heads:
                raise ConfigError(
                    f"num_heads {self.num_heads} must divide model_channels x channel_mult ="
                    f" {self.model_channels * mult}"
                )
        reachable = [2**level for level in range(len(self.channel_mult))]
        for factor in self.attention_resolutions:
            if factor not in reachable:
                raise ConfigError(
                    f"attention_resolutions {factor} must be one of {reachable}, the downsampling"
                    f" factors of {len(reachable)} levels"
                )

    @property
    def norm_groups(self) -> int:
        return norm_groups(self.model_channels)


@dataclass(frozen=True)
class NoiseSchedulerConfig:
    """The keys of diffusers' schedulers, under their names there."""

    num_train_timesteps: int = key(low=2)
    beta_start: float = key(above=0, below=1)
    beta_end: float = key(above=0, below=1)
    beta_schedule: str = key(choices=("linear", "scaled_linear", "squaredcos_cap_v2"))
    prediction_type: str = key(choices=("epsilon", "v_prediction"))
    clip_sample: bool = key()
    steps_offset: int = key(low=0)
    set_alpha_to_one: bool = key()
    skip_prk_steps: bool = key()

    def __post_init__(self) -> None:
        if self.beta_start > self.beta_end:
            raise ConfigError(
                f"beta_start {self.beta_start} must not exceed beta_end {self.beta_end}"
            )


@dataclass(frozen=True)
class SmallT5Config:
    vocab_size: int = key(low=64)
    d_model: int = key(low=8)
    num_layers: int = key(low=1)
    num_heads: int = key(low=1)
    d_ff: int = key(low=8)

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ConfigError(f"num_heads {self.num_heads} must divide d_model {self.d_model}")


@dataclass(frozen=True)
class TextEncoderConfig:
    pretrained: str | None
    max_tokens: int = key(low=2)
    small: SmallT5Config = key()

    @property
    def learns(self) -> bool:
        """Whether the encoder is a small one that learns together with the U-Net."""
        return self.pretrained is None
