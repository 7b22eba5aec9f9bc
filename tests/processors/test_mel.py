import dataclasses
import json

import librosa
import numpy as np
import pytest
import torch

from config.schema import MelConfig
from processors.mel import (
    MelExtractor,
    check_mel_settings,
    mel_filter_bank,
    mel_of_wav,
    settings_differ,
    settings_path,
    shortest_wav,
    write_mel_settings,
)
from tests.sounds import noise
from utils.errors import UserError

BASE = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
OTHERS = [
    BASE,
    MelConfig(22050, 1024, 1024, 256, 80, 0.0, 8000.0),
    MelConfig(16000, 1024, 640, 160, 64, 50.0, 7600.0),  # a window shorter than the FFT
    MelConfig(48000, 2048, 2048, 480, 128, 300.0, 24000.0),
]
mels = pytest.mark.parametrize("mel", OTHERS, ids=lambda mel: f"{mel.sample_rate}-{mel.hop_size}")


def hifi_gan(wav: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """mel_spectrogram of HiFi-GAN's meldataset.py, its steps one by one; wav [B, T]."""
    basis = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mel, fmin=mel.fmin, fmax=mel.fmax
    )
    side = int((mel.n_fft - mel.hop_size) / 2)
    padded = torch.nn.functional.pad(wav.unsqueeze(1), (side, side), mode="reflect").squeeze(1)
    spectrum = torch.view_as_real(
        torch.stft(
            padded,
            mel.n_fft,
            hop_length=mel.hop_size,
            win_length=mel.win_size,
            window=torch.hann_window(mel.win_size),
            center=False,
            normalized=False,
            onesided=True,
            return_complex=True,
        )
    )
    magnitude = torch.sqrt(spectrum.pow(2).sum(-1) + 1e-9)
    return torch.log(torch.clamp(torch.matmul(torch.from_numpy(basis), magnitude), min=1e-5))


@mels
def test_filters_are_librosas(mel):
    theirs = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mel, fmin=mel.fmin, fmax=mel.fmax
    )
    np.testing.assert_allclose(mel_filter_bank(mel), theirs, atol=1e-5 * theirs.max())


@mels
def test_mel_is_hifi_gans(mel):
    wav = torch.from_numpy(np.stack([noise(0.5, seed) for seed in range(3)]))
    np.testing.assert_allclose(MelExtractor(mel)(wav), hifi_gan(wav, mel), atol=2e-5)


@mels
def test_mel_is_librosas(mel):
    wav = noise(0.5)
    side = (mel.n_fft - mel.hop_size) // 2
    magnitude = np.abs(
        librosa.stft(
            np.pad(wav, side, mode="reflect"),
            n_fft=mel.n_fft,
            hop_length=mel.hop_size,
            win_length=mel.win_size,
            center=False,
        )
    )
    filters = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mel, fmin=mel.fmin, fmax=mel.fmax
    )
    expected = np.maximum(filters @ magnitude, 1e-5)
    ours = MelExtractor(mel)(torch.from_numpy(wav)[None])[0]
    np.testing.assert_allclose(ours.exp(), expected, rtol=1e-3, atol=2e-6)


@mels
@pytest.mark.parametrize("samples", [1200, 16000, 100_000])
def test_blocks_of_a_numpy_wav_equal_the_whole(mel, samples):
    wav = noise(samples / 16000)
    ours = mel_of_wav(wav, mel)
    assert ours.dtype == np.float32
    assert ours.shape == (mel.n_mel, samples // mel.hop_size)
    np.testing.assert_allclose(ours, MelExtractor(mel)(torch.from_numpy(wav)[None])[0], atol=2e-5)


def test_ten_seconds_are_625_frames_and_silence_is_the_floor():
    mel = mel_of_wav(np.zeros(160_000, np.float32), BASE)
    assert mel.shape == (80, 625)
    assert np.all(mel == np.log(np.float32(1e-5)))


def test_batched_equals_one_by_one():
    wav = torch.from_numpy(np.stack([noise(0.5, seed) for seed in range(3)]))
    extractor = MelExtractor(BASE)
    together = extractor(wav)
    for row in range(3):
        np.testing.assert_allclose(together[row], extractor(wav[row : row + 1])[0], atol=1e-5)


def test_gradients_reach_the_wav():
    wav = torch.from_numpy(noise(0.2))[None].requires_grad_()
    MelExtractor(BASE)(wav).sum().backward()
    assert torch.isfinite(wav.grad).all()


def test_shortest_wav():
    assert shortest_wav(BASE) == 385
    assert mel_of_wav(noise(1)[:385], BASE).shape == (80, 1)
    with pytest.raises(ValueError, match="384 samples; needs 385"):
        MelExtractor(BASE)(torch.zeros(1, 384))


def test_settings_are_checked(tmp_path):
    with pytest.raises(UserError, match=r"mel_config.json: missing.*run_preprocess.sh"):
        check_mel_settings(tmp_path, BASE)
    write_mel_settings(tmp_path, BASE)
    check_mel_settings(tmp_path, BASE)
    assert not settings_differ(tmp_path, BASE)
    other = dataclasses.replace(BASE, hop_size=160, win_size=640)
    message = r"win_size 1024 and 640, hop_size 256 and 160; .*run_preprocess.sh"
    with pytest.raises(UserError, match=message):
        check_mel_settings(tmp_path, other)
    assert settings_differ(tmp_path, other)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"hop_size": "x"}', json.dumps({"unknown": 1}), "[" * 5000]
)
def test_damaged_settings_are_a_clear_error(tmp_path, text):
    write_mel_settings(tmp_path, BASE)
    settings_path(tmp_path).write_text(text)
    with pytest.raises(UserError, match=r"(?s)mel_config.json.*not the settings of a mel.*run_pre"):
        check_mel_settings(tmp_path, BASE)
    assert settings_differ(tmp_path, BASE)
