"""The rules by which the quickstart's edits are judged, on mels of which the answer is known."""

import json
import math

import numpy as np
import pytest

from config.load import load_config
from models.tta.evaluation.demo_edits import (
    Verdict,
    figures_of,
    kinds_of,
    table_of,
    train_judge,
    verdict_on,
)
from processors.mel import mel_filter_bank

CONFIG = load_config("egs/tta/quickstart/edits.json", [])
MEL = CONFIG.preprocess.mel
FRAMES = 40
MIX = {"BedKind": "rain", "EventKind": "bell"}
REPLACE = {**MIX, "Task": "replace", "EventKind2": "bird"}
INPAINT = {**MIX, "Task": "inpaint", "Region": [0.16, 0.48]}  # frames 10 to 30
SUPER_RESOLUTION = {**MIX, "Task": "super_resolution", "Cutoff": 4000.0}


@pytest.mark.parametrize(
    ("record", "before", "after"),
    [
        ({**MIX, "Task": "add"}, {"rain"}, {"rain", "bell"}),
        ({**MIX, "Task": "drop"}, {"rain", "bell"}, {"rain"}),
        (REPLACE, {"rain", "bell"}, {"rain", "bird"}),
        (INPAINT, {"rain", "bell"}, {"rain", "bell"}),
        ({"Task": "inpaint", "BedKind": "rain"}, {"rain"}, {"rain"}),
        ({**MIX, "Task": "keep"}, {"rain", "bell"}, {"rain", "bell"}),
    ],
)
def test_what_is_heard_before_and_after_an_edit(record, before, after):
    assert kinds_of(record) == (before, after)


SOUND = np.random.default_rng(0).normal(-3, 0.5, (MEL.n_mel, FRAMES)).astype(np.float32)


@pytest.mark.parametrize(
    ("record", "heard", "followed", "kept"),
    [
        ({**MIX, "Task": "add"}, {"rain", "bell"}, True, True),
        ({**MIX, "Task": "add"}, {"rain"}, False, True),
        ({**MIX, "Task": "add"}, {"bell"}, True, False),
        ({**MIX, "Task": "add"}, {"rain", "bell", "bird"}, True, False),
        ({**MIX, "Task": "drop"}, {"rain"}, True, True),
        ({**MIX, "Task": "drop"}, {"rain", "bell"}, False, True),
        ({**MIX, "Task": "drop"}, set(), True, False),
        (REPLACE, {"rain", "bird"}, True, True),
        (REPLACE, {"rain", "bell", "bird"}, False, True),  # one came, but the other is still there
        (REPLACE, {"rain"}, False, True),
        (REPLACE, {"rain", "bell"}, False, True),
    ],
)
def test_followed_and_kept(record, heard, followed, kept):
    verdict = verdict_on(record, heard, [SOUND, SOUND, SOUND], MEL)
    assert (verdict.followed, verdict.kept) == (followed, kept)
    assert verdict.both == (followed and kept)


def test_errors_are_in_db_of_what_is_heard():
    source, target = np.full((2, MEL.n_mel, FRAMES), SILENCE, np.float32)
    source[:, 0] = target[:, 0] = PEAK
    target[:, 20:] = PEAK - 2
    edited = target + math.log(2)  # twice the amplitude: 6.02 dB
    edited[:, 1:20] = PEAK - 7.5  # which nobody hears beside the peak
    edited[:, 10] = PEAK - 6  # a neper of it is heard
    verdict = verdict_on({**MIX, "Task": "add"}, set(), [edited, source, target], MEL)
    twice, neper = 20 * math.log10(2), 20 / math.log(10)
    assert verdict.error == pytest.approx((21 * twice + neper) / FRAMES, rel=1e-4)
    assert verdict.outside == pytest.approx((twice + neper) / 20, rel=1e-4)
    everywhere = verdict_on({**MIX, "Task": "add"}, set(), [edited, source, source + 1], MEL)
    assert everywhere.outside is None


PEAK, SILENCE = 1.0, math.log(1e-5)


def mels_of(record, fill):
    """Mels of an edit, the input and the target: what is missing is silent in the input, 3.5 nepers
    below the peak (half of what is heard) in the target, and `fill` of that in the edit."""
    middles = mel_filter_bank(MEL).argmax(axis=1) * MEL.sample_rate / MEL.n_fft
    missing = np.zeros((MEL.n_mel, FRAMES), bool)
    if record["Task"] == "inpaint":
        missing[:, 10:30] = True
    else:
        missing[middles > 4000] = True
    return [
        np.where(missing, level, PEAK).astype(np.float32)
        for level in (PEAK - 7 + 3.5 * fill, SILENCE, PEAK - 3.5)
    ]


def filled(record, mels):
    return verdict_on(record, {"rain", "bell"}, mels, MEL).followed


@pytest.mark.parametrize("record", [INPAINT, SUPER_RESOLUTION], ids=lambda record: record["Task"])
def test_what_is_missing_is_back_at_half_of_the_error(record):
    shares = {fill: filled(record, mels_of(record, fill)) for fill in (0, 0.45, 0.55, 1, 2)}
    assert shares == {0: False, 0.45: False, 0.55: True, 1: True, 2: False}


@pytest.mark.parametrize("record", [INPAINT, SUPER_RESOLUTION], ids=lambda record: record["Task"])
def test_faults_elsewhere_do_not_count_nor_does_what_nobody_hears(record):
    edited, source, target = mels_of(record, 1)
    edited[target == PEAK] = SILENCE
    assert filled(record, [edited, source, target])
    hardly = np.where(source == np.float32(SILENCE), PEAK - 6.7, target)  # 2.6 dB are heard of it
    assert filled(record, [source, source, hardly])
    assert not filled(record, [source, source, hardly + 0.1 * (hardly < PEAK)])  # 3.5 dB


def test_a_table_of_each_row_and_task():
    def verdict(followed, kept, outside):
        return Verdict(frozenset(), followed, kept, 1.5, outside)

    records = [{"Task": "add"}, {"Task": "super_resolution"}, {"Task": "add"}]
    verdicts = [verdict(True, True, 0.5), verdict(True, False, None), verdict(False, True, 1.5)]
    assert table_of(records, {"edited": verdicts}) == [
        [
            "",
            "followed",
            "kept",
            "both",
            "dB off",
            "dB off outside",
            "add (2)",
            "super resolution (1)",
        ],
        ["edited", "2", "2", "1", "1.50", "1.00", "1", "0"],
    ]
    assert math.isnan(figures_of(verdicts[1:2])["dB off outside"])


def test_the_judge_learns_from_whole_sounds_of_the_training_set(tmp_path, monkeypatch):
    """Of an input with a gap, or without its upper band, it learns nothing."""
    folder = tmp_path / "DemoEdits"
    (folder / "mel").mkdir(parents=True)
    records = []
    for number, task in enumerate(("add", "drop", "replace", "inpaint", "super_resolution")):
        record = {**REPLACE, "Dataset": "DemoEdits", "Uid": task, "Caption": "x", "Task": task}
        if task != "replace":
            del record["EventKind2"]
        records.append({**record, "Input": f"{task}_in", "Output": f"{task}_out"})
        for place, end in enumerate(("in", "out")):
            np.save(folder / "mel" / f"{task}_{end}.npy", np.full((80, 2), 2 * number + place))
    (folder / "train.json").write_text(json.dumps(records))
    config = load_config("egs/tta/quickstart/edits.json", [f"preprocess.processed_dir={tmp_path}"])
    learnt = {}
    monkeypatch.setattr(
        "models.tta.evaluation.demo_edits.train_tagger",
        lambda mels, kinds: learnt.update(
            {int(mel[0, 0]): of for mel, of in zip(mels, kinds, strict=True)}
        ),
    )
    train_judge(config)
    both = {"rain", "bell"}
    assert learnt == {
        **{0: {"rain"}, 1: both, 2: both, 3: {"rain"}, 4: both, 5: {"rain", "bird"}},
        **{7: both, 9: both},
    }
