"""The training command: what it writes, its dry run, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from bins.tta.train import default_name
from config.load import load_config
from tests import warm
from tests.compare import scalars
from utils.checkpoint import read_json


def tree(root: Path) -> dict[str, tuple]:
    """Every file and folder with its size and time of change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.name != "log"
    }


# ---------------------------------------------------------------- what a run writes


def test_a_run_folder_holds_what_the_design_says(trained):
    for name, weights in (("vae", "vae.safetensors"), ("ldm", "unet.safetensors")):
        run = trained / "runs" / name
        assert {path.name for path in run.iterdir() if path.name != ".lock"} == {
            *("config.json", "log.txt", "tensorboard", "samples", "checkpoints", "final")
        }
        assert [path.name for path in sorted((run / "checkpoints").iterdir())] == [
            "step-00000003",
            "step-00000006",
        ]
        assert (run / "final" / weights).is_file()
        assert not list(run.rglob("*.pt")) + list(run.rglob("*.bin"))
        made_with = read_json(run / "final" / "config.json")["made_with"]
        assert made_with["step"] == 6
        assert {"commit", "torch", "transformers", "diffusers", "accelerate"} <= made_with.keys()


def test_curves_pictures_and_sounds(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    vae, ldm = scalars(trained / "runs/vae"), scalars(trained / "runs/ldm")
    assert {"train/rec_loss", "train/d_loss", "train/learning_rate", "valid/loss"} <= vae.keys()
    assert [step for step, _ in vae["train/rec_loss"]] == [2, 3, 4, 6]  # 3: a checkpoint
    assert [step for step, _ in ldm["valid/loss"]] == [3, 4, 6]
    for run, names in (("vae", ["0/original", "0/reconstruction"]), ("ldm", ["a dog"])):
        events = EventAccumulator(str(trained / "runs" / run / "tensorboard")).Reload()
        assert {f"mel/{name}" for name in names} <= set(events.Tags()["images"])
        assert {f"audio/{name}" for name in names} <= set(events.Tags()["audio"])
        assert (trained / "runs" / run / "samples/step-00000006/000.wav").stat().st_size > 44


def test_final_needs_nothing_else(trained, tmp_path):
    """It works where neither the run, nor the data, nor the stage-1 run are to be found."""
    from models.tta.ldm.pipeline import load_pipeline

    shutil.copytree(trained / "runs/ldm/final", tmp_path / "final")
    moved = trained.with_name("moved")
    trained.rename(moved)
    try:
        mel = load_pipeline(tmp_path / "final", "cpu")(["a dog"], [0])
    finally:
        moved.rename(trained)
    assert mel.shape == (1, 16, 16)


def test_names_of_runs():
    assert default_name("egs/tta/audioldm/exp_config_latent_4_5_39.json") == (
        "audioldm_latent_4_5_39"
    )
    assert default_name("egs/tta/autoencoderkl/exp_config.json") == "autoencoderkl"


# ---------------------------------------------------------------- the dry run


@pytest.mark.parametrize("stage", [1, 2])
def test_a_dry_run_tells_what_to_expect_and_writes_nothing(trained, stage, tmp_path):
    shutil.rmtree(trained / "data/cache", ignore_errors=True)
    before, log = tree(trained), tmp_path / "log"
    config = load_config(trained / f"stage{stage}.json")
    arguments = ["--config", trained / f"stage{stage}.json", "--exp_name", "vae", "--dry_run"]
    assert warm.run(log, *arguments, "train.max_steps=36000") == 0, log.read_text()
    assert tree(trained) == before
    said = dict(re.findall(r"^(\S.*?) {2,}(.*)$", log.read_text(), re.MULTILINE))
    assert said["latent"] == "2 x 8 x 8 per clip"
    assert said["model"] == config.model_type
    assert said["precision"] == "fp32"
    assert float(said["memory"].split()[0]) > 0.1
    assert re.fullmatch(r"\d+\.\d+ s, 4 clips, \d+\.\d clips/s", said["a step"])
    seconds = float(said["a step"].split()[0])
    time = re.fullmatch(r"36000 steps, (?:(\d+):)?(\d+):(\d+)", said["to the end"])
    hours, minutes, rest = map(int, time.groups("0"))
    said_seconds = 3600 * hours + 60 * minutes + rest
    assert said_seconds == pytest.approx(36000 * seconds, abs=60)  # of rounding
    networks = ("generator", "discriminator") if stage == 1 else ("unet",)
    for network in networks:
        assert int(said[f"parameters, {network}"].replace(",", "")) > 500
        assert f"grad_norm_{network}" in said["metrics of a step"]  # each of them has learnt
    assert "loss" in said["one validation batch"]
    assert said["written"] == "nothing"


def test_a_dry_run_without_stage_1_says_what_to_run(trained, tmp_path):
    log = tmp_path / "log"
    arguments = ["--config", trained / "stage2.json", f"log_dir={tmp_path}/none", "--dry_run"]
    assert warm.run(log, *arguments) == 2
    said = log.read_text()
    assert said.startswith(f"error: {tmp_path}/none: no trained AutoencoderKL there (")
    advised = f"run_train.sh --config FILE log_dir={tmp_path}/none\n"
    assert said.endswith(f"; to train one, run: sh egs/tta/autoencoderkl/{advised}")


# ---------------------------------------------------------------- no surprises


def test_nothing_outside_the_run_and_the_cache_is_written(trained, tmp_path):
    before = tree(trained / "data")
    arguments = ["--config", trained / "stage2.json", "--exp_name", "clean", "train.max_steps=1"]
    assert warm.run(tmp_path / "log", *arguments) == 0
    shutil.rmtree(trained / "runs" / "clean")
    new = tree(trained / "data").keys() - before.keys()
    assert all(Path(path).relative_to(trained / "data").parts[0] == "cache" for path in new)
    changed = {path for path, stat in tree(trained / "data/Tiny").items() if before[path] != stat}
    assert changed == set()


def test_the_config_that_is_saved_is_the_config(trained):
    saved = read_json(trained / "runs/ldm/config.json")
    saved.pop("made_with")
    config = load_config(trained / "stage2.json")
    assert saved == json.loads(json.dumps(dataclasses.asdict(config)))
