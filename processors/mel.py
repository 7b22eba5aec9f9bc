"""wav to mel, HiFi-GAN's definition, and the settings file that is kept beside the mels.

HiFi-GAN (Kong et al., 2020, arXiv:2010.05646), mel_spectrogram of its published code: reflect
padding of (n_fft - hop_size) / 2 on both sides, periodic Hann window, no centring, magnitude
sqrt(re^2 + im^2 + 1e-9), Slaney filters, ln(max(x, 1e-5)). T samples give T // hop_size frames.
Preprocessing, training and evaluation use this one definition; the tests pin it to librosa and to
HiFi-GAN.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from config.schema import MelConfig
from config.typed_json import build
from processors.metadata import meant_by
from utils.checkpoint import read_json, write_json
from utils.commands import remake
from utils.errors import UserError

if TYPE_CHECKING:  # imported by those who use it: reading settings takes no torch
    import torch

MEL_FLOOR = 1e-5
MAGNITUDE_EPSILON = 1e-9
BLOCK_FRAMES = 128  # transformed at a time by `mel_of_wav`: they stay in the cache
SETTINGS_FILE = "mel_config.json"


class MelExtractor:
    """wav [B, T] float32 -> mel [B, n_mel, T // hop_size], on the wav's device, differentiable."""

    def __init__(self, mel: MelConfig) -> None:
        self.mel = mel

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        return self.of_padded(self.padded(wav))

    def padded(self, wav: torch.Tensor) -> torch.Tensor:
        """The wav with its reflection on both sides, [B, T + 2 * padding]."""
        import torch

        if wav.shape[-1] < shortest_wav(self.mel):
            raise ValueError(f"wav of {wav.shape[-1]} samples; needs {shortest_wav(self.mel)}")
        pad = padding(self.mel)
        return torch.nn.functional.pad(wav[:, None], (pad, pad), mode="reflect")[:, 0]

    def of_padded(self, padded: torch.Tensor) -> torch.Tensor:
        import torch

        mel = self.mel
        filters, window = _filters_and_window(mel, padded.device)
        spectrum = torch.stft(
            padded, mel.n_fft, mel.hop_size, mel.win_size, window, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (filters @ (power + MAGNITUDE_EPSILON).sqrt()).clamp(min=MEL_FLOOR).log()


def mel_of_wav(wav: np.ndarray, mel: MelConfig) -> np.ndarray:
    """wav [T] float32 -> mel [n_mel, T // hop_size] float32, in memory that T does not decide."""
    import torch

    extractor, hop = MelExtractor(mel), mel.hop_size
    padded = extractor.padded(torch.from_numpy(np.ascontiguousarray(wav, np.float32))[None])
    starts = range(0, len(wav) // hop * hop, BLOCK_FRAMES * hop)
    end = (BLOCK_FRAMES - 1) * hop + mel.n_fft
    with torch.inference_mode():
        blocks = [extractor.of_padded(padded[:, start : start + end]) for start in starts]
        return torch.cat(blocks, dim=-1)[0].numpy()


def padding(mel: MelConfig) -> int:
    """Samples of reflect padding on each side."""
    return (mel.n_fft - mel.hop_size) // 2


def shortest_wav(mel: MelConfig) -> int:
    """Samples that a wav needs: more than its padding reflects, and enough for one frame."""
    return max(padding(mel) + 1, mel.hop_size)


@lru_cache
def _filters_and_window(mel: MelConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    with torch.inference_mode(False):  # whoever asks first, training can use them as well
        filters = torch.from_numpy(mel_filter_bank(mel)).to(device)
        return filters, torch.hann_window(mel.win_size, device=device)


def mel_filter_bank(mel: MelConfig) -> np.ndarray:
    """Slaney's triangular filters of equal area, [n_mel, n_fft // 2 + 1] float32.

    torchaudio's, which equal librosa's; importing librosa takes a worker a second more.
    """
    from torchaudio.functional import melscale_fbanks

    bins = mel.n_fft // 2 + 1
    bank = melscale_fbanks(
        bins, mel.fmin, mel.fmax, mel.n_mel, mel.sample_rate, norm="slaney", mel_scale="slaney"
    )
    return np.ascontiguousarray(bank.numpy().T)


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
    write_json(path, dataclasses.asdict(mel))


def check_mel_settings(dataset_dir: Path, mel: MelConfig) -> None:
    """Raises UserError unless the mels in <dataset_dir>/mel/ were made with `mel`."""
    path = settings_path(dataset_dir)
    if not path.is_file():
        meant = "" if dataset_dir.is_dir() else meant_by(dataset_dir)
        raise UserError(f"{path}: missing, the mels are not ready{meant}; {_redo(dataset_dir)}")
    try:
        found = build(MelConfig, read_json(path), path)
    except UserError as error:
        raise UserError(
            f"{error}\nThese are not the settings of a mel; {_redo(dataset_dir)}"
        ) from None
    if found != mel:
        raise UserError(
            f"{path}: the mels were made with other settings than the config's:"
            f" {', '.join(found.differences(mel))}; {_redo(dataset_dir)}"
        )


def _redo(dataset_dir: Path) -> str:
    return f"to make the mels anew, run: {remake(dataset_dir)}"


def settings_differ(dataset_dir: Path, mel: MelConfig) -> bool:
    """Whether the mels there were made with other settings, or settings that are unreadable."""
    try:
        check_mel_settings(dataset_dir, mel)
    except UserError:
        return settings_path(dataset_dir).is_file()
    return False
