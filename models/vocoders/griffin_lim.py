"""mel -> wav without weights (Griffin & Lim 1984).

Needs nothing of this repository: an exported model carries this file.
"""

from __future__ import annotations

import torch
from torch import nn
from torchaudio.functional import griffinlim, melscale_fbanks

MAGNITUDE_STEPS = 50  # halves the error on tones; more gain little
# More steps, or momentum (Perraudin et al. 2013; torchaudio's default is 0.99), fit the mel closer,
# but a tagger then knows fewer sounds; with momentum, rounding grows into another sound.
PHASE_STEPS = 32
MOMENTUM = 0.0
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
        hop, frames = self.hop_size, mel.shape[1]
        # The STFT here is centred on t hop and ours on (t + 1/2) hop. More frames at both ends give
        # the edges their neighbours, and even one frame the length that its padding reflects.
        extra = self.n_fft // (2 * hop) + 1
        mel = nn.functional.pad(mel[None], (extra, extra), mode="replicate")[0]
        magnitudes = self._magnitudes(mel)
        with torch.random.fork_rng([mel.device] if mel.device.type == "cuda" else []):
            torch.manual_seed(0)
            wav = griffinlim(
                magnitudes,
                self.window,
                self.n_fft,
                hop,
                self.win_size,
                power=1.0,
                n_iter=PHASE_STEPS,
                momentum=MOMENTUM,
                length=(mel.shape[1] - 1) * hop,
                rand_init=True,  # from phases of 0, noise would flutter at the frames' rate
            )
        start = extra * hop - hop // 2
        return wav[start : start + frames * hop].clamp(-1.0, 1.0)

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
