"""Long sounds piece by piece: the samples of the whole, whatever makes them."""

import pytest
import torch
from torchaudio.functional import griffinlim

from models.vocoders import griffin_lim, pieces
from models.vocoders.load import load_vocoder
from models.vocoders.pieces import PIECE, WHOLE, by_pieces
from tests import tiny
from tests.models.tta.convert.small_models import write_vocoder, write_vocos

FRAMES = 250  # more than a piece of 64 and what Griffin-Lim depends on, on both sides


@pytest.mark.parametrize("frames", [1, WHOLE, WHOLE + 1, 3 * PIECE - 5, 3 * PIECE + 1])
def test_pieces_of_what_hears_its_neighbours_are_the_whole_and_no_longer_for_a_longer_sound(frames):
    """Here each frame's two samples are the mean over three frames on either side."""
    x, seen = torch.randn(2, frames), []

    def wav_of(first, last):
        seen.append(last - first)
        mean = torch.nn.functional.avg_pool1d(x[:, first:last], 7, 1, padding=3)
        return mean.repeat_interleave(2, dim=1)

    found = by_pieces(wav_of, frames, 3)
    most = frames if frames <= WHOLE else PIECE + 6
    assert max(seen) <= most
    torch.testing.assert_close(found, wav_of(0, frames), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def vocoders(tmp_path_factory):
    """A small one of each kind, HiFi-GAN's two kinds of blocks included."""
    root = tmp_path_factory.mktemp("vocoders")
    return {
        "griffin_lim": load_vocoder("griffin_lim", tiny.MEL),
        "vocos": write_vocos(root / "vocos"),
        "hifigan": write_vocoder(root / "hifigan"),
        "plain": write_vocoder(root / "plain", plain=True),
    }


@pytest.mark.parametrize("name", ["griffin_lim", "vocos", "hifigan", "plain"])
def test_each_vocoder_s_pieces_are_the_whole(vocoders, name, monkeypatch):
    mel = torch.randn(2, tiny.MEL.n_mel, FRAMES, generator=torch.Generator().manual_seed(0)) - 2
    monkeypatch.setattr(griffin_lim, "WHOLE", 100)  # so that phases are drawn more than once
    monkeypatch.setattr(pieces, "WHOLE", FRAMES)
    whole = vocoders[name](mel)
    monkeypatch.setattr(pieces, "WHOLE", FRAMES - 1)
    monkeypatch.setattr(pieces, "PIECE", 64)
    assert whole.std() > 0.01
    torch.testing.assert_close(vocoders[name](mel), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vocos", "hifigan", "plain"])
def test_what_lies_beyond_the_context_is_not_heard_and_what_lies_near_is(vocoders, name):
    vocoder = vocoders[name]
    context = vocoder.generator.context if name == "vocos" else vocoder.context
    mel = torch.randn(1, tiny.MEL.n_mel, 4 * context, generator=torch.Generator().manual_seed(0))
    changed, place = mel.clone(), 2 * context
    changed[:, :, place] += 1
    differ = (vocoder(changed) != vocoder(mel))[0].nonzero() / tiny.MEL.hop_size
    assert place - context <= differ.min()
    assert differ.max() <= place + context + 1
    assert differ.max() - differ.min() > context / 2, "not many times more than needed"


def test_griffin_lim_is_torchaudio_s_from_the_same_phases():
    vocoder, mel = load_vocoder("griffin_lim", tiny.MEL), torch.randn(tiny.MEL.n_mel, 30) - 2
    sizes = (tiny.MEL.n_fft, tiny.MEL.hop_size, tiny.MEL.win_size)
    extra = sizes[0] // (2 * sizes[1]) + 1  # frames before the first and after the last
    padded = torch.nn.functional.pad(mel[None], (extra, extra), mode="replicate")[0]
    torch.manual_seed(0)
    theirs = griffinlim(
        vocoder._magnitudes(padded), vocoder.window, *sizes, 1.0, 32, 0.0, None, rand_init=True
    )
    begin = extra * sizes[1] - sizes[1] // 2
    expected = theirs[begin : begin + 30 * sizes[1]].clamp(-1, 1)
    assert torch.equal(vocoder(mel[None])[0], expected)
