"""Distances of two wavs by their spectra; both are aligned, at one rate and of one length."""

from __future__ import annotations

import torch
from torch import Tensor

# n_fft, hop, window in samples (Yamamoto et al. 2020, arXiv:1910.11480, table 1).
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
LEAST_POWER = 1e-7  # of a bin, where that paper's code takes logarithms
EPSILON = 1e-12  # of ssr_eval's LSD


def stft_error(wav: Tensor, target: Tensor) -> float:
    """Multi-resolution STFT error of two wavs [T] (arXiv:1910.11480, equations 4 to 6).

    Mean over three resolutions of the spectral convergence ||S_t| - |S|| / ||S_t|| (Frobenius) and
    the mean difference of ln|S|. Shorter sounds than half the longest window are padded with zeros.
    """
    short = max(0, 1025 - len(wav))
    wav, target = (torch.nn.functional.pad(x, (0, short)) for x in (wav, target))
    errors = []
    for n_fft, hop, window in RESOLUTIONS:
        magnitudes = [
            torch.stft(x, n_fft, hop, window, torch.hann_window(window), return_complex=True)
            .abs()
            .clamp(min=LEAST_POWER**0.5)
            for x in (wav, target)
        ]
        ours, theirs = magnitudes
        convergence = (theirs - ours).norm() / theirs.norm()
        errors.append(convergence + (theirs.log() - ours.log()).abs().mean())
    return float(torch.stack(errors).mean())


def log_spectral_distance(wav: Tensor, target: Tensor, sample_rate: int) -> Tensor:
    """LSD of two wavs [T] for each frame [T // hop + 1], whose mean is the figure.

    sqrt(mean over bins of log10(|S_t|^2 / |S|^2)^2), as ssr_eval computes it (AudioMetrics.lsd) and
    audioldm_eval through it: centred Hann windows of int(2048 / 44100 s), hops of 10 ms, 1e-12
    against zeros. No offset and no scaling before, which audioldm_eval adds; and where both are
    digital silence there is no distance (12 in ssr_eval).
    """
    n_fft, hop = lsd_window(sample_rate)
    window = torch.hann_window(n_fft)
    ours, theirs = (
        torch.stft(x, n_fft, hop, window=window, pad_mode="constant", return_complex=True).abs()
        for x in (wav, target)
    )
    logarithms = (theirs**2 / (ours + EPSILON) ** 2 + EPSILON).log10()
    return logarithms.where((ours > 0) | (theirs > 0), 0.0).square().mean(0).sqrt()


def lsd_window(sample_rate: int) -> tuple[int, int]:
    """(window, hop) of `log_spectral_distance` in samples."""
    return int(2048 / (44100 / sample_rate)), sample_rate // 100


def frames_outside(wav: Tensor, other: Tensor, sample_rate: int) -> Tensor:
    """Which frames of `log_spectral_distance` see no sample that differs, bool [T // hop + 1].

    Two samples that differ by no more than a step of 16 bits count as the same.
    """
    n_fft, hop = lsd_window(sample_rate)
    differs = ((wav - other).abs() > 1.5 / 32768).float()
    padded = torch.nn.functional.pad(differs, (n_fft // 2, n_fft // 2))
    return padded.unfold(0, n_fft, hop).amax(1) == 0
