"""mn04_as, a small AudioSet tagger: EfficientAT's MobileNetV3 at 0.4 of its width.

Schmid et al., 2023 (arXiv:2211.04772): mAP 0.432 with a million parameters, 4 MB. The blocks are
those of MobileNetV3-Large (Howard et al., 2019, arXiv:1905.02244, table 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tta.evaluation.vggish import mel_triangles
from utils.checkpoint import load_weights
from utils.errors import UserError
from utils.weight_files import read_weights

RATE, FFT, HOP, WINDOW = 32000, 1024, 320, 800
BANDS, HIGHEST = 128, 15000.0
CLASSES = 527
WIDTH = 0.4
EPSILON = 1e-3  # of the batch norms
# kernel, expanded channels, channels, squeeze and excitation, hard swish, stride
BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def channels_of(number: float) -> int:
    """The multiple of 8 nearest to `number`, which loses no more than a tenth of it."""
    rounded = max(8, int(number + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * number else rounded


def convolution(before: int, after: int, kernel: int, stride: int, act, groups: int = 1):
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after, EPSILON), *([act()] if act else []))


class SqueezeExcitation(nn.Module):
    """Scales each channel by what the means of all channels say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels_of(channels // 4)
        layers = {"fc1": nn.Linear(channels, inner), "fc2": nn.Linear(inner, channels)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(layers)])

    def forward(self, x: Tensor) -> Tensor:
        layers = self.conc_se_layers[0]
        scale = layers["fc2"](F.relu(layers["fc1"](x.mean(dim=(2, 3)))))
        return x * scale.sigmoid()[:, :, None, None]


class InvertedResidual(nn.Module):
    """Widens, convolves each channel alone, scales, narrows; adds the input where shapes agree."""

    def __init__(self, before: int, block: tuple) -> None:
        super().__init__()
        kernel, expanded, after, excite, hard, stride = block
        expanded, after = channels_of(WIDTH * expanded), channels_of(WIDTH * after)
        act = nn.Hardswish if hard else nn.ReLU
        layers = [] if expanded == before else [convolution(before, expanded, 1, 1, act)]
        layers += [convolution(expanded, expanded, kernel, stride, act, groups=expanded)]
        layers += [SqueezeExcitation(expanded)] if excite else []
        layers += [convolution(expanded, after, 1, 1, None)]
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and before == after
        self.channels = after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.adds else self.block(x)


class MN04(nn.Module):
    """wav [B, T] at 32 kHz -> (embedding [B, 384], logits [B, 527]).

    The names of its weights are those of EfficientAT's files.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = channels_of(WIDTH * 16)
        layers: list[nn.Module] = [convolution(1, channels, 3, 2, nn.Hardswish)]
        for block in BLOCKS:
            layers.append(InvertedResidual(channels, block))
            channels = layers[-1].channels
        layers.append(convolution(channels, 6 * channels, 1, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = channels_of(WIDTH * 1280)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6 * channels, hidden),
            nn.Hardswish(),
            nn.Identity(),  # the dropout of training
            nn.Linear(hidden, CLASSES),
        )
        bins = torch.arange(FFT // 2 + 1) * (RATE / FFT)
        filters = mel_triangles(bins, BANDS, 0.0, HIGHEST).float()
        self.register_buffer("filters", filters, persistent=False)

    def log_mel(self, wav: Tensor) -> Tensor:
        """wav [B, T] -> [B, 1, 128, frames], about -1 to 3."""
        emphasised = wav[:, 1:] - 0.97 * wav[:, :-1]
        window = torch.hann_window(WINDOW, periodic=False, device=wav.device)
        spectrum = torch.stft(
            emphasised, FFT, HOP, WINDOW, window, pad_mode="reflect", return_complex=True
        )
        mel = self.filters.T @ spectrum.abs().square()
        return ((mel + 1e-5).log()[:, None] + 4.5) / 5

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features(self.log_mel(wav))
        return hidden.mean(dim=(2, 3)), self.classifier(hidden)


def load_mn04(path: Path) -> MN04:
    """Reads EfficientAT's mn04_as_mAP_432.pt, or an ONNX export of it."""
    net = MN04()
    weights = unfolded(onnx_tensors(path)) if path.suffix == ".onnx" else read_weights(path)
    load_weights(net, weights, path)
    return net.eval()


def unfolded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of an export, where batch norms went into the convolutions, -> those of the class.

    A norm of mean 0, variance 1 - epsilon and weight 1 adds what is left of it, the bias.
    """
    weights = {}
    for name, value in tensors.items():
        name = name.removeprefix("model.")
        if name.endswith(".0.weight_bias"):
            norm = name.removesuffix("0.weight_bias") + "1."
            zeros, ones = torch.zeros_like(value), torch.ones_like(value)
            weights |= {norm + "bias": value, norm + "weight": ones, norm + "running_mean": zeros}
            weights[norm + "running_var"] = ones - EPSILON
            weights[norm + "num_batches_tracked"] = torch.tensor(0)
        elif name.startswith(("features.", "classifier.")):
            weights[name] = value
    return weights


# ---------------------------------------------------------------- ONNX


def onnx_tensors(path: Path) -> dict[str, Tensor]:
    """The float32 initialisers of an ONNX file by name (onnx.proto: ModelProto.graph is field 7,
    GraphProto.initializer 5, TensorProto.dims 1, data_type 2, name 8, raw_data 9)."""
    tensors = {}
    try:
        for graph in _values(path.read_bytes(), 7):
            for tensor in _values(graph, 5):
                if list(_values(tensor, 2)) == [1]:
                    (name,), (raw,) = _values(tensor, 8), _values(tensor, 9)
                    data = np.frombuffer(raw, "<f4").reshape(_dims(tensor))
                    tensors[bytes(name).decode()] = torch.from_numpy(data.copy())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: not a whole ONNX file with its weights in it: {error}") from None
    return tensors


def _dims(tensor: memoryview) -> list[int]:
    """TensorProto.dims, written one by one or packed."""
    dims = []
    for value in _values(tensor, 1):
        if isinstance(value, int):
            dims.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            dims.append(number)
    return dims


def _values(message: bytes | memoryview, wanted: int) -> Iterator[int | memoryview]:
    """The values of one field of a protobuf message, in the order of the file."""
    message, at = memoryview(message), 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, end = _varint(message, at)
        elif key & 7 == 2:
            size, at = _varint(message, at)
            value, end = message[at : at + size], at + size
        elif key & 7 in (1, 5):
            value, end = 0, at + (8 if key & 7 == 1 else 4)
        else:
            raise ValueError(f"wire type {key & 7}")
        if end > len(message):
            raise ValueError("truncated")
        if key >> 3 == wanted:
            yield value
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where what follows it begins."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
