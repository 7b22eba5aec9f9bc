"""wav to mel, HiFi-GAN's definition, and the settings file that is kept beside the mels.

HiFi-GAN (Kong et al., 2020, arXiv:2010.05646), mel_spectrogram of its published code: reflect
padding of (n_fft - hop_size) / 2 on both sides, periodic Hann window, no centring, magnitude
sqrt(re^2 + im^2 + 1e-9), Slaney filters, ln(max(x, 1e-5)). T samples give T // hop_size frames.

`MelExtractor` is for torch tensors, `mel_of_wav` for one numpy wav in a process that has no torch;
the tests pin them to each other, to librosa and to HiFi-GAN.
"""

from __future__ import annotations

import dataclasses
import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from config.schema import MelConfig
from utils.errors import UserError

MEL_FLOOR = 1e-5
MAGNITUDE_EPSILON = 1e-9
BLOCK_FRAMES = 32  # frames per FFT call: in the cache, in recycled memory, bounded on long clips
SETTINGS_FILE = "mel_config.json"
REDO = "to make the mels anew, run: sh egs/tta/preprocess/run_preprocess.sh"


class MelExtractor:
    """wav [B, T] float32 in [-1, 1] -> mel [B, n_mel, T // hop_size], on the wav's device."""

    def __init__(self, mel: MelConfig) -> None:
        self.mel = mel
        self._on_device: dict = {}  # device -> (filter bank, window)

    def __call__(self, wav):
        import torch

        mel, pad = self.mel, padding(self.mel)
        if wav.shape[-1] < shortest_wav(mel):
            raise ValueError(f"wav of {wav.shape[-1]} samples; needs {shortest_wav(mel)}")
        filters, window = self._constants(wav.device)
        padded = torch.nn.functional.pad(wav[:, None], (pad, pad), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded,
            mel.n_fft,
            mel.hop_size,
            mel.win_size,
            window,
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (filters @ (power + MAGNITUDE_EPSILON).sqrt()).clamp(min=MEL_FLOOR).log()

    def _constants(self, device):
        import torch

        if device not in self._on_device:
            filters = torch.from_numpy(mel_filter_bank(self.mel)).to(device)
            self._on_device[device] = filters, torch.hann_window(self.mel.win_size, device=device)
        return self._on_device[device]


def mel_of_wav(wav: np.ndarray, mel: MelConfig) -> np.ndarray:
    """wav [T] float32 in [-1, 1] -> mel [n_mel, T // hop_size] float32, as `MelExtractor` does."""
    pad, hop = padding(mel), mel.hop_size
    filters, window = mel_filter_bank(mel), _window(mel)
    padded = np.pad(wav.astype(np.float32, copy=False), pad, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, mel.n_fft)[::hop]
    out = np.empty((mel.n_mel, len(frames)), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + BLOCK_FRAMES] * window)
        power = np.square(spectrum.real) + np.square(spectrum.imag) + np.float32(MAGNITUDE_EPSILON)
        np.matmul(filters, np.sqrt(power).T, out=out[:, start : start + BLOCK_FRAMES])
    return np.log(np.maximum(out, np.float32(MEL_FLOOR)))


def padding(mel: MelConfig) -> int:
    """Samples of reflect padding on each side."""
    return (mel.n_fft - mel.hop_size) // 2


def shortest_wav(mel: MelConfig) -> int:
    """Samples that a wav needs: more than its padding reflects, and enough for one frame."""
    return max(padding(mel) + 1, mel.hop_size)


@lru_cache
def mel_filter_bank(mel: MelConfig) -> np.ndarray:
    """Slaney's triangular filters of equal area, [n_mel, n_fft // 2 + 1] float32.

    Auditory Toolbox (Slaney, 1998), as librosa.filters.mel(htk=False, norm="slaney"); written out
    because importing librosa's takes longer than all the mels of a small data set.
    """
    bins = np.linspace(0, mel.sample_rate / 2, mel.n_fft // 2 + 1)
    edges = _mel_to_hz(np.linspace(_hz_to_mel(mel.fmin), _hz_to_mel(mel.fmax), mel.n_mel + 2))
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


# Slaney's mel scale: linear below 1 kHz (15 mel), then 27 mel for each factor of 6.4.
HZ_PER_MEL = 200 / 3
KNEE_HZ = 1000.0
KNEE_MEL = KNEE_HZ / HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return hz / HZ_PER_MEL if hz < KNEE_HZ else KNEE_MEL + np.log(hz / KNEE_HZ) / LOG_STEP


def _mel_to_hz(mels: np.ndarray) -> np.ndarray:
    logarithmic = KNEE_HZ * np.exp(LOG_STEP * (mels - KNEE_MEL))
    return np.where(mels < KNEE_MEL, mels * HZ_PER_MEL, logarithmic)


@lru_cache
def _window(mel: MelConfig) -> np.ndarray:
    """Periodic Hann window of win_size, centred in n_fft samples, as torch.stft does."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.win_size) / mel.win_size)
    left = (mel.n_fft - mel.win_size) // 2
    return np.pad(hann, (left, mel.n_fft - mel.win_size - left)).astype(np.float32)


def check_mel(
    wanted: MelConfig, found: MelConfig, source: object, than: str = "the config's"
) -> None:
    """Raises UserError unless what `source` names was made for the mel that is wanted."""
    if wanted != found:
        differences = ", ".join(found.differences(wanted))
        raise UserError(f"{source}: made for another mel than {than}: {differences}")


def settings_path(dataset_dir: Path) -> Path:
    return Path(dataset_dir) / "mel" / SETTINGS_FILE


def write_mel_settings(dataset_dir: Path, mel: MelConfig) -> None:
    """Notes in <dataset_dir>/mel/ that all mels there were made with `mel`."""
    path = settings_path(dataset_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(mel), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_mel_settings(dataset_dir: Path) -> MelConfig | None:
    """The settings that the mels of a data set were made with; None where none are noted."""
    path = settings_path(dataset_dir)
    try:
        return MelConfig(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError, UserError) as error:
        raise UserError(f"{path}: not the settings of a mel ({error}); {REDO}") from None


def settings_differ(dataset_dir: Path, mel: MelConfig) -> bool:
    """Whether the mels there were made with other settings, or settings that are unreadable."""
    try:
        found = read_mel_settings(dataset_dir)
    except UserError:
        return True
    return found is not None and found != mel


def check_mel_settings(dataset_dir: Path, mel: MelConfig) -> None:
    """Raises UserError unless the mels in <dataset_dir>/mel/ were made with `mel`."""
    found = read_mel_settings(dataset_dir)
    if found is None:
        raise UserError(f"{settings_path(dataset_dir)}: missing, the mels are not ready; {REDO}")
    if found != mel:
        raise UserError(
            f"{settings_path(dataset_dir)}: the mels were made with other settings than the"
            f" config's: {', '.join(found.differences(mel))}; {REDO}"
        )
