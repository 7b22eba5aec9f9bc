"""From mels to sounds."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config.schema import MelConfig
from models.tta.ldm.sampling import NOT_FINITE, SamplingSettings, generate, guided
from models.vocoders.load import load_vocoder
from tests import tiny
from utils.errors import UserError

TEXTS = ["a dog", "rain", "wind", "a bell"]


class Fixed:
    """A U-Net and a text encoder; what is predicted is given: with the texts, then without."""

    def __init__(self, predictions: torch.Tensor) -> None:
        self.predictions = predictions

    def encode_guided(self, *_):
        return ()

    def prepare_text(self):
        return None

    def __call__(self, latent, timesteps, context):
        return self.predictions.flatten(0, 1)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_guidance_shifts_the_mean_of_a_channel_by_its_share(share):
    prompted, empty = predictions = torch.randn(2, 2, 3, 4, 5)
    fixed = Fixed(predictions)
    found = guided(fixed, fixed, TEXTS[:2], "", 3.0, share)(prompted, torch.tensor(700))
    means = (found - prompted).mean((2, 3)), 2 * (prompted - empty).mean((2, 3))
    torch.testing.assert_close(means[0], share * means[1])
    # All else is guided as ever.
    plain = empty + 3 * (prompted - empty)
    centred = [x - x.mean((2, 3), keepdim=True) for x in (found, plain)]
    torch.testing.assert_close(*centred)


def test_what_is_no_number_becomes_silence_and_its_batch_stays():
    settings = SamplingSettings("euler", 4, 3.0, 0.3, "", 0)
    griffin_lim, good = load_vocoder("griffin_lim", tiny.MEL), torch.rand(4, 16, 20) - 3

    def pipeline(texts, *_):
        mels = good.clone()
        mels[1, 3, 5] = math.nan
        return mels

    def vocoder(mels):
        wavs = griffin_lim(good.to(mels)).clone()
        wavs[2, 100] = math.inf
        return wavs

    pipeline.settings = SimpleNamespace(mel=tiny.MEL)
    sounds = list(generate(pipeline, vocoder, TEXTS, settings))
    assert [sound.fault for sound in sounds] == [None, NOT_FINITE, NOT_FINITE, None]
    for number, (sound, wav) in enumerate(zip(sounds, griffin_lim(good), strict=True)):
        silent = number in (1, 2)
        assert sound.level == -120 if silent else math.isfinite(sound.level)
        np.testing.assert_array_equal(sound.wav, 0 * wav[:1200] if silent else wav[:1200])
        np.testing.assert_array_equal(
            sound.mel, np.full((16, 20), math.log(1e-5), np.float32) if silent else good[number]
        )


def test_a_region_may_end_with_the_sound_whatever_its_sum_rounds_to():
    assert 0.1 + 0.7 - 0.7 < 0.1
    part = {"audio": "a.wav", "region": ((0.0, 0.1),), "extend": 0.7}
    settings = SamplingSettings("euler", 4, 3.0, 0.1 + 0.7, **part)
    assert settings.regions[0] == (0.0, 0.1)
    with pytest.raises(UserError, match=r"region 0 0\.101 must be"):
        dataclasses.replace(settings, region=((0.0, 0.101),))


def test_rounding_makes_no_duration_a_frame_longer():
    mel, exact = MelConfig(16000, 1024, 1024, 160, 64, 0.0, 8000.0), 0
    for frames in range(1, 1000):
        settings = SamplingSettings("euler", 4, 3.0, frames / 100)
        assert settings.frames(mel) == frames
        exact += settings.duration * 100 <= frames
    assert exact < 950  # 0.07 x 100 is more than 7
