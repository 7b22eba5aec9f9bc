import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import ConvNextConfig
from transformers.models.convnext.modeling_convnext import ConvNextLayer

from config.model_schema import VocosConfig
from config.schema import MelConfig
from models.vocoders.saved import VocoderSettings
from models.vocoders.vocos import ConvNeXtBlock, FrameSTFT, Vocos
from processors.mel import MelExtractor, mel_filter_bank, padding
from utils.errors import UserError

MELS = [
    MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0),
    MelConfig(16000, 1024, 640, 160, 64, 50.0, 7600.0),  # a window shorter than the FFT
    MelConfig(8000, 128, 128, 96, 20, 0.0, 4000.0),  # a hop that does not divide the FFT
]
mels = pytest.mark.parametrize("mel", MELS, ids=lambda mel: f"{mel.n_fft}-{mel.hop_size}")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectra_of_the_mel(wav: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """The complex spectra whose magnitudes `processors.mel` sums to bands."""
    padded = F.pad(wav[:, None], (padding(mel),) * 2, mode="reflect")[:, 0]
    window = torch.hann_window(mel.win_size)
    return torch.stft(
        padded, mel.n_fft, mel.hop_size, mel.win_size, window, center=False, return_complex=True
    ).transpose(1, 2)


@mels
def test_inverse_stft_returns_the_wav_that_the_mel_was_taken_from_sample_by_sample(mel):
    wav = random(2, 12 * mel.hop_size)
    spectra = FrameSTFT(mel)(wav)
    torch.testing.assert_close(spectra, spectra_of_the_mel(wav, mel), atol=1e-5, rtol=1e-5)
    result = FrameSTFT(mel).inverse(spectra_of_the_mel(wav, mel))
    assert result.shape == wav.shape
    torch.testing.assert_close(result, wav, atol=1e-5, rtol=1e-5)


@mels
def test_inverse_stft_of_spectra_of_no_wav_is_the_least_squares_sum(mel):
    frames = 5
    bins = mel.n_fft // 2 + 1
    spectrum = torch.complex(random(1, frames, bins), random(1, frames, bins, seed=1))
    left = (mel.n_fft - mel.win_size) // 2
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.win_size) / mel.win_size)
    total, weight = np.zeros((2, (frames - 1) * mel.hop_size + mel.n_fft))
    for frame in range(frames):
        start = frame * mel.hop_size + left
        inside = slice(start, start + mel.win_size)
        samples = np.fft.irfft(spectrum[0, frame].numpy())[left : left + mel.win_size]
        total[inside] += hann * samples
        weight[inside] += hann**2
    kept = slice(padding(mel), padding(mel) + frames * mel.hop_size)
    expected = torch.from_numpy((total[kept] / weight[kept]).astype(np.float32))
    torch.testing.assert_close(FrameSTFT(mel).inverse(spectrum)[0], expected, atol=1e-5, rtol=1e-4)


def test_inverse_stft_is_torch_istft_half_a_hop_later():
    mel, frames = MELS[0], 12
    bins = mel.n_fft // 2 + 1
    spectrum = torch.complex(random(2, frames, bins), random(2, frames, bins, seed=1))
    window = torch.hann_window(mel.n_fft)
    by_bins = spectrum.transpose(1, 2)
    theirs = torch.istft(by_bins, mel.n_fft, mel.hop_size, window=window, center=True)
    ours = FrameSTFT(mel).inverse(spectrum)
    half = mel.hop_size // 2  # torch puts the centre of frame 0 on sample 0, the mel on half a hop
    assert ours.shape[1] == theirs.shape[1] + mel.hop_size
    torch.testing.assert_close(ours[:, half:-half], theirs, atol=1e-5, rtol=1e-4)


@mels
@pytest.mark.parametrize("frames", [1, 2, 17])
def test_samples_are_frames_times_hop(mel, frames):
    noise = random(3, 2, frames * mel.hop_size)
    wav = Vocos(mel, 16, 32, 1)(random(2, mel.n_mel, frames), noise)
    assert wav.shape == noise.shape
    assert wav.isfinite().all()


def test_the_paper_s_size_and_the_head_s_additions():
    paper = MelConfig(24000, 1024, 1024, 256, 100, 0.0, 12000.0)
    block = 7 * 512 + 512 + 2 * 512 + 2 * 512 * 1536 + 1536 + 512 + 512
    expected = 7 * 100 * 512 + 512 + 2 * 512 + 8 * block + 2 * 512 + 512 * 1026 + 1026
    assert round(expected / 1e6, 1) == 13.5  # arXiv:2306.00814, table 5
    count = sum(parameter.numel() for parameter in Vocos(paper, 512, 1536, 8).parameters())
    added = 513 + 8 + 100 + 100  # magnitudes and envelope of the noise, bands, strictness
    assert count == expected + 513 * added


def test_a_block_is_convnext_s_in_one_dimension():
    block = ConvNeXtBlock(6, 24, layer_scale=0.3)  # 24: ConvNeXt widens four times
    theirs = ConvNextLayer(ConvNextConfig(layer_scale_init_value=0.3), dim=6)
    with torch.no_grad():
        theirs.dwconv.weight.zero_()
        theirs.dwconv.weight[:, :, 3] = block.dwconv.weight  # the row of its 7 x 7 kernels
        theirs.dwconv.bias.copy_(block.dwconv.bias)
        for name in ("layernorm.weight", "layernorm.bias"):
            value = random(6, seed=len(name))
            theirs.get_parameter(name).copy_(value)
            block.norm.get_parameter(name.split(".")[1]).copy_(value)
        for name, part in itertools.product(("pwconv1", "pwconv2"), ("weight", "bias")):
            getattr(theirs, name).get_parameter(part).copy_(
                getattr(block, name).get_parameter(part)
            )
        x = random(2, 6, 11)
        torch.testing.assert_close(block(x), theirs(x[:, :, None])[:, :, 0])


class Start(Vocos):
    """A network as it begins, whose parts can be set by hand and looked at."""

    def __init__(self, mel: MelConfig, **parts: float) -> None:
        super().__init__(mel, 16, 32, 1)
        torch.nn.init.zeros_(self.head.out.weight)
        names = ("periodic", "phase", "noisy", "envelope", "added", "strictness")
        biases = dict(zip(names, self.head.out.bias.detach().split(self.head.sizes), strict=True))
        for name, value in parts.items():
            biases[name].fill_(value) if isinstance(value, float) else biases[name].copy_(value)
        self.seen, self.spectra = [], []
        self.head.stft.register_forward_pre_hook(lambda _, wav: self.seen.append(wav[0]))
        inverse = self.head.stft.inverse
        self.head.stft.inverse = lambda x: self.spectra.append(x) or inverse(x)


FILTERS = torch.from_numpy(mel_filter_bank(MELS[0]))
SMOOTH = torch.linspace(2.0, 0.5, 513).expand(40, -1)  # magnitudes that bands tell
BANDS = (SMOOTH @ FILTERS.T).T[None].log()


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_the_periodic_part_has_the_prior_s_magnitudes(gain):
    network = Start(MELS[0], periodic=0.0, noisy=-100.0, phase=0.3)
    network(BANDS + math.log(gain), random(1, 1, 40 * 256))
    rebuilt = (network.spectra[0].abs() @ FILTERS.T).transpose(1, 2)
    torch.testing.assert_close(rebuilt.log(), BANDS + math.log(gain), atol=0.05, rtol=0)
    assert (network.spectra[0].angle() - 0.3).abs().max() < 1e-5


def test_the_noise_has_the_prior_s_magnitudes_on_average():
    network = Start(MELS[0], periodic=-100.0)
    network(BANDS, random(8, 1, 40 * 256))
    mean = network.spectra[0].abs().mean(0)
    ratio = (mean / SMOOTH)[10:-10].mean().item()  # the spectra at both ends mean something else
    assert ratio == pytest.approx(1.0, abs=0.03)


def test_the_envelope_is_the_noise_s_loudness_between_its_points():
    points = torch.tensor([0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    network, noise = Start(MELS[0], envelope=points), random(1, 1, 40 * 256)
    network(BANDS, noise)
    gains = (network.seen[0] / noise[0]).log().view(40, 256)
    centres = [int(32 * (number + 0.5)) for number in range(8)]  # 32 samples a point
    torch.testing.assert_close(gains[20, centres], points, atol=0.06, rtol=0)
    assert gains[20, centres[1]] < gains[20, (centres[1] + centres[2]) // 2] < 3.0


def test_a_wav_of_the_given_mel_stays_as_it_is_and_another_s_bands_come_near_it():
    mel, extract = MELS[0], MelExtractor(MELS[0])
    head, wav = Start(mel).head, 0.1 * random(2, 40 * 256)
    given, strict = extract(wav).transpose(1, 2), torch.ones(2, 40, 80)
    torch.testing.assert_close(head._corrected(wav, given, strict), wav, atol=1e-4, rtol=1e-3)
    other = 0.02 * random(2, 40 * 256, seed=1)
    corrected = head._corrected(other, given, strict)
    errors = [(extract(x).transpose(1, 2) - given).abs().mean() for x in (other, corrected)]
    assert errors[0] > 1.5
    assert errors[1] < 0.15
    for slack in (0, -3):
        kept = head._corrected(other, given, slack * strict)
        torch.testing.assert_close(kept, other, atol=1e-4, rtol=1e-3)


def test_before_any_training_a_sound_has_the_mel_s_bands_whatever_the_noise():
    extract, network = MelExtractor(MELS[0]), Vocos(MELS[0], 16, 32, 1)
    given = extract(random(1, 40 * 256) * torch.linspace(0.01, 0.3, 40 * 256))
    one, other = network(given, random(2, 1, 40 * 256, seed=3))
    for wav in (one, other):
        assert (extract(wav) - given).abs().mean() < 0.3
    assert (one - other).abs().mean() > one.abs().mean() / 2


@pytest.mark.parametrize("value", [-1000.0, 1000.0])
@pytest.mark.parametrize("part", range(6))  # of `sizes`: the last is the strictness
def test_whatever_the_network_says_a_sound_is_finite(part, value):
    """As of a mel that is like none of the training, or after a bad step of it."""
    network = Vocos(MELS[0], 16, 32, 1)
    with torch.no_grad():
        network.head.out.bias.split(network.head.sizes)[part].fill_(value)
    mels = torch.stack([BANDS[0], torch.full((80, 40), -14.0), 3 * random(80, 40)])
    assert network(mels, random(1, 3, 40 * 256)).isfinite().all()


def test_half_precision_stops_before_the_spectrum():
    vocos, mel = Vocos(MELS[0], 16, 32, 1), random(1, 80, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wav = vocos(mel, random(1, 1, 4 * 256))
    assert wav.dtype == torch.float32
    wav.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vocos.parameters())


def test_frames_that_do_not_overlap_are_refused():
    with pytest.raises(UserError, match="hop_size 64 must be less than win_size 64"):
        VocoderSettings(
            MelConfig(8000, 128, 64, 64, 20, 0.0, 4000.0), VocosConfig(16, 32, 1)
        ).make()
