"""Vocos (Siuzdak 2023, arXiv:2306.00814): mel -> wav by one spectrum a frame and an inverse STFT.

All layers work at the mel's frame rate; the inverse STFT alone goes from frames to samples. This is
what makes the network tens of times faster than one that upsamples by convolutions.

Three things are added, so that few steps of training do:

- FreeV's prior (Lv et al. 2024, arXiv:2406.08196): the pseudo-inverse of the mel filters gives the
  magnitudes but for their detail.
- Noise. A mel does not tell phases, and most sounds are noise, which one best guess cannot be: it
  flutters at the frames' rate. So the spectrum is the sum of Vocos's own, for what is periodic, and
  of white noise shaped in time and frequency (as in Serra & Smith 1990).
- Corrections. The wav's own mel is compared with the given one, and its bands are scaled by their
  ratio. A few of them do what dozens of Griffin-Lim's steps do, and keep the noise natural.

Needs nothing of this repository: an exported model carries this file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

if TYPE_CHECKING:
    from config.schema import MelConfig

KERNEL_SIZE = 7  # frames
MEL_FLOOR = 1e-5  # the mels' own, and below it what they add to a square before its root
MAGNITUDE_EPSILON = 1e-9
ENVELOPE_POINTS = 8  # of the noise's loudness, a frame
PERIODIC_START = -2.0  # log-magnitude of what is periodic, against the prior
CORRECTIONS = 6
# All but the last correction go further than the ratio, since joining frames takes half of it back.
OVERSHOOT = 2.0
LARGEST_RATIO = 10.0  # of bands
# Far beyond what training finds (1.8 and 0.05 on real mels), so that any mel has a finite sound.
STRICTEST, LOUDEST_ENVELOPE = 4.0, 10.0


class Vocos(nn.Module):
    """The generator of arXiv:2306.00814, section 3: ConvNeXt blocks and a `SpectrumHead`.

    Args:
        mel: the settings of the mels to come; n_fft, win_size and hop_size also fix the head.
        dim: channels between the blocks.
        intermediate_dim: channels within a block.
        num_layers: blocks.

    The published size (dim 512, intermediate_dim 1536, num_layers 8) has 13.5 M parameters, and
    0.3 M for what is added.
    """

    def __init__(self, mel: MelConfig, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.hop_size = mel.hop_size
        self.embed = nn.Conv1d(mel.n_mel, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(dim, intermediate_dim, 1 / num_layers) for _ in range(num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = SpectrumHead(mel, dim)
        self.apply(_initialise)
        self.head.start()

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """As many wavs of each mel as there is noise for.

        mel [B, n_mel, frames], noise [N, B, frames * hop_size] of the standard normal distribution
        -> wav [N, B, frames * hop_size] float32, mostly in [-1, 1]
        """
        x = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        x = self.final_layer_norm(x.transpose(1, 2))
        x, mel = (of_each.repeat(len(noise), 1, 1) for of_each in (x, mel.transpose(1, 2)))
        wav = self.head(x, mel, noise.flatten(0, 1))
        return wav.view_as(noise)

    def sound(self, mel: Tensor, noise: Tensor) -> Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]

        `noise`: [frames * hop_size], the same for all in a batch.
        """
        noise = noise.to(mel.device).expand(1, len(mel), -1)
        return self(mel.float(), noise)[0].clamp(-1.0, 1.0)

    def noise(self, frames: int) -> Tensor:
        """[frames * hop_size], always the same, so that a mel has one sound."""
        return torch.randn(frames * self.hop_size, generator=torch.Generator().manual_seed(0))

    @property
    def context(self) -> int:
        """Frames before and after its own that a sample depends on."""
        # The spectra hear half of an n_fft on each side, and so does each inverse STFT.
        samples = (1 + CORRECTIONS) * self.head.stft.n_fft
        convolutions = (1 + len(self.convnext)) * (KERNEL_SIZE // 2)
        return convolutions + 1 + math.ceil(samples / self.hop_size)  # 1: the envelope's neighbour


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022 (arXiv:2201.03545), figure 4, in one dimension.

    Args:
        layer_scale: start of the factor on what the block adds, one for each channel.
    """

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, dim, frames] -> [B, dim, frames]"""
        inner = self.norm(self.dwconv(x).transpose(1, 2))
        inner = self.pwconv2(F.gelu(self.pwconv1(inner)))
        return x + (self.gamma * inner).transpose(1, 2)


class SpectrumHead(nn.Module):
    """Channels to a spectrum A (exp(m) exp(i p) + exp(n) N), to a wav, to the wav of the given mel.

    A is FreeV's prior (arXiv:2406.08196, section 3.1); m and p are Vocos's log-magnitude and phase
    (arXiv:2306.00814, section 3.3), of which p may be any real number. N is the spectrum of white
    noise times an envelope of some points a frame, and n its log-magnitude. Then the bands of the
    wav are scaled to a mel, `CORRECTIONS` times. That mel is the given one plus what the network
    adds to it, and a factor on the exponent says how strictly each band keeps to it: a blurred mel
    is better not kept to.
    """

    def __init__(self, mel: MelConfig, dim: int) -> None:
        super().__init__()
        bins = mel.n_fft // 2 + 1
        self.sizes = [bins, bins, bins, ENVELOPE_POINTS, mel.n_mel, mel.n_mel]
        self.out = nn.Linear(dim, sum(self.sizes))
        self.stft = FrameSTFT(mel)
        slaney = {"norm": "slaney", "mel_scale": "slaney"}
        filters = melscale_fbanks(bins, mel.fmin, mel.fmax, mel.n_mel, mel.sample_rate, **slaney)
        filters = filters.T.contiguous()  # [n_mel, bins]
        of_bins = filters.sum(0).clamp(min=1e-9)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters), persistent=False)
        # From bands to bins: the mean over the bands that a bin belongs to; 1 where it is in none.
        self.register_buffer("spread", filters / of_bins, persistent=False)
        self.register_buffer("in_none", (filters.sum(0) == 0).float(), persistent=False)
        # No sound within [-1, 1] has a larger one; a bad step of the training stays finite.
        self.largest_magnitude = self.stft.window.sum().item()
        # The mean magnitude of the spectrum of white noise (Rayleigh).
        self.noise_magnitude = (self.stft.window.square().sum() * math.pi / 4).sqrt().item()

    @torch.no_grad()
    def start(self) -> None:
        """Begins as noise of the prior's magnitudes; the phases alone begin at random."""
        bins, phases = self.sizes[0], slice(self.sizes[0], 2 * self.sizes[0])
        kept = self.out.weight[phases].clone()
        self.out.weight.zero_()
        self.out.bias.zero_()
        self.out.weight[phases] = kept
        self.out.bias[:bins] = PERIODIC_START

    def forward(self, x: Tensor, mel: Tensor, noise: Tensor) -> Tensor:
        """x [B, frames, dim], mel [B, frames, n_mel], noise [B, samples] -> wav [B, samples]"""
        parts = self.out(x).float().split(self.sizes, dim=2)
        periodic, phase, noisy, envelope, added, strictness = parts
        with torch.autocast(mel.device.type, enabled=False):
            prior = (mel.float().exp() @ self.inverse.T).clamp(min=MEL_FLOOR)
            envelope = F.interpolate(envelope.flatten(1)[:, None], noise.shape[1], mode="linear")
            envelope = envelope[:, 0].clamp(max=LOUDEST_ENVELOPE).exp()
            white = self.stft(noise * envelope) / self.noise_magnitude
            largest = self.largest_magnitude
            spectrum = torch.polar((prior * periodic.exp()).clamp(max=largest), phase)
            spectrum = spectrum + (prior * noisy.exp()).clamp(max=largest) * white
            return self._corrected(self.stft.inverse(spectrum), mel + added, 1 + strictness)

    def _corrected(self, wav: Tensor, mel: Tensor, strictness: Tensor) -> Tensor:
        """wav [B, samples], mel and strictness [B, frames, n_mel] -> wav [B, samples]"""
        # Less than none would scale a band away from its mel, further each time, to no number.
        target, strictness = mel.exp(), strictness.clamp(0, STRICTEST)
        for number in range(CORRECTIONS):
            spectrum = self.stft(wav)
            power = spectrum.real.square() + spectrum.imag.square()
            found = (power + MAGNITUDE_EPSILON).sqrt() @ self.filters.T
            ratio = (target / found).clamp(min=1 / LARGEST_RATIO**2, max=LARGEST_RATIO)
            exponent = 1 if number == CORRECTIONS - 1 else OVERSHOOT
            gains = ratio.pow(exponent * strictness) @ self.spread + self.in_none
            wav = self.stft.inverse(spectrum * gains)
        return wav


class FrameSTFT(nn.Module):
    """The STFT of `processors.mel`, and its inverse.

    Frame t is centred on sample (t + 1/2) hop_size: (n_fft - hop_size) / 2 samples of padding are
    before the first. torch.istft can only centre frames on t hop_size, which gives one hop too
    little, and its own check refuses center=False. The frames must overlap.
    """

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.n_fft, self.hop_size = mel.n_fft, mel.hop_size
        self.padding = (mel.n_fft - mel.hop_size) // 2
        left = (mel.n_fft - mel.win_size) // 2  # as torch.stft places a shorter window
        window = F.pad(torch.hann_window(mel.win_size), (left, mel.n_fft - mel.win_size - left))
        self.register_buffer("window", window, persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """wav [B, frames * hop_size] -> spectrum [B, frames, n_fft // 2 + 1] complex"""
        # Too short a wav to be reflected goes on as it ends.
        mode = "reflect" if wav.shape[1] > self.padding else "replicate"
        padded = F.pad(wav[:, None], (self.padding, self.padding), mode=mode)[:, 0]
        # torch.stft does the same, and takes five times as long on a CPU.
        return torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop_size) * self.window)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """spectrum [B, frames, n_fft // 2 + 1] complex -> wav [B, frames * hop_size]

        The least-squares overlap-add of Griffin & Lim 1984, eq. 6: sum w y / sum w^2.
        """
        frames = torch.fft.irfft(spectrum, self.n_fft) * self.window
        squares = self.window.square().expand(1, spectrum.shape[1], -1)
        return self._overlap_add(frames) / self._overlap_add(squares)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """frames [B, T, n_fft] -> [B, T * hop_size], without the padding on both sides

        Piece by piece of a hop's length, which is ten times quicker than torch's fold.
        """
        hop, count = self.hop_size, frames.shape[1]
        pieces = F.pad(frames, (0, -self.n_fft % hop)).split(hop, dim=2)
        summed = sum(
            F.pad(piece, (0, 0, number, len(pieces) - 1 - number))
            for number, piece in enumerate(pieces)
        )
        return summed.flatten(1)[:, self.padding : self.padding + count * hop]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
