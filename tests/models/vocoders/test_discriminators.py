import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.vocoders.discriminators import (
    PERIODS,
    RESOLUTIONS,
    Discriminators,
    PeriodDiscriminator,
    ResolutionDiscriminator,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("period", [2, 5])
def test_a_period_s_judgement_is_that_of_each_of_its_phases_by_itself(period):
    torch.manual_seed(0)
    judge, wav = PeriodDiscriminator(period, 32), noise(2, 60 * period)
    logits, activations = judge(wav)
    logits = logits.unflatten(1, (-1, period))
    for phase in range(period):  # every period-th sample, and convolutions in one dimension
        x = wav[:, None, phase::period]
        for conv, seen in zip(judge.convs, activations, strict=False):
            stride = conv.stride[0]
            x = F.conv1d(x, conv.weight[..., 0], conv.bias, stride=stride, padding=2)
            x = F.leaky_relu(x, 0.1)
            torch.testing.assert_close(seen[..., phase], x)
        x = F.conv1d(x, judge.conv_post.weight[..., 0], judge.conv_post.bias, padding=1)
        torch.testing.assert_close(logits[..., phase], x[:, 0])


def test_a_wav_that_is_no_multiple_of_the_period_is_mirrored_at_its_end():
    torch.manual_seed(0)
    judge, wav = PeriodDiscriminator(7, 32), noise(1, 100)
    mirrored = torch.cat([wav, wav[:, 94:99].flip(1)], dim=1)  # 105 = 15 x 7
    torch.testing.assert_close(judge(wav)[0], judge(mirrored)[0])


def test_a_resolution_s_judgement_is_convolutions_over_magnitudes():
    torch.manual_seed(0)
    n_fft, hop = 64, 16
    judge, wav = ResolutionDiscriminator(n_fft, 4), noise(1, 10 * hop)
    padded = np.pad(wav[0].numpy(), (n_fft - hop) // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = [padded[start : start + n_fft] * hann for start in range(0, 10 * hop, hop)]
    magnitudes = np.abs(np.fft.rfft(frames)) / np.sqrt(n_fft)
    x = torch.from_numpy(magnitudes.astype(np.float32))[None, None]
    for conv, stride, pad in zip(judge.convs, (1, 2, 2, 2, 1), (4, 4, 4, 4, 1), strict=True):
        x = F.leaky_relu(F.conv2d(x, conv.weight, conv.bias, (1, stride), (1, pad)), 0.1)
    x = F.conv2d(x, judge.conv_post.weight, judge.conv_post.bias, padding=1)
    torch.testing.assert_close(judge(wav)[0], x.flatten(1), atol=1e-5, rtol=1e-4)


def test_the_published_sizes():
    judges = Discriminators(period_channels=1024, resolution_channels=32)
    # Weights, and for weight norm a length and a bias for each channel.
    period = 5 * (32 + 32 * 128 + 128 * 512 + 512 * 1024 + 1024 * 1024) + 3 * 1024
    period += 2 * (32 + 128 + 512 + 1024 + 1024 + 1)
    resolution = 27 * (32 + 3 * 32 * 32) + 9 * 32 * 32 + 9 * 32 + 2 * (5 * 32 + 1)
    assert size(judges.periods) == 5 * period
    assert round(size(judges.periods) / 1e6, 1) == 41.1  # HiFi-GAN's code, MultiPeriodDiscriminator
    assert size(judges.resolutions) == 3 * resolution


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_all_judge_each_clip_by_itself():
    torch.manual_seed(0)
    judges, wav = Discriminators(32, 4), noise(2, 4096)
    of_real, of_fake = judges(wav[:1], wav[1:])
    _, again = judges(wav[:1], wav[:1])
    assert len(of_real) == len(of_fake) == len(PERIODS) + len(RESOLUTIONS)
    for (logits, layers), (others, _), (twice, _) in zip(of_real, of_fake, again, strict=True):
        torch.testing.assert_close(logits, twice)
        assert not torch.allclose(logits, others)
        assert len(layers) == 6
        torch.testing.assert_close(layers[-1].flatten(1), logits)


def test_there_may_be_no_resolutions():
    judges = Discriminators(32, 0)
    assert len(judges(noise(1, 1024), noise(1, 1024))[0]) == len(PERIODS)
