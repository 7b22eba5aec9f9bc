"""What training says of bad input, row by row: an error before any work, or a run that goes on."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bins.tta.train import main
from tests import warm
from utils.checkpoint import read_json, write_json
from utils.cli import run_main


@pytest.fixture
def refused(trained, monkeypatch, capsys):
    """Runs a command in this process that must end with status 2; what it says of the error."""

    def run(stage: int, *arguments: str) -> str:
        config = ["--config", f"{trained}/stage{stage}.json"]
        monkeypatch.setattr(sys, "argv", ["train.py", *config, *map(str, arguments)])
        runs = sorted((trained / "runs").iterdir())
        with pytest.raises(SystemExit) as caught:
            run_main(main)
        assert caught.value.code == 2
        assert sorted((trained / "runs").iterdir()) == runs  # no work was begun
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--unknown_flag", "3"], "unrecognized arguments: --unknown_flag"),
        (["--exp", "x"], "unrecognized arguments: --exp"),
        (["train.max_stepz=3"], "no such key; nearest: train.max_steps"),
        (["train.max_steps=0"], "train.max_steps: 0 must be >= 1"),
        (["train.max_steps=-5"], "train.max_steps: -5 must be >= 1"),
        (["train.batch_size=0"], "train.batch_size: 0 must be >= 1"),
        (["train.adam.lr=-1"], "train.adam.lr: -1 must be > 0"),
        (["train.random_seed=-1"], "train.random_seed: -1 must be >= 0"),
        (["--exp_name", "../x"], "--exp_name '../x' must be a plain folder name"),
        (["--exp_name", ""], "--exp_name '' must be a plain folder name"),
        (["--exp_name", "x" * 300], "File name too long"),
        (["dataset=Nowhere"], "Nowhere/mel/mel_config.json: missing, the mels are not ready"),
        (["dataset=../Tiny"], "dataset '../Tiny' must be a plain folder name"),
        (["preprocess.hop_size=16"], "other settings than the config's: hop_size 32 and 16"),
        (["train.init_from=gone"], "gone: no such folder"),
        (["--config", "gone.json"], "gone.json: no such config file"),
    ],
)
def test_settings_that_cannot_be(refused, arguments, said):
    assert said in refused(1, "--exp_name", "new", *arguments)


RECORD = {"Dataset": "Tiny", "Uid": "clip 1", "Caption": "a dog"}


@pytest.fixture
def train_file(trained):
    """The train.json of a data set that others use, too; it is put back as it was."""
    path = trained / "data/Tiny/train.json"
    text = path.read_text()
    yield path
    path.write_text(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ("[{", "not valid JSON"),
        ("{}", "must hold a list, not dict"),
        ("[]", "no clip of Tiny has a mel"),
        ("[3]", "record 1: must be an object"),
        (json.dumps([RECORD, {"Dataset": "Tiny", "Uid": "x"}]), "record 2: Caption is missing"),
        (json.dumps([{**RECORD, "Uid": 5}]), "record 1: Uid must be text, not 5"),
        (json.dumps([{**RECORD, "Uid": "../../x"}]), "Uid '../../x' must not hold"),
        (json.dumps([{**RECORD, "Uid": "/etc/x"}]), "Uid '/etc/x' must be a relative path"),
        (json.dumps([{**RECORD, "Uid": "a\0"}]), "must not hold a NUL character"),
        (json.dumps([{**RECORD, "Dataset": "Other"}]), "Dataset 'Other' must be 'Tiny'"),
        (json.dumps([{**RECORD, "Caption": " "}]), "Caption must not be empty"),
        (json.dumps([{**RECORD, "Caption": "x" * 10_001}]), "Caption has 10001 characters"),
        (json.dumps([{**RECORD, "Caption": ["a"]}]), "Caption must be text, not ['a']"),
        (json.dumps([{**RECORD, "Uid": "gone"}]), "no clip of Tiny has a mel"),
    ],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_metadata_that_is_not_right(train_file, refused, stage, content, said):
    train_file.write_text(content)
    assert said in refused(stage, "--exp_name", "new")


def test_metadata_that_is_not_there(train_file, refused):
    train_file.unlink()
    said = refused(1, "--exp_name", "new")
    assert "train.json: no such file; to make it, run: sh egs" in said


def test_metadata_after_a_byte_order_mark_is_fine(trained, train_file, tmp_path):
    train_file.write_text("\ufeff" + train_file.read_text(), encoding="utf-8")
    arguments = ["--config", trained / "stage1.json", "--dry_run"]
    assert warm.run(tmp_path / "log", *arguments) == 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "not a whole mel file"),
        (lambda path: path.write_bytes(b""), "not a whole mel file"),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), "not a whole mel file"),
        (lambda path: np.save(path, np.zeros(3)), "holds float64[3], not a mel"),
        (lambda path: np.save(path, np.array([{}])), "not a whole mel file"),
    ],
    ids=["truncated", "empty", "pickle", "shape", "objects"],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_a_mel_that_is_damaged(trained, tmp_path, stage, spoil, said):
    path, log = trained / "data/Tiny/mel/clip 0.npy", tmp_path / "log"
    kept = path.read_bytes()
    spoil(path)
    try:
        arguments = ["--config", trained / f"stage{stage}.json", "--exp_name", f"spoilt{stage}"]
        assert warm.run(log, *arguments) == 2
    finally:
        path.write_bytes(kept)
        shutil.rmtree(trained / "runs" / f"spoilt{stage}", ignore_errors=True)
    assert re.search(
        rf"error: .*clip 0\.npy: {re.escape(said)}.*run_preprocess\.sh", log.read_text()
    )


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_that_are_no_vae_of_ours(trained, refused, tmp_path):
    def said(path: Path) -> str:
        return refused(2, "--exp_name", "new", f"model.autoencoder_path={path}")

    assert "no such folder; to train one, run: sh egs/tta/autoencoderkl" in said(tmp_path / "gone")
    assert "holds no AutoencoderKL" in said(tmp_path)
    assert "holds no AutoencoderKL" in said(trained / "runs/ldm")  # of the other stage
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "code ran")))
    assert "must be a folder (a run, or a checkpoint in it), not a file" in said(
        tmp_path / "model.ckpt"
    )
    vae = shutil.copytree(trained / "runs/vae/final", tmp_path / "vae")
    file, settings = vae / "pipeline.json", read_json(vae / "pipeline.json")

    write_json(file, {**settings, "mel": {**settings["mel"], "fmax": 1e3}})
    assert "made for another mel than the config's: fmax 1000.0 and 2000.0" in said(vae)
    shape = {**settings["autoencoderkl"], "ch_mult": [1, 1, 1]}
    write_json(file, {**settings, "autoencoderkl": shape})
    assert "weights of another model than its config says" in said(vae)
    write_json(file, {"_class_name": "AutoencoderKL"})
    assert "must hold version 1 of the settings of an AutoencoderKL" in said(vae)
    file.write_text("{")
    assert "not valid JSON" in said(vae)
    file.unlink()
    (vae / "config.json").write_text("{}")
    assert "not the config of an AutoencoderKL's training" in said(vae)
    (vae / "config.json").unlink()
    assert "config.json: no such file" in said(vae)

    write_json(file, settings)
    (vae / "vae.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "code ran")))
    assert "vae.safetensors: not a whole safetensors file" in said(vae)
    assert not (tmp_path / "code ran").exists()


def test_a_vae_of_other_channels(trained, refused):
    unet = ["model.audioldm.in_channels=4", "model.audioldm.out_channels=4"]
    unet += ["model.latent=[4, 8, 8]"]
    said = refused(2, "--exp_name", "new", *unet, f"model.autoencoder_path={trained}/runs/vae")
    assert "gives latents [2, 8, 8], and this model is for [4, 8, 8]: take a VAE that fits" in said


def test_a_text_encoder_that_would_run_code(trained, refused, tmp_path):
    t5 = shutil.copytree(trained / "runs/ldm/final/text_encoder", tmp_path / "t5")
    (t5 / "model.safetensors").unlink()
    (t5 / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "code ran")))
    path = [f"model.text_encoder.pretrained={t5}", f"model.autoencoder_path={trained}/runs/vae"]
    assert f"text encoder '{t5}' cannot be loaded" in refused(2, "--exp_name", "new", *path)
    config = json.loads((t5 / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "bomb.Config", "AutoModel": "bomb.Model"}
    (t5 / "config.json").write_text(json.dumps({**config, "model_type": "bomb"}))
    (t5 / "bomb.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'code ran')!r})\n")
    assert "cannot be loaded" in refused(2, "--exp_name", "new", *path)
    assert not (tmp_path / "code ran").exists()


def test_a_text_encoder_of_another_width(trained, refused):
    t5 = trained / "runs/ldm/final/text_encoder"
    settings = [f"model.text_encoder.pretrained={t5}", "model.audioldm.context_dim=32"]
    said = refused(2, "--exp_name", "new", *settings, f"model.autoencoder_path={trained}/runs/vae")
    assert "model.audioldm.context_dim 32 must be 16, the width of the text encoder" in said


def test_going_on_with_another_model_or_mel(trained, refused):
    more = ["--exp_name", "vae", "train.max_steps=9"]
    said = refused(1, *more, "model.autoencoderkl.z_channels=4", "model.loss.disc_channels=16")
    assert "what this run's weights and moments are made for has changed" in said
    assert "model.autoencoderkl.z_channels: 2 -> 4, model.loss.disc_channels: 8 -> 16)" in said
    assert "choose another --exp_name" in said
    # Muon would take AdamW's moments for its own, and the weights would no longer be numbers.
    assert "train.optimizer: adamw -> muon" in refused(1, *more, "train.optimizer=muon")
    alone = "model.loss.decoder_alone"
    assert f"{alone}: False -> True" in refused(1, *more, f"{alone}=true")
    stage_2 = ["--exp_name", "vae", "train.max_steps=9"]
    assert "model_type: AutoencoderKL -> AudioLDM" in refused(2, *stage_2)


def test_a_run_that_goes_on_may_change_how_it_learns(trained, tmp_path):
    shutil.copytree(trained / "runs/vae", trained / "runs/longer")
    arguments = ["--config", trained / "stage1.json", "--exp_name", "longer"]
    changes = ["train.max_steps=7", "train.adam.lr=1e-4", "train.batch_size=2"]
    changes += ["model.loss.disc_weight=0.25"]
    records = trained / "data/Tiny/train.json"
    before = records.read_text()
    records.write_text(json.dumps(json.loads(before)[:-1]))
    try:
        assert warm.run(tmp_path / "log", *arguments, *changes) == 0
    finally:
        records.write_text(before)
    config = read_json(trained / "runs/longer/config.json")
    shutil.rmtree(trained / "runs/longer")
    assert config["train"]["adam"]["lr"] == 1e-4
    log = (tmp_path / "log").read_text()
    assert "resumes at step 6 of 7" in log
    assert "changed since: train.adam.lr: 0.001 -> 0.0001\n" in log
    assert "changed since: model.loss.disc_weight: 0.5 -> 0.25\n" in log
    assert "changed since: train.max_steps: 6 -> 7\n" in log
    assert re.search(r"changed since: records in train: 8 \(\w{12}\) -> 7 \(\w{12}\)\n", log)
    assert log.count("changed since") == 5


def test_a_file_where_runs_should_be(trained, refused, tmp_path):
    (tmp_path / "file").write_text("")
    said = refused(1, "--exp_name", "new", f"log_dir={tmp_path}/file")
    assert said.startswith(f"error: {tmp_path}/file/new")
    assert "Not a directory" in said
    said = refused(1, "--exp_name", "new", "log_dir=/proc/nope")
    assert said.startswith("error: /proc/nope/new: cannot be made (No such file or directory)")
