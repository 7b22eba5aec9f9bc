"""The networks that tell real from vocoded sound while a vocoder is trained."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1  # of the leaky ReLUs
PERIODS = (2, 3, 5, 7, 11)  # Kong et al. 2020, section 2.3: primes, so that they overlap least
RESOLUTIONS = (512, 1024, 2048)  # samples of the STFTs' windows

Judgement = tuple[torch.Tensor, list[torch.Tensor]]  # logits, and the layers' activations


class Discriminators(nn.Module):
    """Multi-period (Kong et al. 2020) and multi-resolution (Jang et al. 2021) discriminators.

    Args:
        period_channels: of the widest layer of each period's; 1024 as published.
        resolution_channels: of each resolution's; 32 as published, 0 for none of these.
    """

    def __init__(self, period_channels: int, resolution_channels: int) -> None:
        super().__init__()
        self.periods = nn.ModuleList(
            PeriodDiscriminator(period, period_channels) for period in PERIODS
        )
        self.resolutions = nn.ModuleList(
            ResolutionDiscriminator(n_fft, resolution_channels)
            for n_fft in RESOLUTIONS
            if resolution_channels
        )

    def forward(
        self, real: torch.Tensor, fake: torch.Tensor
    ) -> tuple[list[Judgement], list[Judgement]]:
        """Two wavs [B, T] -> what each has to say of them: logits [B, n], positive for real.

        Both in one call, as several processes exchange gradients once after each call.
        """
        wav, count = torch.cat([real, fake]), len(real)
        both = [judge(wav) for judge in (*self.periods, *self.resolutions)]
        of_real = [(logits[:count], [x[:count] for x in layers]) for logits, layers in both]
        of_fake = [(logits[count:], [x[count:] for x in layers]) for logits, layers in both]
        return of_real, of_fake


class PeriodDiscriminator(nn.Module):
    """Looks at every p-th sample (arXiv:2010.05646, section 2.3 and appendix A.2).

    The wav is folded to [T / p, p], and the kernels are one column wide.
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels // 32, channels // 8, channels // 2, channels, channels]
        strides = [3, 3, 3, 3, 1]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(w_in, w_out, (5, 1), (stride, 1), padding=(2, 0)))
            for w_in, w_out, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: torch.Tensor) -> Judgement:
        """wav [B, T] -> logits [B, n] and the activations of all layers"""
        spare = -wav.shape[1] % self.period
        x = F.pad(wav[:, None], (0, spare), mode="reflect")
        return _judge(x.unflatten(2, (-1, self.period)), self.convs, self.conv_post)


class ResolutionDiscriminator(nn.Module):
    """Looks at the magnitudes of one STFT (arXiv:2106.07889, section 2.3)."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        wide = {"kernel_size": (3, 9), "padding": (1, 4)}  # frames, bins
        layers = [nn.Conv2d(1, channels, **wide)]
        layers += [nn.Conv2d(channels, channels, stride=(1, 2), **wide) for _ in range(3)]
        layers.append(nn.Conv2d(channels, channels, (3, 3), padding=1))
        self.convs = nn.ModuleList(map(weight_norm, layers))
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=1))

    def forward(self, wav: torch.Tensor) -> Judgement:
        """wav [B, T] -> logits [B, n] and the activations of all layers"""
        hop = self.n_fft // 4
        # As for the mel, the frames cover whole hops: (n_fft - hop) / 2 of padding on both sides.
        padded = F.pad(wav[:, None].float(), ((self.n_fft - hop) // 2,) * 2, mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, self.n_fft, hop, window=self.window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = (power + 1e-9).sqrt() / math.sqrt(self.n_fft)
        return _judge(magnitude.transpose(1, 2)[:, None], self.convs, self.conv_post)


def _judge(x: torch.Tensor, convs: nn.ModuleList, conv_post: nn.Module) -> Judgement:
    activations = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        activations.append(x)
    x = conv_post(x)
    return x.flatten(1), [*activations, x]
