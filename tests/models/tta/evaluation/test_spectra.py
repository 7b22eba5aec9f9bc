"""Spectral distances beside librosa's spectra and the papers' equations in numpy."""

import librosa
import numpy as np
import pytest
import torch

from models.tta.evaluation.spectra import (
    frames_outside,
    log_spectral_distance,
    lsd_window,
    stft_error,
)

RATE = 16000


def pair(samples=RATE):
    random = np.random.default_rng(0)
    target = np.sin(np.arange(samples) * 0.2) * 0.3 + 0.05 * random.standard_normal(samples)
    wav = 0.7 * target + 0.02 * random.standard_normal(samples)
    return wav.astype(np.float32), target.astype(np.float32)


def test_the_stft_error_is_that_of_the_paper():
    """Equations 4 to 6 of arXiv:1910.11480 on librosa's spectra."""
    wav, target = pair()
    errors = []
    for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        spectra = [
            np.abs(
                librosa.stft(x, n_fft=n_fft, hop_length=hop, win_length=window, pad_mode="reflect")
            )
            for x in (wav, target)
        ]
        ours, theirs = (np.maximum(x, 1e-7**0.5) for x in spectra)
        convergence = np.sqrt(((theirs - ours) ** 2).sum() / (theirs**2).sum())
        errors.append(convergence + np.abs(np.log(theirs) - np.log(ours)).mean())
    found = stft_error(torch.from_numpy(wav), torch.from_numpy(target))
    assert found == pytest.approx(np.mean(errors), rel=1e-4)
    assert stft_error(torch.from_numpy(wav), torch.from_numpy(wav)) == 0
    assert np.isfinite(stft_error(torch.zeros(40), torch.ones(40)))


@pytest.mark.parametrize("rate", [16000, 32000])
def test_lsd_is_that_of_ssr_eval(rate):
    wav, target = pair(rate)
    wav[:2000] = 0  # where its small number matters
    n_fft, hop = int(2048 / (44100 / rate)), int(rate / 100)
    ours, theirs = (np.abs(librosa.stft(x, hop_length=hop, n_fft=n_fft)) for x in (wav, target))
    each = np.log10(theirs**2 / (ours + 1e-12) ** 2 + 1e-12) ** 2
    expected = np.sqrt(each.mean(axis=0))
    found = log_spectral_distance(torch.from_numpy(wav), torch.from_numpy(target), rate)
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    assert found.mean() == pytest.approx(expected.mean(), rel=1e-3)


def test_a_level_alone_is_known():
    """10 times quieter: log10(100) in every bin."""
    _, target = pair()
    found = log_spectral_distance(torch.from_numpy(0.1 * target), torch.from_numpy(target), RATE)
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=1e-3, atol=0)


def test_frames_outside_see_no_sample_of_the_edit():
    wav, other = torch.zeros(8000), torch.zeros(8000)
    other[3000:5000] = 0.1
    other[7000] = 1 / 32768  # rounding to 16 bits
    outside = frames_outside(wav, other, RATE)
    n_fft, hop = lsd_window(RATE)
    assert len(outside) == len(log_spectral_distance(wav, other, RATE))
    for frame, found in enumerate(outside):
        start = frame * hop - n_fft // 2
        assert found == (start + n_fft <= 3000 or start >= 5000), frame


def test_two_silences_are_alike():
    """Digital silence is part of many recordings: a sound is no distance from itself."""
    wav = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    wav[RATE // 4 : RATE // 2] = 0
    assert log_spectral_distance(wav, wav, RATE).max() < 1e-6
    other = wav.clone()
    other[RATE // 4 : RATE // 2] = 1e-3
    assert log_spectral_distance(wav, other, RATE).max() > 5
