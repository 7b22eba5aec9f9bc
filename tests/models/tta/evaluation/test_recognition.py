import math

import numpy as np
import pytest
import torch
import torchaudio

from config.schema import MelConfig
from models.tta.evaluation.recognition import train_classifier, train_tagger
from preprocessors.demo import demo_clips
from processors.mel import MelExtractor, mel_filter_bank
from utils.errors import UserError

SEED = 12345
MEL = MelConfig(
    sample_rate=16000, n_fft=1024, win_size=1024, hop_size=256, n_mel=80, fmin=0, fmax=8000
)
SILENT = np.full((80, 160), math.log(1e-5), np.float32)


def single(split, number):
    """mels and kinds of the first clips of a split that hold one event."""
    clips = [c for c in demo_clips(SEED) if c.split == split and len(c.events) == 1][:number]
    wavs = np.stack([clip.wav(MEL.sample_rate, SEED) for clip in clips])
    return MelExtractor(MEL)(torch.from_numpy(wavs).float()), [clip.kind for clip in clips]


def griffin_lim(mel):
    """mel -> wav -> mel; that the frames lie half a hop apart does not matter here."""
    filters = torch.from_numpy(mel_filter_bank(MEL))
    magnitude = (torch.linalg.pinv(filters) @ mel.exp()).clamp(min=0)
    window = torch.hann_window(MEL.win_size)
    wav = torchaudio.functional.griffinlim(
        magnitude, window, 1024, 256, 1024, 1.0, 30, 0.99, 256 * mel.shape[-1] - 1, False
    )
    return MelExtractor(MEL)(wav)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(*single("train", 200), steps=60)


def share_right(classifier, mels, kinds):
    return np.mean(
        [heard == kind for heard, kind in zip(classifier.hear(mels), kinds, strict=True)]
    )


def test_hears_held_out_clips_and_their_griffin_lim_round_trips(classifier):
    mels, kinds = single("valid", 80)
    assert share_right(classifier, mels, kinds) >= 0.98
    assert share_right(classifier, griffin_lim(mels[::4]), kinds[::4]) >= 0.95


def test_loudness_length_and_company_do_not_matter(classifier):
    mels, kinds = single("valid", 10)
    assert classifier.hear([mel - 1.5 for mel in mels]) == kinds
    assert classifier.hear([mel.numpy()[:, :130] for mel in mels]) == kinds
    longer = torch.nn.functional.pad(mels, (0, 40), value=math.log(1e-5))
    assert [classifier.hear([mel])[0] for mel in longer] == kinds


def test_silence_is_no_kind(classifier):
    assert classifier.hear([SILENT, SILENT + 0.1]) == ["silence", "silence"]
    assert classifier.hear([]) == []


def test_training_repeats_by_its_seed_and_leaves_the_global_one_alone():
    mels, kinds = single("train", 10)
    state = torch.get_rng_state()
    first, again = (train_classifier(mels, kinds, steps=3, seed=7).net for _ in range(2))
    other = train_classifier(mels, kinds, steps=3, seed=8).net
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.out.weight, again.out.weight)
    assert not torch.equal(first.out.weight, other.out.weight)


def test_own_sounds_may_differ_in_length():
    low, high = SILENT.copy(), SILENT.copy()
    low[10:20], high[60:70] = 0, 0
    mels = [mel[:, :length] for length in (40, 90, 160) for mel in (low, high)]
    classifier = train_classifier(mels, ["drum", "whistle"] * 3, steps=30)
    assert classifier.frames == 90
    assert classifier.hear(mels) == ["drum", "whistle"] * 3


def test_one_kind_is_refused():
    with pytest.raises(UserError, match=r"at least two kinds, found \['bell'\]"):
        train_classifier([SILENT], ["bell"])


def test_a_tagger_hears_several_kinds_at_once_or_none():
    low, high, other, unnamed = (SILENT.copy() for _ in range(4))
    low[10:20], high[60:70], other[35:45], unnamed[:, :20] = 0, 0, 0, 0
    mels = [low, high, np.maximum(low, high), np.maximum(high, other), other, unnamed]
    kinds = [{"drum"}, {"whistle"}, {"drum", "whistle"}, {"whistle", "horn"}, {"horn"}, set()]
    tagger = train_tagger([mel[:, :40] for mel in mels], kinds, passes=430)
    assert tagger.kinds == ("drum", "horn", "whistle")
    assert tagger.hear_all(mels) == kinds
    tagger.net.out.bias.data += 100  # now it takes anything for all of them
    assert tagger.hear_all([SILENT, SILENT + 0.1, low]) == [set(), set(), set(tagger.kinds)]
    with pytest.raises(UserError, match=r"at least two kinds, found \['drum'\]"):
        train_tagger([low], [{"drum"}])
