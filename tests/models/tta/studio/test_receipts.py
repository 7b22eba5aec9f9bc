"""Receipts that hold anything: their sounds stand in the history, and all else goes on."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.tta.studio.cards import sound_card
from models.tta.studio.history import Kept
from models.tta.studio.receipts import settings_of
from models.tta.studio.shelf import Wish
from utils.errors import UserError

MEL = {"sample_rate": 16000, "n_fft": 1024, "win_size": 1024, "hop_size": 256, "n_mel": 80}
GOOD = {
    **{"file": "0000.wav", "text": "a dog", "sampler": "dpm++", "num_steps": 2},
    **{"guidance_scale": 3.0, "duration": 1.0, "negative_text": "", "seed": 5},
    **{"audio": "studio/x/sources/0123456789abcdef.wav", "strength": 1.0, "region": [[0.2, 0.4]]},
    **{"extend": 0.0, "task": None, "cutoff": None, "resample": 1, "source_guidance": 1.0},
    **{"inpaint": False, "vocoder": "griffin_lim", "checkpoint": "runs/one/final"},
    **{"weights": "2afe2e43171f", "device": "cpu", "mel": {**MEL, "fmin": 0.0, "fmax": 8000.0}},
    **{"lora": [{"folder": "runs/lora/final", "weight": 0.5, "weights": "2afe2e43171f"}]},
    **{"warning": "-60 dB, hardly to be heard", "changed_outside": 0.0, "kept": 0.675781},
}


def kept_with(studio, text: str | bytes) -> Kept:
    """A sound beside a file of this text."""
    folder = studio.history.of("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0000.wav").write_bytes(b"RIFF")
    (folder / "0000.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    [kept] = studio.history.newest("")
    return kept


def test_an_edit_of_before_is_made_again_as_it_was():
    """When there was no `anew`, all of what was edited was made by VAE and vocoder."""
    assert settings_of(GOOD).anew
    assert not settings_of({**GOOD, "anew": False}).anew


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "must hold an object, not list"),
        ("3", "must hold an object, not int"),
        ("", "not valid JSON in UTF-8"),
        ("<script>alert(1)</script>", "not valid JSON in UTF-8"),
        (b"\xff\xfe\x00", "not valid JSON in UTF-8"),
        ("[" * 30_000, "not valid JSON in UTF-8"),
        ('{"text": "' + "a" * 10_000_000 + '"}', "it is larger than 64 KiB"),
        ('{"text": "of another program"}', "sampler: missing"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_is_no_receipt(studio, text, reason):
    kept = kept_with(studio, text)
    assert kept.fault.startswith(f"its receipt cannot be read: {reason}")
    refused(studio, kept)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lora": "x"}, "lora: "),
        ({"lora": None}, "lora: "),
        ({"lora": [3]}, "lora.0: "),
        ({"lora": [{"folder": "x"}]}, "lora.0.weight: missing"),
        ({"lora": [{"folder": "x", "weight": "1"}]}, "lora.0.weight: "),
        ({"mel": None}, "mel: "),
        ({"mel": {}}, "mel.sample_rate: missing"),
        ({"mel": {**GOOD["mel"], "fmin": 9000.0}}, "mel: fmax"),
        ({"mel": {**GOOD["mel"], "n_mel": 10**400}}, "mel: there is none such"),
        ({"mel": {**GOOD["mel"], "fmin": 7999.9999999999}}, "mel: there is none such"),
        ({"text": ["a"]}, "text: "),
        ({"text": "\ud800"}, "text: "),
        ({"text": "a\0b"}, "text: "),
        ({"checkpoint": 3}, "checkpoint: "),
        ({"vocoder": None}, "vocoder: "),
        ({"device": "\ud800"}, "device: "),
        ({"duration": float("nan")}, "duration: "),
        ({"duration": 1e300}, "duration: "),
        ({"guidance_scale": float("inf")}, "guidance_scale: "),
        ({"num_steps": "2"}, "num_steps: "),
        ({"seed": 10**30}, "seed: "),
        ({"region": [[0.1]]}, "region.0"),
        ({"region": "0 1"}, "region: "),
        ({"region": [[0.5, 9.0]]}, "region 0.5 9 must be"),
        ({"audio": None}, "audio is missing"),
        ({"kept": "all"}, "kept: "),
        ({"changed_outside": float("nan")}, "changed_outside: "),
        ({"changed_outside": None}, "changed_outside: "),
        ({"warning": {"a": 1}}, "warning: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_receipt_with_a_value_that_is_none(studio, changes, reason):
    kept = kept_with(studio, json.dumps({**GOOD, **changes}))
    card = refused(studio, kept)
    assert f"its receipt cannot be read: {reason}" in card


def refused(studio, kept: Kept) -> str:
    """Its card, which says it; the sound is there still, and can be changed."""
    card = sound_card(kept, "a note")
    for part in ("its receipt cannot be read: ", "sounds/0000.wav", 'data-do="source"', "a note"):
        assert part in card
    assert 'data-do="again"' not in card
    assert "<script" not in card
    assert len(card) < 2000
    with pytest.raises(UserError) as caught:
        studio.replay("", "s", kept)
    assert "\n" not in str(caught.value)
    return card


def test_what_a_receipt_asks_for_is_limited_too(studio):
    """As where the limits were others, or the sound to be changed is another person's."""
    for changes, reason in (
        ({"duration": 1.5}, "duration: 1.5 s; at most 1 s here"),
        ({"num_steps": 300}, "num_steps: 300; at most 20 here"),
        ({"audio": "/etc/passwd"}, "there is no such sound"),
        ({}, "there is no such sound"),
    ):
        kept = kept_with(studio, json.dumps({**GOOD, "lora": [], **changes}))
        assert kept.fault == ""
        assert 'data-do="again"' in sound_card(kept)
        with pytest.raises(UserError, match=reason):
            studio.replay("", "s", kept)


def test_a_sound_without_its_receipt_and_one_that_is_not_finished(studio):
    kept_with(studio, json.dumps(GOOD))
    folder = studio.history.of("")
    (folder / "0001.wav").write_bytes(b"RIFF")
    (folder / "0002.wav").touch()  # its number is taken, and no more
    newest = studio.history.newest("")
    assert [kept.number for kept in newest] == ["0001", "0000"]
    assert [kept.fault for kept in newest] == ["its receipt cannot be read: there is none", ""]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
LEAVES |= st.sampled_from([2**63, 10**400, 1e308, 5e-324, "<b>", "\ud800", "${x}", "../../x"])
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)
PLACES = [(key,) for key in GOOD] + [("mel", key) for key in GOOD["mel"]]
PLACES += [("lora", 0, key) for key in GOOD["lora"][0]] + [("region", 0), ("region", 0, 1)]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ANYTHING), min_size=1, max_size=2))
def test_whatever_it_says_there_is_a_card(studio, changes):
    """And a wish, or words why there is none."""
    receipt = json.loads(json.dumps(GOOD))
    for place, value in changes:
        inner = receipt
        for key in place[:-1]:
            inner = inner[key] if isinstance(inner, dict) or inner else {}
        if isinstance(inner, (dict, list)):
            inner[place[-1]] = value
    kept = kept_with(studio, json.dumps(receipt))
    card = sound_card(kept)
    card.encode()
    assert 'src="sounds/0000.wav"' in card
    assert "<b>" not in card
    try:
        Wish.of_receipt({**kept.receipt, "lora": []})
    except KeyError:
        assert kept.fault
