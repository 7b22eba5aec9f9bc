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


def residual_blocks(width_in: int, width: int, count: int, norm: Norm) -> nn.ModuleList:
    widths = [width_in] + [width] * count
    return nn.ModuleList(ResnetBlock(widths[i], widths[i + 1], norm) for i in range(count))


class MiddleBlock(nn.Module):
    """Two residual blocks, with self-attention between them or not."""

    def __init__(self, width: int, attention: bool, norm: Norm) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([MapAttention(width, norm)] if attention else [])
        self.resnets = residual_blocks(width, width, 2, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = block(x)
        return x


class Block(nn.Module):
    """Lists of modules that follow each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for modules in self.children():
            for module in modules:
                x = module(x)
        return x


class DownBlock(Block):
    """Residual blocks at one resolution, then half of it except at the last level."""

    def __init__(self, width_in: int, width: int, count: int, norm: Norm, last: bool) -> None:
        super().__init__()
        self.resnets = residual_blocks(width_in, width, count, norm)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width, pad_end=True)])


class UpBlock(Block):
    """Residual blocks at one resolution, then twice of it except at the last level."""

    def __init__(self, width_in: int, width: int, count: int, norm: Norm, last: bool) -> None:
        super().__init__()
        self.resnets = residual_blocks(width_in, width, count, norm)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width)])


def levels(kind: type[Block], widths: list[int], count: int, norm: Norm) -> nn.ModuleList:
    """A block for each width, from the first to the last."""
    before = [widths[0], *widths]
    return nn.ModuleList(
        kind(before[level], width, count, norm, last=level == len(widths) - 1)
        for level, width in enumerate(widths)
    )


class Encoder(nn.Module):
    """mel [B, C, n_mel, frames] -> moments [B, 2z, n_mel/f, frames/f]"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        norm = Norm(config.norm_groups, EPS)
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = levels(DownBlock, widths, config.num_res_blocks, norm)
        self.mid_block = MiddleBlock(widths[-1], config.attention, norm)
        self.conv_norm_out = norm.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        h = self.conv_in(mel)
        for block in (*self.down_blocks, self.mid_block):
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """latent [B, z, n_mel/f, frames/f] -> mel [B, C, n_mel, frames]"""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        norm = Norm(config.norm_groups, EPS)
        widths = [config.ch * mult for mult in reversed(config.ch_mult)]
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid_block = MiddleBlock(widths[0], config.attention, norm)
        self.up_blocks = levels(UpBlock, widths, config.num_res_blocks + 1, norm)
        self.conv_norm_out = norm.over(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.out_ch, 3, padding=1)

    def features(self, latent: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, [B, ch, n_mel, frames]."""
        h = self.conv_in(latent)
        for block in (self.mid_block, *self.up_blocks):
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
