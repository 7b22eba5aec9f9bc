"""VGGish, whose embeddings the Frechet audio distance is computed with.

Hershey et al., 2017 (arXiv:1609.09430); the figures of the front end are those of Google's release:
25 ms Hann windows every 10 ms, FFT of 512, 64 HTK mel bands of the magnitude, ln(x + 0.01), patches
of 96 frames without overlap. As in audioldm_eval and av-benchmark, the embedding is what comes
before the last ReLU, and no PCA follows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from utils.checkpoint import load_weights
from utils.weight_files import read_weights

RATE, WINDOW, HOP, FFT = 16000, 400, 160, 512
BANDS, LOWEST, HIGHEST, OFFSET = 64, 125.0, 7500.0, 0.01
PATCH = 96  # frames
SHORTEST = WINDOW + (PATCH - 1) * HOP  # samples of one patch
LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")


def mel_triangles(frequencies: Tensor, bands: int, lowest: float, highest: float) -> Tensor:
    """Filters [F, bands] for bins at `frequencies` [F] Hz, triangles on the mel scale of HTK."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127 * (1 + hertz.double() / 700).log()

    low, high = mel(torch.tensor([lowest, highest])).tolist()
    edges = torch.linspace(low, high, bands + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    at = mel(frequencies)[:, None]
    return torch.minimum((at - left) / (centre - left), (right - at) / (right - centre)).clamp(0)


class VGGish(nn.Module):
    """wav [1, T] at 16 kHz -> (embeddings [T // 0.96 s or so, 128], None).

    The names of its weights are those of torchvggish's file.
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        layers, before = [], 1
        for layer in LAYERS:
            if layer == "pool":
                layers += [nn.MaxPool2d(2)]
            else:
                layers += [nn.Conv2d(before, layer // width, 3, padding=1), nn.ReLU()]
                before = layer // width
        self.features = nn.Sequential(*layers)
        hidden = 4096 // width
        self.embeddings = nn.Sequential(
            nn.Linear(before * (PATCH // 16) * (BANDS // 16), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 128),
        )
        bins = torch.linspace(0, RATE / 2, FFT // 2 + 1)
        filters = mel_triangles(bins, BANDS, LOWEST, HIGHEST)
        self.register_buffer("filters", filters, persistent=False)

    def patches(self, wav: Tensor) -> Tensor:
        """wav [1, T] -> log-mel [patches, 1, 96, 64]; what fills no patch is left out."""
        frames = wav[0].double().unfold(0, WINDOW, HOP)
        window = torch.hann_window(WINDOW, dtype=torch.float64, device=wav.device)
        mel = torch.fft.rfft(frames * window, FFT).abs() @ self.filters
        whole = len(mel) // PATCH * PATCH
        return (mel[:whole] + OFFSET).log().reshape(-1, 1, PATCH, BANDS).float()

    def forward(self, wav: Tensor) -> tuple[Tensor, None]:
        hidden = self.features(self.patches(wav))  # [patches, 512, 6, 4]
        return self.embeddings(hidden.permute(0, 2, 3, 1).flatten(1)), None


def load_vggish(path: Path) -> VGGish:
    """Reads torchvggish's vggish-10086976.pth."""
    net = VGGish()
    load_weights(net, read_weights(path), path)
    return net.eval()
