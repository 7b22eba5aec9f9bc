"""mel -> wav without weights (Griffin & Lim, 1984)."""

from __future__ import annotations

import torch
from torch import nn
from torchaudio.functional import griffinlim

from config.schema import MelConfig
from processors.mel import MEL_FLOOR, mel_filter_bank
from utils.errors import UserError

GRIFFIN_LIM = "griffin_lim"
MAGNITUDE_STEPS = 50  # halves the error on tones; more gain little
PHASE_STEPS = 60
MOMENTUM = 0.99


class GriffinLim(nn.Module):
    """Finds a wav whose mel is the given one; the same mel gives the same wav in any batch.

    Raises:
        UserError: the mel's frames do not overlap, so that phases cannot be found.
    """

    name = GRIFFIN_LIM

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        if mel.hop_size >= mel.win_size:
            raise UserError(
                f"griffin_lim needs frames that overlap: hop_size {mel.hop_size} must be less than"
                f" win_size {mel.win_size}"
            )
        self.mel = mel
        filters = torch.from_numpy(mel_filter_bank(mel))  # [n_mel, bins]
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("inverse", torch.linalg.pinv(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(mel.win_size), persistent=False)

    @torch.no_grad()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> wav [B, frames * hop_size] float32 in [-1, 1]"""
        hop, frames = self.mel.hop_size, mel.shape[2]
        # The STFT here is centred on t hop and ours on (t + 1/2) hop. More frames at both ends give
        # the edges their neighbours, and even one frame the length that its padding reflects.
        extra = self.mel.n_fft // (2 * hop) + 1
        mel = nn.functional.pad(mel.float(), (extra, extra), mode="replicate")
        wav = griffinlim(
            self._magnitudes(mel),
            self.window,
            self.mel.n_fft,
            hop,
            self.mel.win_size,
            power=1.0,
            n_iter=PHASE_STEPS,
            momentum=MOMENTUM,
            length=(mel.shape[2] - 1) * hop,
            rand_init=False,
        )
        start = extra * hop - hop // 2
        return wav[:, start : start + frames * hop].clamp(-1.0, 1.0)

    def _magnitudes(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [B, n_mel, frames] -> magnitudes [B, bins, frames], the least squares that are >= 0.

        Multiplicative updates (Lee & Seung 2000, theorem 1) from the clamped pseudo-inverse, which
        alone would smear tones.
        """
        target = mel.exp()
        back = self.filters.T @ target
        magnitudes = (self.inverse @ target).clamp(min=MEL_FLOOR)
        for _ in range(MAGNITUDE_STEPS):
            fitted = self.filters.T @ (self.filters @ magnitudes)
            magnitudes = magnitudes * back / fitted.clamp(min=1e-12)
        return magnitudes
