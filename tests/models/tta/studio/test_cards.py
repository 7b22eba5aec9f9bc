"""What the page shows: axes, curves, and text that is never markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from models.tta.studio.cards import axes_of, curve, render, sound_card, tick_step, training_cards
from models.tta.studio.history import Kept
from models.tta.studio.runs import trainings

MEL = {"sample_rate": 16000, "n_fft": 1024, "win_size": 1024, "hop_size": 256, "n_mel": 80}
RECEIPT = {
    **{"text": "a dog", "seed": 3, "duration": 10.0, "num_steps": 25, "sampler": "dpm++"},
    **{
        "audio": None,
        "checkpoint": "runs/one/final",
        "guidance_scale": 4.0,
        "negative_text": "",
        "mel": {**MEL, "fmin": 0.0, "fmax": 8000.0},
    },
}


class Seen(HTMLParser):
    """What a browser makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), ""

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_axes_have_round_numbers_in_their_places():
    axes = axes_of(RECEIPT)
    assert axes["seconds"] == 625 * 256 / 16000
    assert axes["time"] == [(f"{t}", 10.0 * t) for t in (0, 2, 4, 6, 8, 10)]
    labels = ["500 Hz", "1 kHz", "2 kHz", "4 kHz", "8 kHz"]
    assert [label for label, _ in axes["hz"]] == labels
    places = [place for _, place in axes["hz"]]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] <= 100


@pytest.mark.parametrize(
    ("seconds", "step"), [(0.5, 0.1), (1, 0.2), (2.56, 0.5), (6, 1), (6.1, 2), (10, 2), (31, 10)]
)
def test_steps_of_the_time_axis(seconds, step):
    assert tick_step(seconds) == pytest.approx(step)


def test_text_is_neither_markup_nor_a_template():
    text = "<script>alert(1)</script> ${document} {{value}} \" onload='x'"
    html = sound_card(Kept("0003", {**RECEIPT, "text": text, "negative_text": text}))
    assert "${" not in html
    assert "{{" not in html
    seen = Seen()
    seen.feed(html)
    assert "script" not in seen.tags
    assert not any(name.startswith("on") for name in seen.attributes)
    assert seen.words.count(text) == 2  # as it was typed, where it is shown


def test_progress_says_what_is_going_on():
    def words(**values) -> str:
        given = {"before": 0, "number": 2, "count": 3, "step": 5, "steps": 20, "left": None}
        html = render("progress", **{**given, **values})
        return " ".join(re.sub(r"<[^>]*>", " ", html).split())

    assert words() == "Sound 2 of 3: step 5 of 20"
    assert words(left=61.0) == "Sound 2 of 3: step 5 of 20 1 min 01 s left"
    assert words(before=1) == "Sound 2 of 3: waiting, 1 sound before yours"
    assert words(step=0, steps=0) == "Sound 2 of 3: loading the model"
    assert 'value="25" max="60"' in render(
        "progress", before=0, number=2, count=3, step=5, steps=20, left=None
    )


def test_a_curve_falls_where_the_loss_does():
    assert curve([(0, 3.0), (50, 2.0), (100, 1.0)]) == "0.0,0.0 50.0,15.0 100.0,30.0"
    assert curve([(10, 2.0), (20, 2.0)]) == "0.0,30.0 100.0,30.0"
    assert curve([(10, 2.0)]) == ""


def test_trainings_are_read_from_their_folders(tmp_path):
    run = tmp_path / "runs" / "<b>ldm"
    (run / "samples" / "step-00000006").mkdir(parents=True)
    (run / "checkpoints" / "step-00000009").mkdir(parents=True)
    for name in ("000.wav", "001.wav"):
        (run / "samples" / "step-00000006" / name).touch()
    config = {"model_type": "AudioLDM", "train": {"max_steps": 12}}
    (run / "config.json").write_text(json.dumps(config))
    lines = ["step 0: valid loss 1.5", "step 4: valid loss 0.75, kl_loss 9"]
    lines += ["step 8: valid rec_loss 7, loss 5e-1"]
    (run / "log.txt").write_text("".join(f"2026-01-01 00:00:00 {line}\n" for line in lines))
    for name, text in (("broken", "{"), ("other", "[]"), ("empty", "{}")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.json").write_text(text)
    [found] = trainings([str(tmp_path / "runs"), str(tmp_path / "none")])
    assert (found.model_type, found.step, found.max_steps) == ("AudioLDM", 9, 12)
    assert not found.finished
    assert found.losses == [(0, 1.5), (4, 0.75), (8, 0.5)]
    assert [path.name for path in found.sounds] == ["000.wav", "001.wav"]
    html = training_cards([found], page=False)
    assert "&lt;b&gt;ldm" in html
    assert "step 9 of 12" in html
    assert 'src="runs/%3Cb%3Eldm/step-00000006/001.wav"' in html
