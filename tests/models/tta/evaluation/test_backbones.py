"""Cnn14, VGGish and mn04 against numbers that the published classes gave.

Golden numbers: computed once with PANNs' Cnn14_16k, torchvggish's VGGish without its last ReLU, and
EfficientAT's MN at width 0.4 behind its AugmentMelSTFT, each with the weights that `fill` makes and
the sound that `chirp` makes. None of their code is here.
"""

import librosa
import numpy as np
import pytest
import torch

from models.tta.evaluation.cnn14 import Cnn14, load_cnn14
from models.tta.evaluation.mn04 import EPSILON, MN04, load_mn04
from models.tta.evaluation.vggish import VGGish
from tests.models.tta.evaluation.onnx_writer import onnx_bytes
from utils.errors import UserError


@pytest.fixture(autouse=True)
def no_initial_weights(monkeypatch):
    """They are all replaced, and drawing eighty million takes seconds."""
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *a, **k: tensor)
    monkeypatch.setattr(torch.nn.init, "uniform_", lambda tensor, *a, **k: tensor)


def pattern(shape, start):
    """Numbers from -0.5 to 0.5 that need no random generator; 65537 of them, over and over."""
    base = np.sin(np.arange(65537, dtype=np.float64) * 12.9898) * 43758.5453
    base = np.roll(base - np.floor(base) - 0.5, -start).astype(np.float32)
    return torch.from_numpy(np.resize(base, shape))


@torch.no_grad()
def fill(net):
    """Weights by their names, in alphabetical order."""
    start, tensors = 0, net.state_dict()
    for name in sorted(tensors):
        tensor = tensors[name]
        if not tensor.dtype.is_floating_point or name == "melW":
            continue
        values = pattern(tuple(tensor.shape), start % 1000)
        if name.endswith("running_var"):
            values = values.abs() + 1
        elif tensor.dim() > 1:
            values = values * (12 * 2 / tensor[0].numel()) ** 0.5
        else:
            values = 0.2 * values + (1 if name.endswith("weight") else 0)
        tensor.copy_(values)
        start += tensor.numel()
    return net.eval()


def chirp(rate):
    """Two seconds of a rising tone with some noise [1, T]."""
    time = np.arange(2 * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time)
    return torch.from_numpy(tone + 0.05 * pattern((2 * rate,), 7).numpy()).float()[None]


def assert_golden(values, shape, first, norm):
    assert values.shape == shape
    torch.testing.assert_close(values[0, :4], torch.tensor(first), rtol=1e-3, atol=1e-4)
    assert float(values.double().norm()) == pytest.approx(norm, rel=1e-4)


@torch.no_grad()
def test_cnn14_is_panns():
    net = fill(Cnn14(512, 160))
    filters = librosa.filters.mel(sr=16000, n_fft=512, n_mels=64, fmin=50, fmax=8000)
    net.melW.copy_(torch.from_numpy(filters.T))
    embedding, logits = net(chirp(16000))
    assert_golden(embedding, (1, 2048), [1.45549, 3.53318, 2.15435, 0.0], 85.79083)
    assert_golden(logits, (1, 527), [4.0752, 4.77677, 0.415401, -3.57706], 60.02634)


@torch.no_grad()
def test_vggish_is_torchvggishs():
    embeddings, logits = fill(VGGish())(chirp(16000))
    assert logits is None
    assert_golden(embeddings, (2, 128), [-0.388947, 2.61283, -3.71228, -0.806533], 35.58339)


@torch.no_grad()
def test_mn04_is_efficientats():
    embedding, logits = fill(MN04())(chirp(32000))
    assert_golden(embedding, (1, 384), [0.117595, -0.0256255, -0.0087224, 0.0141928], 1.835966)
    assert_golden(logits, (1, 527), [-0.0318235, 0.106658, 0.0606674, 0.088482], 2.7925)
    assert sum(p.numel() for p in MN04().parameters()) == pytest.approx(0.983e6, rel=1e-3)


def test_vggish_hears_whole_patches_only():
    net = VGGish(width=32)
    assert len(net.patches(torch.zeros(1, 15600))) == 1
    assert len(net.patches(torch.zeros(1, 15599))) == 0
    assert len(net.patches(torch.zeros(1, 160000))) == 10


def test_cnn14_is_read_from_a_file_as_panns_wrote_them(tmp_path, monkeypatch):
    """The weights under "model", the Fourier basis among them, numpy arrays beside them."""
    small = Cnn14(512, 160, width=64)
    monkeypatch.setattr("models.tta.evaluation.cnn14.Cnn14", lambda *a: Cnn14(*a, width=64))
    weights = fill(small).state_dict()
    weights["logmel_extractor.melW"] = weights.pop("melW") + 0.1
    weights["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(257, 1, 512)
    sampler = {"indexes": np.arange(5), "pointer": np.int64(3)}
    torch.save({"iteration": 1, "model": weights, "sampler": sampler}, tmp_path / "cnn14.pth")
    net = load_cnn14(tmp_path / "cnn14.pth", 512, 160)
    assert torch.equal(net.melW, weights["logmel_extractor.melW"])
    assert torch.equal(net.fc1.weight, small.fc1.weight)


@torch.no_grad()
def test_mn04_is_read_from_pt_and_from_onnx(tmp_path):
    net = fill(MN04())
    torch.save(net.state_dict(), tmp_path / "mn04.pt")
    (tmp_path / "mn04.onnx").write_bytes(onnx_bytes(folded(net)))
    expected = net(chirp(32000))
    for name in ("mn04.pt", "mn04.onnx"):
        for value, wanted in zip(load_mn04(tmp_path / name)(chirp(32000)), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "mn04.onnx").read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole ONNX file"):
        load_mn04(tmp_path / "cut.onnx")


def folded(net):
    """The weights of an export: each batch norm within the convolution before it."""
    weights, out = net.state_dict(), {}
    for name, value in weights.items():
        norm = name.removesuffix("0.weight") + "1."
        if norm + "running_var" in weights and name.endswith(".0.weight"):
            scale = weights[norm + "weight"] / (weights[norm + "running_var"] + EPSILON).sqrt()
            shift = weights[norm + "bias"] - weights[norm + "running_mean"] * scale
            out["model." + name] = value * scale[:, None, None, None]
            out["model." + name + "_bias"] = shift
        elif "fc" in name or name.startswith("classifier"):
            out["model." + name] = value
    return out


def test_a_file_of_other_weights_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="weights of another model"):
        load_mn04(tmp_path / "other.pt")
