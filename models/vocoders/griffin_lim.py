"""mel -> wav without weights (Griffin & Lim 1984).

Needs `pieces.py` alone of this repository: an exported model carries both as one file.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torchaudio.functional import melscale_fbanks

from models.vocoders.pieces import WHOLE, by_pieces

MAGNITUDE_STEPS = 50  # halves the error on tones; more gain little
# More steps, or momentum (Perraudin et al. 2013; torchaudio's default is 0.99), fit the mel closer,
# but a tagger then knows fewer sounds; with momentum, rounding grows into another sound.
PHASE_STEPS = 32
FLOOR = 1e-5


class GriffinLim(nn.Module):
    """Finds a wav whose mel is the given one. On one machine, the same mel gives the same wav, bit
    for bit, in any batch.

    Args:
        sample_rate, fmin, fmax: Hz.
        n_fft, win_size, hop_size: samples; frames must overlap, hop_size < win_size.
        n_mel: bands.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        win_size: int,
        hop_size: int,
        n_mel: int,
        fmin: float,
        fmax: float,
    ) -> None:
        super().__init__()
        self.n_fft, self.win_size, self.hop_size = n_fft, win_size, hop_size
        filters = melscale_fbanks(
            n_fft // 2 + 1, fmin, fmax, n_mel, sample_rate, norm="slaney", mel_scale="slaney"
        ).T.contiguous()  # [n_mel, bins]
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(win_size), persistent=False)

    @torch.no_grad()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames], natural logarithm -> wav [B, frames * hop_size] in [-1, 1]"""
        # One by one, with the same random phases: what else is in a batch then changes nothing.
        return torch.stack([self._wav(one) for one in mel.float()])

    def _wav(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [n_mel, frames] -> wav [frames * hop_size]"""
        hop, frames, n_fft = self.hop_size, mel.shape[1], self.n_fft
        # The STFT here is centred on t hop and ours on (t + 1/2) hop. More frames at both ends give
        # the edges their neighbours, and even one frame the length that its padding reflects.
        extra = n_fft // (2 * hop) + 1
        mel = nn.functional.pad(mel[None], (extra, extra), mode="replicate")[0]

        def wav_of(first: int, last: int) -> torch.Tensor:
            part = slice(first, last + 2 * extra)
            phases = self._random_phases(mel.device, min(mel.shape[1], WHOLE + 2 * extra), part)
            wav = self._with_magnitudes(self._magnitudes(mel[:, part]), phases)
            start = extra * hop - hop // 2
            return wav[start : start + (last - first) * hop].clamp(-1.0, 1.0)

        # Each step tells frames of their neighbours, whose windows overlap theirs.
        return by_pieces(wav_of, frames, (PHASE_STEPS + 1) * math.ceil(n_fft / hop))

    def _random_phases(self, device: torch.device, block: int, frames: slice) -> torch.Tensor:
        """[bins, frames] complex of those frames, drawn anew for each `block` of them.

        From phases of 0, noise would flutter at the frames' rate.
        """
        numbers = range(frames.start // block, math.ceil(frames.stop / block))
        drawn = [
            torch.rand(
                (self.n_fft // 2 + 1, block),
                dtype=torch.complex64,
                device=device,
                generator=torch.Generator(device).manual_seed(number),
            )
            for number in numbers
        ]
        begin = frames.start - numbers.start * block
        return torch.cat(drawn, dim=1)[:, begin : begin + frames.stop - frames.start]

    def _with_magnitudes(self, magnitudes: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
        """A wav whose STFT comes near magnitudes [bins, frames], by Griffin & Lim's algorithm.

        torchaudio's `griffinlim` without its momentum, step by step; phases cannot be given to it.
        """
        sizes = {"n_fft": self.n_fft, "hop_length": self.hop_size, "win_length": self.win_size}
        settings = {**sizes, "window": self.window}
        length = (magnitudes.shape[1] - 1) * self.hop_size
        for _ in range(PHASE_STEPS):
            wav = torch.istft(magnitudes * phases, **settings, length=length)
            rebuilt = torch.stft(wav, **settings, return_complex=True)
            phases = rebuilt / (rebuilt.abs() + 1e-16)
        return torch.istft(magnitudes * phases, **settings, length=length)

    def _magnitudes(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [n_mel, frames] -> magnitudes [bins, frames], the least squares that are >= 0.

        Multiplicative updates (Lee & Seung 2000, theorem 1) from the clamped pseudo-inverse, which
        alone would smear tones.
        """
        target = mel.exp()
        back = self.filters.T @ target
        magnitudes = (self.inverse @ target).clamp(min=FLOOR)
        for _ in range(MAGNITUDE_STEPS):
            fitted = self.filters.T @ (self.filters @ magnitudes)
            magnitudes = magnitudes * back / fitted.clamp(min=1e-12)
        return magnitudes
