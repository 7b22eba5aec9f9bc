"""Sounds that the studio takes and changes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from config.schema import MelConfig
from models.tta.ldm.sampling import SamplingSettings, Sound
from models.tta.studio import studio as studio_module
from models.tta.studio.history import changed_outside
from tests.models.tta.studio.conftest import results
from utils.audio import write_wav
from utils.errors import UserError


def wav(path: Path, seconds: float) -> Path:
    write_wav(path, np.random.default_rng(0).normal(0, 0.1, round(seconds * 4000)), 4000)
    return path


def test_what_is_taken_lies_in_the_persons_folder_under_no_name_of_its_own(studio, tmp_path):
    name = studio.take("me", wav(tmp_path / "<b>..wav", 0.5))
    assert name == studio.take("me", wav(tmp_path / "other.wav", 0.5))
    assert studio.source("me", name).read_bytes() == (tmp_path / "other.wav").read_bytes()
    with pytest.raises(UserError, match="there is no such sound"):
        studio.source("you", name)
    with pytest.raises(UserError, match="there is no such sound"):
        studio.source("me", f"../sources/{name}")


def test_what_was_taken_goes_when_nobody_holds_it_and_no_receipt_names_it(studio, runs, tmp_path):
    sources = studio.history.of("me") / "sources"
    one, other = wav(tmp_path / "a.wav", 0.3), wav(tmp_path / "b.wav", 0.5)
    used, unused = (studio.take("me", path, "page") for path in (one, other))
    studio.draw("me", unused, studio.shelf.settings(f"{runs}/one").mel)
    assert studio.take("me", other, "another page") == unused
    how = {"strength": 0.5, "num_steps": 2}
    results([studio.edit("me", "s", used, "a dog", f"{runs}/one", None, **how)])
    studio.let_go("page")
    assert {path.suffix for path in sources.glob(f"{unused[:-4]}.*")} == {".wav", ".png"}
    studio.let_go("another page")
    assert [path.name for path in sources.iterdir()] == [used]
    studio.let_go("nobody")


@pytest.mark.parametrize(
    "how",
    [
        {"region": ((0.2, 0.4),)},
        {"strength": 0.5},
        {"extend": 0.25},
        {"task": "super_resolution", "cutoff": 1000.0},
    ],
    ids=lambda how: next(iter(how)),
)
def test_a_change_is_kept_with_what_it_was_and_can_be_made_again(studio, runs, tmp_path, how):
    name = studio.take("me", wav(tmp_path / "a.wav", 0.5))
    job = studio.edit("me", "s", name, "a dog", f"{runs}/one", None, num_steps=2, **how)
    [kept] = results([job])
    before, rate = soundfile.read(studio.source("me", name))
    after, _ = soundfile.read(studio.history.file("me", f"{kept.number}.wav"))
    assert len(after) == round(kept.receipt["duration"] * rate)
    if "region" in how:  # what lies outside, further than the cross-fade, is as it was
        for part in (slice(0, round(0.15 * rate)), slice(round(0.45 * rate), len(before))):
            np.testing.assert_array_equal(before[part], after[part])
        assert not np.array_equal(before, after)
        assert 0.4 < kept.receipt["kept"] < 0.6
        assert kept.receipt["changed_outside"] == 0
    for part in ("before.png", "difference.png", "png"):
        assert studio.history.file("me", f"{kept.number}.{part}").is_file()
    assert results([studio.replay("me", "s", kept)]) == [studio_module.SAME]


def test_the_change_is_that_of_what_was_to_be_kept():
    mel = MelConfig(4000, 256, 256, 64, 20, 0.0, 2000.0)  # 64 ms a frame, each 16 ms
    before = np.zeros((20, 63), np.float32)
    given = {"sampler": "dpm++", "num_steps": 2, "guidance_scale": 1.0, "duration": 1.0}

    def change(after: np.ndarray, **how) -> float | None:
        sound = Sound("", 0, after, np.zeros(1), before)
        return changed_outside(sound, SamplingSettings(**given, audio="x", **how), mel)

    inside, outside = before.copy(), before.copy()
    inside[:, 27:36] = 3  # seconds 0.43 to 0.58
    outside[:, :4] = 3
    region = {"region": ((0.45, 0.55),)}
    assert change(inside, **region) == 0
    assert change(outside, **region) > 0
    assert change(before + 1, **region) == pytest.approx(20 * math.log10(math.e))
    high, low = before.copy(), before.copy()
    high[15:], low[:4] = 3, 3  # above 1.3 kHz; below 0.4 kHz
    treble = {"task": "super_resolution", "cutoff": 1000.0}
    assert change(high, **treble) == 0
    assert change(low, **treble) > 0
    assert change(before + 1, strength=0.5) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: wav(path, 1.5), "this file: too long (at most 1 s)"),
        (lambda path: wav(path, 3600), "this file: too long (at most 1 s)"),
        (lambda path: path.write_text("not a sound"), "this file: not decodable"),
        (lambda path: path.write_bytes(b""), "this file: empty file"),
        (lambda path: path.mkdir(), "this file: not a file"),
        (lambda path: None, "this file: missing"),
    ],
)
def test_what_cannot_be_taken(studio, tmp_path, make, message):
    make(tmp_path / "x.wav")
    with pytest.raises(UserError) as caught:
        studio.take("", tmp_path / "x.wav")
    assert str(caught.value).startswith(message)
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "studio").exists()


def test_a_sound_that_cannot_be_used_is_told_without_its_path(studio, runs, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.full(4000, np.nan, np.float32), 4000, "FLOAT")
    name = studio.take("", tmp_path / "x.wav")
    mel = studio.shelf.settings(f"{runs}/one").mel
    for ask in (
        lambda: studio.draw("", name, mel),
        lambda: studio.edit("", "s", name, "a", f"{runs}/one", None, strength=0.5),
    ):
        with pytest.raises(UserError, match=r"^this sound: NaN or infinite samples"):
            ask()
