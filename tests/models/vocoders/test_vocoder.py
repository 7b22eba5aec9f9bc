import math

import pytest
import torch

from config.schema import MelConfig
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
        (clicks(), 0.5),
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
    wav = load_vocoder("griffin_lim", MEL)(mel)
    assert wav.shape == (2, frames * 256)
    assert wav.abs().max() <= 1.0
    assert wav.isfinite().all()


def test_silence_stays_silent():
    wav = load_vocoder("griffin_lim", MEL)(torch.full((1, 80, 20), math.log(1e-5)))
    assert wav.abs().max() < 1e-3


def test_the_same_mel_gives_the_same_wav_in_any_batch_and_random_state():
    vocoder = load_vocoder("griffin_lim", MEL)
    mels = MelExtractor(MEL)(torch.stack([tone(440.0), clicks(), tone(900.0)]))
    torch.manual_seed(1)
    together, state = vocoder(mels), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "what others draw is not touched"
    torch.manual_seed(2)
    for mel, wav in zip(mels, together, strict=True):
        assert torch.equal(vocoder(mel[None])[0], wav)


def test_a_rounded_mel_gives_nearly_the_same_wav():
    """As batches of the U-Net round: on this machine, and on others, whose sums round otherwise."""
    vocoder = load_vocoder("griffin_lim", MEL)
    noise = 0.1 * torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0))
    for sound in (tone(440.0), clicks(), noise):
        mel = MelExtractor(MEL)(sound[None])
        rounding = 1e-5 * torch.randn(mel.shape, generator=torch.Generator().manual_seed(1))
        wav, other = vocoder(torch.cat([mel, mel + rounding]))
        assert (wav - other).norm() < 1e-2 * wav.norm()


def test_noise_does_not_flutter_at_the_frames_rate():
    """The envelope of steady noise has no line at the frames' rate (62.5 Hz) or twice that."""
    noise = 0.1 * torch.randn(10 * SAMPLES, generator=torch.Generator().manual_seed(0))

    def lines(wav: torch.Tensor) -> list[float]:
        envelope = wav.square() - wav.square().mean()
        spectrum = torch.fft.rfft(envelope[: 10 * SAMPLES]).abs()
        frames = len(wav) // MEL.hop_size
        near = spectrum[frames // 2 : 3 * frames].median()
        return [(spectrum[k * frames] / near).item() for k in (1, 2)]

    assert max(lines(noise)) < 3, "there is none in the noise itself"
    assert max(lines(round_trip(noise))) < 8, "phases that all begin at 0 give 28"


def test_griffin_lim_needs_overlap():
    mel = MelConfig(
        sample_rate=16000, n_fft=512, win_size=512, hop_size=512, n_mel=40, fmin=0.0, fmax=8000.0
    )
    with pytest.raises(UserError, match="hop_size 512 must be less than win_size 512"):
        load_vocoder("griffin_lim", mel)


def test_names_and_devices():
    vocoder = load_vocoder("griffin_lim", MEL)
    assert vocoder.to(torch.device("cpu")) is vocoder
    assert not vocoder.state_dict(), "it has no weights"
    with pytest.raises(UserError, match="'griffinlim' is neither 'griffin_lim' nor a folder"):
        load_vocoder("griffinlim", MEL)
