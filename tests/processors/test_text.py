from typing import NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from config.model_schema import SmallT5Config
from models.tta.ldm.text_encoder import TextEncoder
from processors import text
from processors.text import TextCache, build_text_cache, padded_length

CAPTIONS = ["a dog barks", "rain falls on a roof and a bird sings", "a dog barks", "wind"]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return TextEncoder.small(SmallT5Config(80, 16, 1, 2, 16), CAPTIONS, 12).eval()


class Cache(NamedTuple):
    """A cache of captions, asked by the captions themselves."""

    captions: list[str]
    texts: TextCache

    @property
    def rows(self):
        return self.texts.rows

    def batch(self, captions):
        return self.texts.batch([self.captions.index(caption) for caption in captions])


def build(folder, encoder, captions=CAPTIONS):
    distinct = sorted({"", *captions})
    accelerator = Accelerator(cpu=True)
    return Cache(
        distinct, build_text_cache(folder, distinct, encoder, encoder.fingerprint(), accelerator)
    )


def test_a_batch_is_what_the_encoder_says(tmp_path, encoder):
    cache = build(tmp_path, encoder)
    for batch in (["wind"], [CAPTIONS[1], ""], [*CAPTIONS, ""]):
        text_emb, text_mask = cache.batch(batch)
        with torch.no_grad():
            expected, mask = encoder.encode(batch)
        assert text_emb.shape[1] == 16
        assert text_mask.sum(1).tolist() == mask.sum(1).tolist()
        found = text_emb.float()[text_mask]
        torch.testing.assert_close(found, expected[mask], rtol=2e-3, atol=2e-3)  # half precision
        assert (text_emb[~text_mask] == 0).all()


@pytest.mark.parametrize(
    ("longest", "length"), [(1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (128, 128)]
)
def test_few_lengths_occur(longest, length):
    assert padded_length(longest) == length


def test_the_dropped_caption_is_the_empty_prompt_of_sampling(tmp_path, encoder):
    text_emb, text_mask = build(tmp_path, encoder).batch([""])
    with torch.no_grad():
        expected, mask = encoder.encode([""])  # as models/tta/ldm/pipeline.py does
    assert mask.sum() == text_mask.sum() == 1
    torch.testing.assert_close(text_emb[text_mask].float(), expected[mask], rtol=2e-3, atol=2e-3)


def test_the_same_captions_are_encoded_once(tmp_path, encoder, monkeypatch):
    first = build(tmp_path, encoder)
    monkeypatch.setattr(encoder, "encode", None)
    monkeypatch.setattr(encoder, "tokenize", None)
    again = build(tmp_path, encoder, CAPTIONS[::-1])
    assert np.array_equal(first.rows.blocks[0], again.rows.blocks[0])
    monkeypatch.undo()
    build(tmp_path, encoder, [*CAPTIONS, "a bell"])
    assert len(list(tmp_path.iterdir())) == 2


def test_many_captions_in_blocks(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(text, "CAPTIONS_PER_BLOCK", 3)
    monkeypatch.setattr(text, "CAPTIONS_PER_BATCH", 2)
    captions = [f"{a} {b}" for a in ("a dog", "the rain") for b in ("barks", "falls", "sings on")]
    cache = build(tmp_path, encoder, captions)
    assert len(cache.rows.blocks) == 3
    with torch.no_grad():
        for caption in captions:
            text_emb, text_mask = cache.batch([caption])
            expected, mask = encoder.encode([caption])
            torch.testing.assert_close(
                text_emb.float()[text_mask], expected[mask], rtol=2e-3, atol=2e-3
            )
