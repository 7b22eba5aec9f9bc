"""The editing command: files like the given ones, lists, receipts, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bins.tta.edit import main
from utils.checkpoint import read_json
from utils.cli import run_main


@pytest.fixture
def edit(edits, monkeypatch, tmp_path):
    """Runs the command in this process; its output folder."""

    def run(*arguments: object) -> Path:
        given = [f"--log_dir={edits}/runs", f"--output_dir={tmp_path}/out", "--device=cpu"]
        given += ["--num_steps=2", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["edit.py", *given])
        run_main(main)
        return tmp_path / "out"

    return run


@pytest.fixture
def refused(edit, capsys):
    """What the command says of input that it refuses."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            edit(*arguments)
        assert caught.value.code == 2
        return capsys.readouterr().err

    return run


def write(path: Path, rate: int, channels: int, seconds: float = 0.4) -> Path:
    random = np.random.default_rng(1)
    samples = random.normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, samples, rate, "PCM_16")
    return path


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (16000, 1)])
def test_outside_the_gap_every_sample_is_as_it_was(edit, tmp_path, rate, channels):
    audio = write(tmp_path / "a.wav", rate, channels)
    out = edit("--audio", audio, "--text", "Fill the gap", "--region", 0.15, 0.25)
    before, after = (soundfile.read(path, dtype="int16")[0] for path in (audio, out / "0000.wav"))
    info = soundfile.info(out / "0000.wav")
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, "PCM_16")
    assert before.shape == after.shape
    fade = 0.03
    start, end = round((0.15 - fade) * rate), round((0.25 + fade) * rate)
    assert np.array_equal(before[:start], after[:start])
    assert np.array_equal(before[end:], after[end:])
    inside = slice(round(0.15 * rate), round(0.25 * rate))
    assert (before[inside] != after[inside]).mean() > 0.9
    receipt = read_json(out / "0000.json")
    assert receipt["inpaint"] is True
    assert receipt["kept"] == pytest.approx(1 - 0.16 / 0.4, abs=1e-3)
    assert receipt["audio"] == str(audio)


def test_an_edit_of_all_of_a_sound_with_its_receipt_and_picture(edits, edit, tmp_path, capsys):
    audio = write(tmp_path / "a.wav", 11025, 2)
    scales = ("--text_guidance=2", "--source_guidance=1.5", "--seed=7", "--sampler=ddim")
    out = edit("--audio", audio, "--text", "Drop the dog", "--num_samples=2", *scales)
    assert sorted(path.name for path in out.iterdir()) == [
        f"{number}.{suffix}" for number in ("0000", "0001") for suffix in ("json", "png", "wav")
    ]
    before, after = (soundfile.read(path)[0] for path in (audio, out / "0001.wav"))
    assert before.shape == after.shape
    receipt = read_json(out / "0001.json")
    wanted = {"text": "Drop the dog", "guidance_scale": 2, "source_guidance": 1.5, "seed": 8}
    wanted |= {"sampler": "ddim", "kept": 0.0, "inpaint": False, "num_steps": 2}
    assert wanted.items() <= receipt.items()
    # Before, after and the difference of 50 frames and 16 bands, with two lines between.
    assert Image.open(out / "0001.png").size == (3 * 50, 3 * (3 * 16 + 2 * 2))
    printed = capsys.readouterr()
    assert printed.out.count('"Drop the dog"') == 2
    assert printed.err.startswith(f"model: {edits}/runs/audit/final\nvocoder: ")


def test_an_edit_is_made_anew_where_that_is_asked_for(edit, tmp_path):
    """Other samples than in the sound's own spectrum, of the same mel."""
    audio = write(tmp_path / "a.wav", 4000, 1)
    asked = ("--audio", audio, "--text", "Drop the dog", "--changed_over=0")
    out = edit(*asked)
    edit(*asked, "--anew")
    assert [read_json(out / f"{n}.json")["anew"] for n in ("0000", "0001")] == [False, True]
    own, made = (soundfile.read(out / f"{n}.wav")[0] for n in ("0000", "0001"))
    assert np.abs(own - made).max() > 0.01


def test_a_task_that_is_told_says_what_may_come_and_go(edit, tmp_path):
    """Whatever words the text has; of a text alone, its words do."""
    audio, text = write(tmp_path / "a.wav", 4000, 1), "Remove the rain"
    out = edit("--audio", audio, "--text", text)
    for task in ("replace", "add", "drop"):
        edit("--audio", audio, "--text", text, "--task", task)
    found = [read_json(out / f"000{number}.json")["only"] for number in range(4)]
    assert found == ["goes", None, "comes", "goes"]


def test_super_resolution_keeps_the_lower_band(edit, tmp_path):
    audio = write(tmp_path / "a.wav", 4000, 1)
    out = edit("--audio", audio, "--text", "Super-resolution", "--cutoff", 1000)
    before, after = (soundfile.read(path)[0] for path in (audio, out / "0000.wav"))
    low, high = (np.fft.rfft(samples) for samples in (before, after))
    below = np.fft.rfftfreq(len(before), 1 / 4000) < 850
    assert np.abs(low - high)[below].max() < 0.02 * np.abs(low).max()
    assert np.abs(low - high)[~below].max() > 0.1 * np.abs(low).max()


def test_a_list_goes_on_where_it_was_left_and_names_what_it_leaves_out(edit, refused, tmp_path):
    write(tmp_path / "a.wav", 4000, 1)
    (tmp_path / "text.wav").write_text("no sound")
    rows = ["audio,text,name,task,begin,end,cutoff", "a.wav,Drop rain,first,,,,"]
    rows += ["text.wav,Drop rain,second,,,,", '"a.wav","Add, loudly, a dog",,add,0.1,0.2,']
    (tmp_path / "edits.csv").write_text("\n".join(rows), "utf-8")
    said = refused("--list", tmp_path / "edits.csv")
    assert f"left out: --audio {tmp_path}/text.wav: " in said
    assert "edits.csv: 1 of 3 edits left out, see above" in said
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("*.wav")) == ["0000.wav", "first.wav"]
    assert read_json(out / "0000.json")["region"] == [[0.1, 0.2]]
    changed = (out / "first.wav").stat().st_mtime_ns
    (tmp_path / "edits.csv").write_text("\n".join(rows[:2]), "utf-8")
    edit("--list", tmp_path / "edits.csv")
    assert (out / "first.wav").stat().st_mtime_ns == changed
    edit("--list", tmp_path / "edits.csv", "--num_samples=2")
    assert sorted(path.name for path in out.glob("first*.wav")) == ["first.wav", "first_1.wav"]
    for name, other in (("weights", "of another editor"), ("num_steps", 7), ("anew", True)):
        receipt = read_json(out / "first.json")
        (out / "first.json").write_text(json.dumps({**receipt, name: other}))
        edit("--list", tmp_path / "edits.csv")
        assert read_json(out / "first.json")[name] == receipt[name], "made anew"
    receipt.pop("anew")  # as before there was another way: what it tells of was made anew
    (out / "first.json").write_text(json.dumps(receipt))
    edit("--list", tmp_path / "edits.csv", "--anew")
    assert "anew" not in read_json(out / "first.json")
    edit("--list", tmp_path / "edits.csv")
    assert read_json(out / "first.json")["anew"] is False


def test_triplets_are_edited_under_their_names(edit, tmp_path):
    (tmp_path / "wav").mkdir()
    for name in ("0_in", "1_in"):
        write(tmp_path / f"wav/{name}.wav", 4000, 1, 0.128)
    record = {"Dataset": "D", "Instruction": "Inpaint", "Output": "0_out"}
    ask = "Extend the bandwidth"  # of a sound that has all of it
    records = [
        {**record, "Uid": "one", "Task": "inpaint", "Input": "0_in", "Region": [0.04, 0.08]},
        {**record, "Uid": "two", "Task": "keep", "Input": "1_in", "Instruction": ask},
        {"Dataset": "D", "Uid": "plain", "Caption": "a dog"},
    ]
    (tmp_path / "test.json").write_text(json.dumps(records))
    out = edit("--list", tmp_path / "test.json")
    assert sorted(path.name for path in out.glob("*.wav")) == ["one.wav", "two.wav"]
    assert read_json(out / "one.json")["region"] == [[0.04, 0.08]]


def test_what_is_refused(refused, tmp_path, edits):
    audio, silent = write(tmp_path / "a.wav", 4000, 1), tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(4000), 4000)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "bad.csv").write_text("file,text\na,b\n")
    (tmp_path / "half.csv").write_text("audio,text,begin\na.wav,Drop rain,0.1\n")
    told = ("--text", "Drop the rain")
    for arguments, said in [
        (["--audio", audio], "there is no text; say what to do"),
        (["--audio", audio, "--text", " "], "there is no text; say what to do"),
        ([*told], "one of the arguments --audio --list is required"),
        (["--audio", tmp_path / "gone.wav", *told], "gone.wav: missing"),
        (["--audio", tmp_path / "text.wav", *told], "text.wav: not decodable"),
        (["--audio", silent, *told], "silent.wav: silent (moves by less than"),
        (["--audio", audio, *told, "--task", "louder"], "task louder: the editor in"),
        (["--audio", audio, *told, "--region", 0.1, 9], "--region 0.1 9 must be two times within"),
        (["--audio", audio, *told, "--cutoff", 900], "--cutoff in Hz and task super_resolution"),
        (["--audio", audio, *told, "--text_guidance", 0], "--text_guidance: 0.0 must be >= 1"),
        (
            ["--audio", audio, *told, "--source_guidance", -1],
            "--source_guidance: -1.0 must be >= 0",
        ),
        (["--audio", audio, *told, "--seed", -1], "--seed: -1 must be >= 0"),
        (["--audio", audio, *told, "--num_steps", 1001], "--num_steps 1001 must be at most 1000"),
        (["--audio", audio, *told, "--checkpoint_path", edits / "runs/ldm"], "holds no AUDIT"),
        (["--audio", audio, *told, "--log_dir", tmp_path], "no trained AUDIT there (where"),
        (["--list", tmp_path / "bad.csv"], "must name the columns audio,text"),
        (["--list", tmp_path / "half.csv"], "line 2: begin and end, in seconds, go together"),
        (["--list", tmp_path / "gone.csv"], "gone.csv: cannot be read as CSV"),
        (["--list", tmp_path / "bad.csv", "--task", "add"], "--task: stands in the list"),
    ]:
        assert said in refused(*arguments), arguments
        assert not (tmp_path / "out").exists()
