"""Sentences of triplets: grammar of labels and of captions, and what every template can hold."""

from __future__ import annotations

import re

import pytest

from preprocessors.demo_sounds import Draw
from preprocessors.edits.sources import recording_of
from preprocessors.edits.wording import (
    TEMPLATES,
    caption_of_mixture,
    clause,
    instruction,
    is_one_event,
    places_of,
    with_article,
    with_the,
    words_of,
)

TASKS = ("add", "drop", "replace", "inpaint", "super_resolution")
SOURCE = "(?:^|_)\\d-(\\d+)-[A-Z]|^(.{11})_\\d+_\\d+$"


@pytest.mark.parametrize(
    ("label", "a", "the"),
    [
        ("dog", "a dog", "the dog"),
        ("Engine", "an engine", "the engine"),
        ("crying baby", "a crying baby", "the crying baby"),
        ("sea waves", "sea waves", "the sea waves"),
        ("rain", "rain", "the rain"),
        ("crackling fire", "crackling fire", "the crackling fire"),
        ("sneezing", "sneezing", "the sneezing"),
        ("brushing teeth", "brushing teeth", "the brushing teeth"),
        ("glass", "a glass", "the glass"),
        ("the bell", "the bell", "the bell"),
        ("An owl", "an owl", "the owl"),
        ("TV", "a TV", "the TV"),
    ],
)
def test_articles(label, a, the):
    assert (with_article(label), with_the(label)) == (a, the)


def test_captions_within_a_sentence():
    assert clause("A dog  barks.") == "a dog barks"
    assert clause("TV plays") == "TV plays"
    assert clause("I hear rain!") == "I hear rain"


@pytest.mark.parametrize(
    ("caption", "one"),
    [
        ("A dog barks", True),
        ("A dog barks and a man speaks", False),
        ("Rain falls, thunder rolls", False),
        ("A dog barks as rain falls", False),
        ("A bandage is torn", True),  # "and" within a word
        ("One two three four five six seven eight nine ten eleven", True),
        ("One two three four five six seven eight nine ten eleven twelve", False),
        ("", False),
    ],
)
def test_which_captions_tell_of_one_event(caption, one):
    assert is_one_event(caption, 11) == one


def test_words_that_two_captions_share():
    assert words_of("A dog is barking") == words_of("The dogs bark") == {"dog", "bark"}
    assert words_of("A loud sound of rain").isdisjoint(words_of("The sound is loud, high"))


@pytest.mark.parametrize("task", TASKS)
def test_every_template_is_drawn_and_filled(task):
    places = places_of("dog", "A dog barks.") | places_of("rain", "Rain falls", "2")
    places |= {"where": "at the end", "whole": "a dog barks in the rain"}
    drawn = dict(instruction(task, places, Draw(seed))[::-1] for seed in range(600))
    assert sorted(drawn) == list(range(len(TEMPLATES[task])))
    for number, text in drawn.items():
        assert text[0].isupper()
        assert not re.search(r"[{}]|  |\ba a|\bthe the\b|\.$", text)
        assert ("dog" in text) == bool(
            re.search(r"{(a|the|clause|whole)}", TEMPLATES[task][number])
        )
    assert len(set(drawn.values())) == len(drawn)
    if task in ("inpaint", "super_resolution"):  # without a caption as well as with one
        assert {"whole" in template for template in TEMPLATES[task]} == {True, False}
    else:  # by a label as well as by a caption
        for label, caption in (("dog", None), (None, "A dog barks")):
            fewer = places_of(label, caption) | places_of(label, caption, "2")
            texts = {instruction(task, fewer, Draw(seed))[0] for seed in range(99)}
            assert len(texts) >= (1 if task == "add" else 3)
            fewer["where"] = "in the background"
            if task == "add":
                texts = {instruction(task, fewer, Draw(seed))[0] for seed in range(99)}
                assert sum("in the background" in text.lower() for text in texts) >= 5


def test_a_mixture_is_told_with_its_position():
    said = {caption_of_mixture("Rain falls.", "a dog barks", "end", Draw(n)) for n in range(99)}
    assert all(text.startswith("Rain falls") and "dog barks" in text for text in said)
    assert all("end" in text or "last" in text for text in said)
    assert caption_of_mixture("Rain", "a dog barks", None, Draw(0)) in (
        "Rain, and a dog barks",
        "Rain, and also a dog barks",
    )


@pytest.mark.parametrize(
    ("record", "recording"),
    [
        ({"Dataset": "ESC50", "Uid": "1-100032-A-0"}, "100032"),
        ({"Dataset": "ESC10", "Uid": "001_1-100032-A"}, "100032"),
        ({"Dataset": "AudioCaps", "Uid": "---1_cCGK4M_0_10000"}, "---1_cCGK4M"),
        ({"Dataset": "Own", "Uid": "dog/17"}, "Own/dog/17"),
        ({"Dataset": "Own", "Uid": "1-100032-A-0", "source": "mine"}, "mine"),
    ],
)
def test_the_recording_of_a_clip(record, recording):
    assert recording_of(record, SOURCE) == recording
