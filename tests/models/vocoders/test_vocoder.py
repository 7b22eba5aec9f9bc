import math

import pytest
import torch

from config.schema import MelConfig
from models.vocoders.griffin_lim import GriffinLim
from models.vocoders.load import load_vocoder
from processors.mel import MelExtractor
from utils.errors import UserError

MEL = MelConfig(
    sample_rate=16000, n_fft=1024, win_size=1024, hop_size=256, n_mel=80, fmin=0.0, fmax=8000.0
)
SAMPLES = 16000 // 256 * 256


def tone(hz: float) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(SAMPLES) / MEL.sample_rate)


def clicks() -> torch.Tensor:
    wav = torch.zeros(SAMPLES)
    for place in (1500, 6137, 11003):  # decaying bursts, unevenly spaced
        noise = torch.randn(400, generator=torch.Generator().manual_seed(place))
        wav[place : place + 400] += 0.5 * noise.clamp(-1, 1) * torch.exp(-torch.arange(400) / 60)
    return wav


def round_trip(wav: torch.Tensor, mel: MelConfig = MEL) -> torch.Tensor:
    return load_vocoder("griffin_lim", mel)(MelExtractor(mel)(wav[None]))[0]


def audible_error(wav: torch.Tensor, original: torch.Tensor) -> float:
    """Mean difference of the log mels where the original is within 80 dB of its loudest."""
    extract = MelExtractor(MEL)
    result, expected = extract(wav[None]), extract(original[None])
    heard = expected > expected.max() - math.log(10**4)
    return (result - expected).abs()[heard].mean().item()


@pytest.mark.parametrize(
    ("wav", "most"),
    [
        (tone(440.0), 0.6),
        (tone(3000.0), 0.6),
        (clicks(), 0.25),
        (0.1 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0)), 0.08),
    ],
    ids=["tone", "high tone", "clicks", "noise"],
)
def test_griffin_lim_gives_the_mel_back(wav, most):
    result = round_trip(wav)
    assert result.shape == wav.shape
    assert result.dtype == torch.float32
    assert audible_error(result, wav) < most


def test_a_tone_keeps_pitch_and_level():
    wav = round_trip(tone(440.0))[2048:-2048]
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs()
    hz = spectrum.argmax().item() * MEL.sample_rate / len(wav)
    assert abs(hz - 440.0) < 5.0
    assert abs(wav.square().mean().sqrt().item() / (0.5 / math.sqrt(2)) - 1) < 0.15


def test_sounds_come_back_where_they_were():
    original = clicks()
    result = round_trip(original)

    def envelope(wav: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool1d(wav.abs()[None], 16, 1)[0]

    size = 2 * SAMPLES
    spectra = [torch.fft.rfft(envelope(wav), size) for wav in (result, original)]
    lag = torch.fft.irfft(spectra[0] * spectra[1].conj(), size).argmax().item()
    lag = lag - size if lag > SAMPLES else lag
    assert abs(lag) <= 16, "1 ms; half a hop, the easy mistake, would be 128 samples"


@pytest.mark.parametrize("hop", [160, 256, 512])
def test_sounds_at_the_edges_stay_there(hop):
    mel = MelConfig(
        sample_rate=16000, n_fft=1024, win_size=800, hop_size=hop, n_mel=64, fmin=50.0, fmax=7000.0
    )
    burst = clicks()[1500:1900]
    wav = torch.zeros(20 * hop)
    wav[: len(burst)] = burst
    result = round_trip(wav, mel)
    assert len(result) == 20 * hop
    assert result[: 3 * hop].square().sum() > 20 * result[5 * hop :].square().sum()


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_short_and_loud_mels_stay_within_range(frames):
    mel = torch.full((2, 80, frames), 3.0)
    wav = GriffinLim(MEL)(mel)
    assert wav.shape == (2, frames * 256)
    assert wav.abs().max() <= 1.0
    assert wav.isfinite().all()


def test_silence_stays_silent():
    wav = GriffinLim(MEL)(torch.full((1, 80, 20), math.log(1e-5)))
    assert wav.abs().max() < 1e-3


def test_griffin_lim_takes_no_notice_of_the_batch_or_of_the_random_state():
    vocoder = GriffinLim(MEL)
    mels = MelExtractor(MEL)(torch.stack([tone(440.0), clicks(), tone(900.0)]))
    torch.manual_seed(1)
    together = vocoder(mels)
    torch.manual_seed(2)
    torch.testing.assert_close(vocoder(mels), together, rtol=0, atol=0)
    alone = torch.cat([vocoder(mel[None]) for mel in mels])
    # Rounding differs with the batch, and 60 steps let it grow.
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-3)


def test_griffin_lim_needs_overlap():
    mel = MelConfig(
        sample_rate=16000, n_fft=512, win_size=512, hop_size=512, n_mel=40, fmin=0.0, fmax=8000.0
    )
    with pytest.raises(UserError, match="hop_size 512 must be less than win_size 512"):
        load_vocoder("griffin_lim", mel)


def test_names_and_devices():
    vocoder = load_vocoder("griffin_lim", MEL)
    assert vocoder.name == "griffin_lim"
    assert vocoder.to(torch.device("cpu")) is vocoder
    assert not vocoder.state_dict(), "it has no weights"
    with pytest.raises(UserError, match="'griffinlim' is neither 'griffin_lim' nor a folder"):
        load_vocoder("griffinlim", MEL)
