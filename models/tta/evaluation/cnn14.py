"""Cnn14, the AudioSet tagger that published FD, KL and IS of text-to-audio are computed with.

PANNs (Kong et al., 2020, arXiv:1912.10211), table 1: log-mel of 64 bands, six blocks of two 3 x 3
convolutions, mean over frequency, maximum plus mean over time, two linear layers.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.checkpoint import load_weights
from utils.weight_files import read_weights

BANDS, CLASSES = 64, 527
CHANNELS = (64, 128, 256, 512, 1024, 2048)
SMALLEST_POWER = 1e-10
CORES = ("core", "_core")
STFT = "spectrogram_extractor."  # the published files hold the Fourier basis as convolutions
# Plain arrays, which PANNs' trainer kept beside the weights: by today's and by older numpy's names.
ARRAYS = [
    *((np._core.multiarray._reconstruct, f"numpy.{c}.multiarray._reconstruct") for c in CORES),
    *((np._core.multiarray.scalar, f"numpy.{c}.multiarray.scalar") for c in CORES),
    *(np.ndarray, np.dtype, *(type(np.dtype(name)) for name in ("int64", "int32", "float64"))),
]


class ConvBlock(nn.Module):
    """[B, C, T, F] -> [B, C', T, F]."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class Cnn14(nn.Module):
    """wav [B, T] at its rate -> (embedding [B, 2048], logits [B, 527]).

    The names of its weights are those of the published files, which hold the mel filters too.

    Args:
        window: samples of the Hann window and of the FFT; 512 for 16 kHz, 1024 for 32 kHz.
        hop: samples from frame to frame; 160 and 320.
        width: divides all channels, for tests.
    """

    def __init__(self, window: int, hop: int, width: int = 1) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.register_buffer("melW", torch.zeros(window // 2 + 1, BANDS))
        self.bn0 = nn.BatchNorm2d(BANDS)
        channels = [1, *(count // width for count in CHANNELS)]
        for number, (before, after) in enumerate(pairwise(channels), 1):
            setattr(self, f"conv_block{number}", ConvBlock(before, after))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], CLASSES)

    def log_mel(self, wav: Tensor) -> Tensor:
        """wav [B, T] -> dB [B, 1, frames, 64]."""
        window = torch.hann_window(self.window, device=wav.device)
        spectrum = torch.stft(
            wav, self.window, self.hop, window=window, pad_mode="reflect", return_complex=True
        )
        power = spectrum.abs().square().transpose(1, 2) @ self.melW
        return 10 * power.clamp(min=SMALLEST_POWER).log10()[:, None]

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        x = self.log_mel(wav)
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(CHANNELS) + 1):
            x = getattr(self, f"conv_block{number}")(x)
            if number < len(CHANNELS):
                x = F.avg_pool2d(x, 2)
        x = x.mean(dim=3)
        embedding = F.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)


def load_cnn14(path: Path, window: int, hop: int) -> Cnn14:
    """Reads Cnn14_16k_mAP=0.438.pth (512, 160) or Cnn14_mAP=0.431.pth (1024, 320)."""
    net = Cnn14(window, hop)
    with torch.serialization.safe_globals(ARRAYS):
        tensors = read_weights(path, "model")
    weights = {
        name.removeprefix("logmel_extractor."): value
        for name, value in tensors.items()
        if not name.startswith(STFT)
    }
    load_weights(net, weights, path)
    return net.eval()
