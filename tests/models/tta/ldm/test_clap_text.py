"""CLAP's text half as a conditioner, and CLAP as the judge of candidates."""

import numpy as np
import pytest
import soxr
import torch
from torch.nn import functional as F
from transformers import ClapFeatureExtractor, ClapModel

from models.tta.evaluation.hub_models import CLAP_RATE
from models.tta.ldm.clap_text import ClapText
from models.tta.ldm.ranking import find_judge
from models.tta.ldm.sampling import Sound
from tests import small_clap
from utils.errors import UserError

TEXTS = ["a dog barks", "", "rain falls and a dog barks and rain falls"]


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clap")
    small_clap.write_clap(folder)
    return folder


@torch.no_grad()
def of_texts(clap, texts: list[str]) -> torch.Tensor:
    """transformers' own embeddings of texts, [B, D] of length 1."""
    tokens = small_clap.clap_tokenizer()(texts, padding=True, return_tensors="pt")
    found = ClapModel.from_pretrained(clap).eval().get_text_features(**tokens).pooler_output
    return F.normalize(found, dim=-1)


@torch.no_grad()
def test_a_text_is_one_vector_as_clap_has_it(clap, tmp_path):
    encoder = ClapText.from_pretrained(str(clap), 60)
    embedding, mask = encoder.encode(TEXTS)
    assert (embedding.shape, mask.tolist()) == ((3, 1, encoder.dim), [[True]] * 3)
    torch.testing.assert_close(embedding[:, 0], of_texts(clap, TEXTS), rtol=1e-5, atol=1e-6)
    alone = torch.cat([encoder.encode([text])[0] for text in TEXTS])
    torch.testing.assert_close(embedding, alone, rtol=1e-5, atol=1e-6)
    guided, _ = encoder.encode_guided(TEXTS[:2], TEXTS[2])
    torch.testing.assert_close(guided[2:, 0], embedding[[2, 2], 0], rtol=1e-5, atol=1e-6)
    encoder.save(tmp_path)
    again = ClapText.from_pretrained(str(tmp_path), 60)
    assert again.fingerprint() == encoder.fingerprint()
    torch.testing.assert_close(again.encode(TEXTS)[0], embedding, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_text_beyond_its_positions_is_cut(clap):
    long = "a dog barks " * 100
    for most, limit in ((10, 10), (500, 62)):
        encoder = ClapText.from_pretrained(str(clap), most)
        ids, mask = encoder.tokenize([long])
        assert int(mask.sum()) == limit
        assert (ids[0, 0].item(), ids[0, limit - 1].item()) == (0, 2)
        assert (encoder.is_cut(long), encoder.is_cut("a dog")) == (True, False)
        assert encoder.encode([long])[0].isfinite().all()


@torch.no_grad()
def test_the_judge_keeps_what_lies_nearest_to_the_text(clap):
    draw, rate = np.random.default_rng(0), 16000
    wavs = [
        draw.normal(0, 0.1, rate).astype(np.float32) * ramp for ramp in (1, np.linspace(0, 1, rate))
    ]
    wavs += [np.sin(0.1 * np.arange(rate) * k) for k in (1, 3)]
    text, mel = "a dog barks", np.zeros((4, 4), np.float32)
    sounds = [Sound(text, n, mel, wav.astype(np.float32)) for n, wav in enumerate(wavs)]
    judge = find_judge(str(clap), torch.device("cpu"))
    kept = [(sound.seed, judge.receipt()) for sound in judge.best(iter(sounds), 2, rate)]

    model, extract = (
        ClapModel.from_pretrained(clap).eval(),
        ClapFeatureExtractor.from_pretrained(clap),
    )
    heard = [soxr.resample(sound.wav, rate, CLAP_RATE, "HQ") for sound in sounds]
    features = extract(heard, sampling_rate=CLAP_RATE, return_tensors="pt")
    found = F.normalize(model.get_audio_features(**features).pooler_output, dim=-1)
    scores = (found @ of_texts(clap, [text])[0]).tolist()
    assert len({round(score, 4) for score in scores}) == 4
    for pair, (seed, receipt) in zip((scores[:2], scores[2:]), kept, strict=True):
        assert receipt["clap_scores"] == pytest.approx(pair, abs=1e-5)
        assert receipt["clap_score"] == pytest.approx(max(pair), abs=1e-5)
        assert scores[seed] == max(pair)


def test_without_weights_the_judge_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="clap-htsat-unfused is not there; fetch them with --clap"):
        find_judge(None, torch.device("cpu"))
    with pytest.raises(UserError, match="clap=nowhere: no such file"):
        find_judge("nowhere", torch.device("cpu"))
