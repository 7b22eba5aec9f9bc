"""Stage 1's network: mel -> latent -> mel (Rombach et al. 2022, section 3.1).

Parameters carry the names of diffusers' AutoencoderKL, so that weights are interchangeable.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from config.model_schema import AutoencoderKLConfig
from modules.attention import MapAttention
from modules.distributions import DiagonalGaussian
from modules.resnet import Downsample, Norm, ResnetBlock, Upsample

EPS = 1e-6  # of every group norm here


class MiddleBlock(nn.Module):
    """Two residual blocks, with self-attention between them or not."""

    def __init__(self, channels: int, attention: bool, norm: Norm) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([MapAttention(channels, norm)] if attention else [])
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, norm) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class DownBlock(nn.Module):
    """Residual blocks at one resolution, then half of it except at the last level."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, norm: Norm, last: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(widths[i], widths[i + 1], norm) for i in range(num_blocks)
        )
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels, pad_end=True)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (*self.resnets, *self.downsamplers):
            x = block(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks at one resolution, then twice of it except at the last level."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, norm: Norm, last: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.resnets = nn.ModuleList(
            ResnetBlock(widths[i], widths[i + 1], norm) for i in range(num_blocks)
        )
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.resnets:
            x = block(x)
        for upsample in self.upsamplers:
            x = upsample(x, (2 * x.shape[2], 2 * x.shape[3]))
        return x


class Encoder(nn.Module):
    """mel [B, C, n_mel, frames] -> moments [B, 2z, n_mel/f, frames/f]"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        norm = Norm(config.norm_groups, EPS)
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(level - 1, 0)],
                widths[level],
                config.num_res_blocks,
                norm,
                last=level == len(widths) - 1,
            )
            for level in range(len(widths))
        )
        self.mid_block = MiddleBlock(widths[-1], config.attention, norm)
        self.conv_norm_out = norm.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        h = self.conv_in(mel)
        for block in self.down_blocks:
            h = block(h)
        h = self.mid_block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """latent [B, z, n_mel/f, frames/f] -> mel [B, C, n_mel, frames]"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        norm = Norm(config.norm_groups, EPS)
        widths = [config.ch * mult for mult in reversed(config.ch_mult)]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid_block = MiddleBlock(widths[0], config.attention, norm)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[max(level - 1, 0)],
                widths[level],
                config.num_res_blocks + 1,
                norm,
                last=level == len(widths) - 1,
            )
            for level in range(len(widths))
        )
        self.conv_norm_out = norm.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.out_ch, 3, padding=1)

    def features(self, latent: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, [B, ch, n_mel, frames]."""
        h = self.mid_block(self.conv_in(latent))
        for block in self.up_blocks:
            h = block(h)
        return F.silu(self.conv_norm_out(h))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        h = self.features(latent)
        # In bfloat16, the quiet values of a log mel would lie 0.06 apart.
        with torch.autocast(h.device.type, enabled=False):
            return self.conv_out(h.float())


class AutoencoderKL(nn.Module):
    """A mel's convolutional autoencoder with a Gaussian latent.

    `encode` and `decode` speak of latents as the network makes them; `scale` and `unscale` go from
    there to the latents of unit standard deviation that the U-Net sees, and back.
    """

    latent_std: torch.Tensor  # over the training set; kept with the weights

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * config.z_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)
        self.register_buffer("latent_std", torch.ones(()))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight at which the losses' gradients are compared (Esser et al. 2021, eq. 7)."""
        return self.decoder.conv_out.weight

    def compile_for_training(self) -> None:
        """Compiles all but the last layer, whose gradients are asked for before the backward pass.

        A compiled network has one backward pass, which gives all of its gradients, once.
        """
        self.encoder.compile()
        self.decoder.features = torch.compile(self.decoder.features)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Weights in `dtype`, for inference; the last layer and the scale stay in float32."""
        for module in (self.encoder, self.quant_conv, self.post_quant_conv, self.decoder):
            module.to(dtype)
        self.decoder.conv_out.float()

    def encode(self, mel: torch.Tensor) -> DiagonalGaussian:
        """mel [B, 1, n_mel, frames] -> posterior over the unscaled latent [B, z, n_mel/f, frames/f]

        Raises:
            ValueError: n_mel or frames is not a multiple of f, which would lose its end.
        """
        factor = self.config.downsampling
        if mel.shape[2] % factor or mel.shape[3] % factor:
            raise ValueError(
                f"a mel of {mel.shape[2]} bands x {mel.shape[3]} frames: both must be multiples of"
                f" {factor}, the autoencoder's downsampling; pad the mel with silence"
            )
        return DiagonalGaussian(self.quant_conv(self.encoder(mel.to(self.quant_conv.weight.dtype))))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Unscaled latent [B, z, n_mel/f, frames/f] -> mel [B, 1, n_mel, frames]"""
        return self.decoder(self.post_quant_conv(latent.to(self.post_quant_conv.weight.dtype)))

    def scale(self, latent: torch.Tensor) -> torch.Tensor:
        """Unscaled latent -> latent of unit standard deviation, of the same shape."""
        return latent / self.latent_std

    def unscale(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent of unit standard deviation -> unscaled latent, of the same shape."""
        return latent * self.latent_std
