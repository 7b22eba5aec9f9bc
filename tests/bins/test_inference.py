"""The inference command: numbered files, receipts that repeat a sound, and what bad input gets."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bins.tta.inference import main
from models.tta.ldm.sampling import SamplingSettings
from tests import tiny
from utils.checkpoint import load_tensors, read_json, save_tensors, write_json
from utils.cli import run_main


@pytest.fixture
def infer(trained, monkeypatch, capsys, tmp_path):
    """Runs the command in this process; what it wrote, by file name without suffix."""

    def run(*arguments: object) -> dict[str, np.ndarray]:
        given = [f"--log_dir={trained}/runs", f"--output_dir={tmp_path}/out", "--device=cpu"]
        given += ["--num_steps=2", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["inference.py", *given])
        run_main(main)
        return {p.stem: soundfile.read(p)[0] for p in sorted((tmp_path / "out").glob("*.wav"))}

    return run


@pytest.fixture
def refused(infer, capsys, tmp_path):
    """What the command says of input that it refuses, having written nothing."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            infer(*arguments)
        assert caught.value.code == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    return run


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """The same sound: batches round differently, by 1e-6."""
    return float(np.corrcoef(one, other)[0, 1]) > 0.9999


def test_a_sentence_becomes_wav_picture_and_receipt(infer, tmp_path):
    sounds = infer("--text", "a dog")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("0000.json", "0000.png", "0000.wav")
    ]
    info = soundfile.info(tmp_path / "out/0000.wav")
    assert (info.samplerate, info.subtype, info.channels) == (4000, "PCM_16", 1)
    assert sounds["0000"].shape == (16 * 32,)
    assert np.abs(sounds["0000"]).max() > 0
    assert (tmp_path / "out/0000.png").read_bytes().startswith(b"\x89PNG")
    receipt = read_json(tmp_path / "out/0000.json")
    assert receipt["text"] == "a dog"
    assert receipt["num_steps"] == 2
    assert receipt.keys() == {
        *("file", "text", "vocoder", "checkpoint", "weights", "device"),
        *(field.name for field in dataclasses.fields(SamplingSettings)),
    }


def test_sounds_are_plain_files(infer, tmp_path):
    infer("--text", "a dog")
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    (tmp_path / "plain").touch()
    assert set(modes.values()) == {(tmp_path / "plain").stat().st_mode & 0o777}


def test_a_receipt_makes_the_same_sound_again_in_another_batch(infer, tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeffa dog\n\n  rain and wind and a bell \n", "utf-8")
    options = ["--guidance_scale=2.5", "--sampler=unipc", "--negative_text=wind", "--duration=0.2"]
    sounds = infer(f"--text_file={tmp_path}/prompts.txt", "--num_samples=2", "--seed=7", *options)
    assert list(sounds) == ["0000", "0001", "0002", "0003"]
    receipts = [read_json(tmp_path / f"out/{name}.json") for name in sounds]
    assert [receipt["seed"] for receipt in receipts] == [7, 8, 9, 10]
    assert [receipt["text"] for receipt in receipts] == ["a dog"] * 2 + [
        "rain and wind and a bell"
    ] * 2
    assert all(len(sound) == 800 for sound in sounds.values())
    assert not alike(sounds["0000"], sounds["0001"])

    wanted = receipts[2]
    names = ("text", "seed", "num_steps", "guidance_scale", "sampler", "negative_text", "duration")
    again = infer(*(f"--{name}={wanted[name]}" for name in names), "--batch_size=1")
    assert list(again) == [*sounds, "0004"]  # nothing is overwritten
    for name, sound in sounds.items():
        assert np.array_equal(again[name], sound)
    assert alike(again["0004"], sounds["0002"])
    assert read_json(tmp_path / "out/0004.json") == {**wanted, "file": "0004.wav"}


def test_batch_size_changes_nothing(infer):
    arguments = ["--text", "a bell", "--num_samples", 3]
    sounds = infer(*arguments, "--batch_size=3")
    sounds = infer(*arguments, "--batch_size=2")
    for one, other in (("0000", "0003"), ("0001", "0004"), ("0002", "0005")):
        assert alike(sounds[one], sounds[other])


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "pndm", "unipc"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_sampler_from_one_step_on(infer, sampler, steps):
    sounds = infer("--text", "rain", "--sampler", sampler, "--num_steps", steps)
    assert np.isfinite(sounds["0000"]).all()


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.128, 0.5])
def test_any_duration(infer, seconds):
    assert len(infer("--text", "rain", "--duration", seconds)["0000"]) == round(4000 * seconds)


@pytest.mark.parametrize(
    "text",
    ["../../../etc/passwd", "/" * 500, "a\nb", "'\"; rm -rf $HOME", "ein Hund 🐕 bellt", "-x"],
)
def test_any_text_is_only_text(infer, tmp_path, text):
    infer(f"--text={text}")
    assert sorted(path.name for path in tmp_path.rglob("*.wav")) == ["0000.wav"]
    assert read_json(tmp_path / "out/0000.json")["text"] == text


def test_a_sound_that_is_hardly_heard_is_announced(infer, trained, capsys, tmp_path):
    model = shutil.copytree(trained / "runs/ldm/final", tmp_path / "quiet")
    vae = load_tensors(model / "vae/vae.safetensors")
    vae["decoder.conv_out.weight"] *= 0
    vae["decoder.conv_out.bias"] *= 0
    vae["decoder.conv_out.bias"] -= 9.0  # of the natural logarithm
    save_tensors(model / "vae/vae.safetensors", vae)
    infer("--text", "a dog", "--checkpoint_path", model)
    assert "0000.wav: -" in capsys.readouterr().err
    assert "dB, hardly to be heard" in read_json(tmp_path / "out/0000.json")["warning"]


def test_prompts_that_the_text_encoder_does_not_know(infer, capsys, tmp_path):
    (tmp_path / "prompts").write_text("雨が降っています\na dog\nein Hund bellt\n", "utf-8")
    infer("--text_file", tmp_path / "prompts", "--num_steps=1")
    said = capsys.readouterr().err
    assert said.count("warning: mostly words that the text encoder does not know") == 1
    assert "(雨が降っています, ein, hund, bellt): '雨が降っています' and 1 more" in said


def test_home_is_the_user_s(trained, infer, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(trained / "runs")
    (tmp_path / "prompts.txt").write_text("rain")
    infer("--text_file=~/prompts.txt", "--checkpoint_path=~/runs/ldm", "--output_dir=~/out")
    assert (tmp_path / "out/0000.wav").is_file()


def test_text_beyond_the_encoder_s_length_is_cut_with_a_warning(infer, capsys):
    infer("--text", "a dog and a cat and rain " * 1000)
    assert "warning: cut to 12 tokens: 'a dog and a cat" in capsys.readouterr().err
    infer("--text", "a dog")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", ""], "there is no text; say what to hear"),
        (["--text", " \n "], "there is no text; say what to hear"),
        ([], "one of the arguments --text --text_file is required"),
        (["--text", "a", "--text_file", "b"], "not allowed with argument"),
        (["--text_file", "gone.txt"], "--text_file gone.txt: cannot be read as text"),
        (["--text", "--rain"], 'where the text begins with a dash, write --text="-..."'),
        (["--text", "a", "--negative_text", "-x"], "where the text begins with a dash"),
        (["--text", "a\udcff"], "must be text in UTF-8"),
        (["--text", "a", "--negative_text", "a\udcff"], "must be text in UTF-8"),
        (["--text", "a", "--num_steps", "0"], "--num_steps: 0 must be >= 1"),
        (["--text", "a", "--num_steps", "-3"], "--num_steps: -3 must be >= 1"),
        (["--text", "a", "--num_steps", "1001"], "--num_steps 1001 must be at most 1000"),
        (
            ["--text", "a", "--sampler=pndm", "--num_steps=350"],
            "--num_steps 350 must be at most 100",
        ),
        (["--text", "a", "--num_steps", "x"], "argument --num_steps: invalid int value: 'x'"),
        (["--text", "a", "--duration", "0"], "--duration: 0.0 must be > 0"),
        (["--text", "a", "--duration", "-1"], "--duration: -1.0 must be > 0"),
        (["--text", "a", "--duration", "nan"], "--duration: must be a finite number, not nan"),
        (["--text", "a", "--duration", "1e9"], "must be <= 600"),
        (["--text", "a", "--guidance_scale", "0"], "--guidance_scale: 0.0 must be >= 1"),
        (["--text", "a", "--guidance_scale", "-2"], "--guidance_scale: -2.0 must be >= 1"),
        (
            ["--text", "a", "--guidance_scale", "inf"],
            "--guidance_scale: must be a finite number, not inf",
        ),
        (["--text", "a", "--num_samples", "0"], "--num_samples: 0 must be at least 1"),
        (["--text", "a", "--batch_size", "0"], "--batch_size: 0 must be at least 1"),
        (["--text", "a", "--seed", "-1"], "--seed: -1 must be >= 0"),
        (["--text", "a", "--seed", str(2**62)], "must be < 4.6"),
        (["--text", "a", "--sampler", "heun"], "--sampler: 'heun' must be 'ddim', 'dpm++'"),
        (["--text", "a", "--device", "toaster"], "--device toaster: not usable here"),
        (["--text", "a", "--vocoder", "gone"], "vocoder 'gone' is neither 'griffin_lim' nor"),
        (["--text", "a", "--checkpoint_path", "gone"], "gone: no such folder; to train one, run"),
        (["--text", "a", "--log_dir", "gone"], "gone: no trained AudioLDM there"),
        (["--text", "a", "--unknown", "3"], "unrecognized arguments: --unknown"),
        (["--text", "a", "--num_step", "3"], "unrecognized arguments: --num_step"),
        (["--text", "a", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_what_is_refused(refused, arguments, said):
    assert said in refused(*arguments)


def test_a_text_file_without_text(refused, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n  \n")
    assert "there is no text" in refused("--text_file", path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refused("--text_file", path)
    assert "cannot be read as text" in refused("--text_file", tmp_path)


def test_weights_that_are_no_model_of_ours(trained, refused, tmp_path):
    def said(path: Path) -> str:
        return refused("--text", "a", "--checkpoint_path", path)

    assert "holds no AudioLDM (unet.safetensors in it" in said(trained / "runs/vae")
    (tmp_path / "model.pt").write_bytes(pickle.dumps({}))
    assert "must be a folder (a run, or a checkpoint in it), not a file" in said(
        tmp_path / "model.pt"
    )
    ours = shutil.copytree(trained / "runs/ldm/final", tmp_path / "ours")
    settings = read_json(ours / "pipeline.json")
    other = {**settings, "mel": {**settings["mel"], "n_fft": 128}}
    write_json(ours / "pipeline.json", other)
    assert "made for another mel than the config's: n_fft 64 and 128" in said(ours)
    write_json(ours / "pipeline.json", {**settings, "version": 2})
    assert "version 2 is of newer code" in said(ours)
    write_json(ours / "pipeline.json", settings)
    unet = ours / "unet.safetensors"
    whole = unet.read_bytes()
    unet.write_bytes(whole[:-10])
    assert "unet.safetensors: not a whole safetensors file" in said(ours)
    unet.write_bytes(whole)
    (ours / "text_encoder" / "tokenizer.json").unlink()
    assert f"text encoder '{ours}/text_encoder' cannot be loaded" in said(ours)


def test_a_run_in_progress_is_used_by_its_newest_checkpoint(trained, infer, tmp_path):
    run = shutil.copytree(trained / "runs/ldm", tmp_path / "run")
    shutil.rmtree(run / "final")
    infer("--text", "rain", "--checkpoint_path", run)
    receipt = read_json(tmp_path / "out/0000.json")
    assert receipt["checkpoint"] == str(run / "checkpoints/step-00000006")


def test_the_newest_run_is_taken_and_its_final_weights(trained, infer, tmp_path, capsys):
    infer("--text", "rain")
    receipt = read_json(tmp_path / "out/0000.json")
    assert receipt["checkpoint"] == str(trained / "runs/ldm/final")
    printed = capsys.readouterr()
    assert printed.out == f'{tmp_path}/out/0000.wav  "rain"\n'
    assert printed.err.startswith(f"model: {trained}/runs/ldm/final\nvocoder: griffin_lim\n")
    assert "generating: 1 of 1" in printed.err  # in lines of its own, as there is no terminal
    assert "\r" not in printed.err


def test_the_shell_script_from_another_folder(trained, tmp_path, warm_environment):
    script = tiny.ROOT / "egs/tta/audioldm/run_inference.sh"
    command = ["sh", script, "--text", "it's raining", "--num_steps", "1"]
    command += ["--log_dir", trained / "runs", "--output_dir", tmp_path / "my out"]
    done = subprocess.run(
        command,
        cwd="/",
        env=tiny.environment(VIRTUAL_ENV=str(warm_environment)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my out/0000.wav").is_file()
    assert json.loads((tmp_path / "my out/0000.json").read_text())["text"] == "it's raining"
