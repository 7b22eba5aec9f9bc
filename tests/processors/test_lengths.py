import json
import re
import shlex

from config.load import load_config
from processors.lengths import padding_notes
from tests.tiny import ROOT

SMALL = ROOT / "egs/tta/audioldm/exp_config_small.json"  # 312 frames, 4.99 s


def notes(folder, median: float, suggested: int) -> list[str]:
    (folder / "Sounds").mkdir(exist_ok=True)
    lengths = {"median_seconds": median, "suggested_segment_frames": suggested}
    (folder / "Sounds/preprocess_report.json").write_text(json.dumps({"lengths": lengths}))
    config = load_config(SMALL, ["dataset=Sounds,Bare", f"preprocess.processed_dir={folder}"])
    return padding_notes(config)


def test_short_clips_are_told_with_the_settings_that_suit_them(tmp_path):
    (note,) = notes(tmp_path, 0.5, 48)
    assert note.startswith("the clips of Sounds, 0.50 s long in the median, are padded with")
    assert "to 4.99 s (preprocess.segment_frames 312)" in note
    settings = shlex.split(re.search(r"train with (.*) \(", note)[1])
    fitting = load_config(SMALL, settings)  # which checks that they go together
    assert fitting.preprocess.segment_frames == 48
    assert fitting.model.latent == [8, 20, 12]


def test_long_clips_and_a_few_short_ones(tmp_path):
    assert notes(tmp_path, 2.6, 320) == notes(tmp_path, 0.9, 312) == []
    (note,) = notes(tmp_path, 0.9, 320)
    assert "prepare the short ones as a data set of their own" in note
