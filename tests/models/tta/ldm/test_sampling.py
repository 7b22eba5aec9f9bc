"""From mels to sounds."""

import math
from types import SimpleNamespace

import numpy as np
import torch

from models.tta.ldm.sampling import NOT_FINITE, SamplingSettings, generate
from models.vocoders.load import load_vocoder
from tests import tiny

TEXTS = ["a dog", "rain", "wind", "a bell"]


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
