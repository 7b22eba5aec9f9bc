"""A run's folder: whose it is, what may change when it goes on, where weights are found."""

import contextlib
import copy
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import ROOT
from utils.checkpoint import write_json
from utils.commands import SCRIPTS, command
from utils.errors import UserError
from utils.files import hold
from utils.run_folder import check_same_model, find_weights, weights_folder

FORKS = multiprocessing.get_context("fork")


def other_training(folder: Path, until: float) -> None:
    """Another training in `folder`, with a process of its own that loads batches."""
    lock = hold(folder, "training")
    child = FORKS.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    (folder / "held").write_text(str(child.pid))
    time.sleep(until)
    assert lock.is_locked


@pytest.fixture
def other(tmp_path):
    """Starts another training that holds the folder for some seconds."""
    started = []

    def start(until: float):
        started.append(FORKS.Process(target=other_training, args=(tmp_path, until)))
        started[0].start()
        while not ((tmp_path / "held").exists() and (tmp_path / "held").read_text()):
            time.sleep(0.01)
        return started[0]

    yield start
    started[0].kill()
    with contextlib.suppress(ProcessLookupError):  # it ends with its parent, unless that is killed
        os.kill(int((tmp_path / "held").read_text()), signal.SIGKILL)


def test_a_second_training_is_refused_after_a_while_and_told_since_when(tmp_path, other, capfd):
    began = time.strftime("%Y-%m-%d %H:%M")
    other(60)
    with pytest.raises(UserError) as caught:
        hold(tmp_path, "training", patience=0.2)
    busy = f"{tmp_path}: another training is at work there since {began[:13]}"
    assert str(caught.value).startswith(busy)
    assert "stop it, or choose another --exp_name" in str(caught.value)
    said = capfd.readouterr().err
    assert said.startswith(busy)
    assert said.endswith("waiting 0.2 s for it to stop\n")


def test_a_second_training_takes_over_from_one_that_stops(tmp_path, other, capfd):
    other(0.3)
    assert hold(tmp_path, patience=30).is_locked
    assert "waiting 30 s for it to stop" in capfd.readouterr().err


def test_a_killed_training_holds_nothing_though_its_children_live(tmp_path, other):
    other(60).kill()
    assert hold(tmp_path, patience=5).is_locked


BEFORE = {
    "model_type": "AudioLDM",
    "preprocess": {"n_mel": 80, "processed_dir": "data", "train_file": "train.json"},
    "model": {"audioldm": {"num_heads": 8}, "autoencoder_path": None, "snr_gamma": None},
    "train": {"adam": {"lr": 2e-5}, "batch_size": 12, "init_from": None},
    "dataset_path": {},
    "made_with": {"commit": "0123"},
}
SHAPES = ("model_type", "preprocess.n_mel", "model.audioldm", "model.latent")


@pytest.fixture
def going_on(tmp_path):
    """What check_same_model says of a run of BEFORE that goes on as `change` makes it."""
    (tmp_path / "config.json").write_text(json.dumps(BEFORE))

    def said(change) -> list[str]:
        now = copy.deepcopy(BEFORE)
        del now["preprocess"]["train_file"], now["made_with"]  # a version without that key
        now["model"]["latent"] = [4, 10, 78]  # and with this one, which the run did not know yet
        change(now)
        return check_same_model(tmp_path, now, SHAPES)

    return said


def test_what_changed_since_a_run_began_is_told(going_on):
    def change(now: dict) -> None:
        now["train"]["adam"]["lr"] = 1e-4
        now["train"]["batch_size"] = 6
        now["model"]["snr_gamma"] = 5.0
        now["dataset_path"]["A"] = "/a"
        now["model"]["autoencoder_path"] = "vae"

    of_versions = {
        "model.latent: None -> [4, 10, 78]",
        "preprocess.train_file: train.json -> None",
    }
    assert set(going_on(lambda now: None)) == of_versions
    assert set(going_on(change)) - of_versions == {
        "train.adam.lr: 2e-05 -> 0.0001",
        "train.batch_size: 12 -> 6",
        "model.snr_gamma: None -> 5.0",
        "dataset_path.A: None -> /a",
        "model.autoencoder_path: None -> vae (without effect: a run goes on with its own weights)",
    }


@pytest.mark.parametrize(
    ("place", "key", "value", "said"),
    [
        ((), "model_type", "AutoencoderKL", "model_type: AudioLDM -> AutoencoderKL"),
        (("preprocess",), "n_mel", 64, "preprocess.n_mel: 80 -> 64"),
        (("model", "audioldm"), "num_heads", 4, "model.audioldm.num_heads: 8 -> 4"),
    ],
)
def test_what_the_weights_are_made_for_cannot_change(going_on, place, key, value, said):
    def change(now: dict) -> None:
        for name in place:
            now = now[name]
        now[key] = value

    with pytest.raises(UserError, match="go on as it was, or choose another") as caught:
        going_on(change)
    assert f"has changed ({said});" in str(caught.value)


SMALL = "egs/tta/audioldm/exp_config_small.json"


@pytest.mark.parametrize(
    ("typed", "makes", "advised"),
    [
        ("", "AutoencoderKL", "egs/tta/autoencoderkl/run_train.sh"),
        (
            f"--config egs/tta/audioldm/exp_config.json --config {SMALL} dataset=A"
            " train.max_steps=3 preprocess.processed_dir=/s --dry_run model.snr_gamma=5"
            " dataset_path.A='/my sounds'",
            "AutoencoderKL",
            "egs/tta/autoencoderkl/run_train.sh --config"
            " egs/tta/autoencoderkl/exp_config_small.json dataset=A preprocess.processed_dir=/s"
            " 'dataset_path.A=/my sounds'",
        ),
        (
            "--config=egs/tta/quickstart/audit.json log_dir=runs",
            "AudioLDM",
            "egs/tta/audioldm/run_train.sh --config egs/tta/quickstart/audioldm.json log_dir=runs",
        ),
        (
            "--config egs/tta/audit/exp_config_small.json dataset=AEdits,A",
            "Edits",
            "egs/tta/audit/run_preprocess.sh --config egs/tta/audit/edits_small.json",
        ),
        (
            "--config egs/tta/audioldm/exp_config_lora.json",
            "AudioLDM",
            "egs/tta/audioldm/run_train.sh --config egs/tta/audioldm/exp_config_small.json",
        ),
        ("--config my.json", "Vocoder", "egs/tta/vocoder/run_train.sh --config FILE"),
        (
            "--config my.json preprocess.keep_wavs=false",
            "mels",
            "egs/tta/preprocess/run_preprocess.sh --config my.json preprocess.keep_wavs=true",
        ),
        ("--text a --log_dir=/r", "AudioLDM", "egs/tta/audioldm/run_train.sh log_dir=/r"),
    ],
)
def test_advice_is_the_command_that_the_user_would_run(
    tmp_path, monkeypatch, typed, makes, advised
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py", *shlex.split(typed)])
    if makes in ("mels", "Edits"):
        more = ["preprocess.keep_wavs=true"] if "keep_wavs" in advised else []
        assert command(makes, *more) == f"sh {advised}"
        return
    with pytest.raises(UserError, match=f"no trained {makes} there") as caught:
        find_weights(None, str(tmp_path), makes)
    assert str(caught.value).endswith(f"; to train one, run: sh {advised}")


def test_advice_is_not_the_config_at_work_however_it_was_named(tmp_path, monkeypatch):
    decoder = ROOT / "egs/tta/autoencoderkl/exp_config_small_decoder.json"
    monkeypatch.chdir(ROOT)
    for here, named in ((decoder.parent, decoder.name), (tmp_path, str(decoder))):
        monkeypatch.setenv("ARION_CALLER_DIR", str(here))
        monkeypatch.setattr(sys, "argv", ["train.py", "--config", named])
        advised = "--config egs/tta/autoencoderkl/exp_config_small.json"
        assert command("AutoencoderKL").endswith(advised)


def test_commands_that_are_advised_are_there():
    assert all((ROOT / script).is_file() for script in SCRIPTS.values())


def test_weights_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "vae.safetensors").touch()
    (run / "config.json").write_text('{"model_type": "AutoencoderKL"}')
    assert find_weights("~/runs/mine", "", "AutoencoderKL") == run
    assert find_weights(None, "~/runs", "AutoencoderKL") == run


def test_of_a_run_that_went_on_since_its_end_the_newest_checkpoint_is_taken(tmp_path):
    def made(folder: str) -> Path:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "unet.safetensors").touch()
        return tmp_path / folder

    assert weights_folder(tmp_path, "AudioLDM") is None
    at_4 = made("checkpoints/step-00000004")
    assert weights_folder(tmp_path, "AudioLDM") == at_4
    final = made("final")
    write_json(final / "config.json", {"made_with": {"step": 4}})
    assert weights_folder(tmp_path, "AudioLDM") == final
    at_6 = made("checkpoints/step-00000006")
    assert weights_folder(tmp_path, "AudioLDM") == at_6
    write_json(final / "config.json", {"made_with": {"step": 6}})
    assert weights_folder(tmp_path, "AudioLDM") == final
