"""Triplets as a user meets them: what is refused, and the page."""

from __future__ import annotations

import dataclasses
import html
import importlib
import os
import re
import sys

import pytest

from models.tta.evaluation.triplets import choose, page_of_triplets
from preprocessors.edits.prepare import prepare_edits
from preprocessors.prepare import read_dataset
from processors.mel import check_mel_settings
from tests import triplets as small
from tests.sounds import ROOT, make_mels_in_process, noise
from tests.triplets import RATE
from utils.audio import write_wav
from utils.errors import UserError


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("edits.beds=Gone", "there is no folder"),
        ("dataset=Beds", "needs a name of its own"),
        ("dataset=Unprepared", "holds something else than triplets"),
        ("edits.beds=Unprepared", "not prepared in .*run: sh egs/tta/preprocess/run_preprocess.sh"),
        ("edits.events=Hums", "no event can be told apart from 'hum'"),
        ("preprocess.valid_fraction=0", "no sound of edits.beds .* is left for valid"),
        ("edits.cutoffs=[4000]", "must be below half of preprocess.sample_rate, 4000 Hz"),
        ("edits.train.ad=3", "'ad' must be 'add', 'drop'"),
        ("edits.levels=[3,-3]", "must be .least, most."),
        ("edits.source=abc", "must have a group"),
        ("edits.source=(", "must be a regular expression"),
        ("edits.gap_end=[0.4,0.7]", "must end before gap_end"),
    ],
)
def test_bad_input_is_one_line(root, override, message):
    for name, kind in (("Unprepared", "hum"), ("Hums", "hum")):
        if not (root / name).exists():
            (root / name / "wav").mkdir(parents=True)
            rows = "".join(f"{number}.wav,A {kind},,{kind}\n" for number in range(8))
            (root / name / "captions.csv").write_text("file,caption,split,kind\n" + rows)
            for number in range(8):
                write_wav(root / name / "wav" / f"{number}.wav", noise(0.5, number, RATE), RATE)
            if name == "Hums":
                small.prepare_sources(root, name)
    given = {"dataset": "dataset=Bad"} | {override.partition("=")[0]: override}
    with pytest.raises(UserError, match=message) as error:
        prepare_edits(small.edits_config(root, *given.values()), 1)
    assert "\n" not in str(error.value)
    assert not os.path.exists(root / "Bad" / "train.json")


def test_the_page_shows_triplets_of_all_tasks_with_sounds_and_pictures(root, triplets):
    page = page_of_triplets(small.edits_config(root))
    text = page.read_text()
    named = re.findall(r'src="([^"]+)"', text)
    assert len(named) == 2 * 2 * 20
    assert all((page.parent / name).is_file() for name in named)
    chosen = choose(triplets)
    assert {record["Task"] for record in chosen} == set(small.COUNTS["train"])
    assert all(html.escape(record["Instruction"], quote=False) in text for record in chosen)
    assert len(choose(triplets[:3])) == 3


def test_triplets_are_made_by_their_own_command(root, triplets, monkeypatch):
    """That for captioned sounds would find none of these, and remove their mels."""
    config = small.edits_config(root)
    here = root / config.dataset[0]
    monkeypatch.setattr(sys, "argv", ["train.py"])
    mel = dataclasses.replace(config.preprocess.mel, fmax=1000.0)
    for message in (check_mel_settings, read_dataset):
        with pytest.raises(UserError, match=r"sh egs/tta/audit/run_preprocess\.sh"):
            message(here, mel) if message is check_mel_settings else message(config, here.name)
    assert len(list((here / "mel").glob("*.npy"))) > 2


@pytest.mark.parametrize(
    ("program", "config", "message"),
    [
        ("preprocess_edits", "egs/tta/audioldm/exp_config.json", "model_type AudioLDM must be"),
        ("preprocess", "egs/tta/audit/edits.json", "run: sh egs/tta/audit/run_preprocess.sh"),
        ("train", "egs/tta/audit/edits.json", "model_type Edits is nothing to train"),
    ],
)
def test_a_config_for_another_command_is_refused(monkeypatch, program, config, message):
    monkeypatch.setattr(sys, "argv", [program, "--config", str(ROOT / config)])
    with pytest.raises(UserError, match=message):
        importlib.import_module(f"bins.tta.{program}").main()
