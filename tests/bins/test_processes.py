"""Several processes give what one gives, up to rounding, and the ways to start them work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny, warm
from tests.compare import assert_close, scalars

STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, configs, and a run of each stage by one process."""
    root = tmp_path_factory.mktemp("processes")
    tiny.write_data(root)
    tiny.write_edits(root)
    for stage in (1, 2, 3, 4):
        start = {"init_from": f"{root}/runs/one2"} if stage == 4 else {}
        config = tiny.write_config(root, stage, max_steps=STEPS, **start)
        assert warm.run(root / "log", "--config", config, "--exp_name", f"one{stage}") == 0
    return root


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_two_processes_are_as_one(place, stage):
    log, one = place / f"log{stage}", place / "runs" / f"one{stage}"
    shutil.rmtree(place / "data" / "cache", ignore_errors=True)  # which they share out, too
    arguments = ["--config", place / f"stage{stage}.json", "--exp_name", f"two{stage}"]
    if stage == 2:
        arguments.append(f"model.autoencoder_path={place}/runs/one1")
    assert warm.run_together(log, 2, *arguments) == [0, 0], log.read_text()
    assert "2 process(es)" in log.read_text()
    assert_close(place / "runs" / f"two{stage}", one, STEPS, 1e-4)
    if stage == 1:  # the adversarial game was on
        weights = [value for _, value in scalars(one)["train/d_weight"]]
        assert min(weights[1:]) > 0


def test_two_processes_with_two_pieces_each_are_as_one(place):
    log = place / "log_pieces"
    arguments = ["--config", place / "stage1.json", "--exp_name", "pieces"]
    arguments.append("train.gradient_accumulation_steps=2")
    assert warm.run_together(log, 2, *arguments) == [0, 0], log.read_text()
    assert_close(place / "runs" / "pieces", place / "runs" / "one1", STEPS, 1e-4)


def test_a_decoder_alone_shared_out_and_gone_on_with_is_as_in_one_piece(place):
    log = place / "log_decoder"
    arguments = ["--config", place / "stage1.json", f"train.init_from={place}/runs/one1"]
    arguments.append("model.loss.decoder_alone=true")
    assert warm.run(log, *arguments, "--exp_name", "decoder1") == 0, log.read_text()
    arguments += ["--exp_name", "decoder2", "train.gradient_accumulation_steps=2"]
    half = "train.max_steps=3"
    assert warm.run_together(log, 2, *arguments, half) == [0, 0], log.read_text()
    assert warm.run_together(log, 2, *arguments) == [0, 0], log.read_text()
    assert "goes on from" in log.read_text()
    assert_close(place / "runs" / "decoder2", place / "runs" / "decoder1", STEPS, 1e-4)


def test_a_batch_that_cannot_be_shared_out(place, tmp_path):
    log = tmp_path / "log"
    arguments = ["--config", place / "stage1.json", "--exp_name", "odd", "train.batch_size=3"]
    assert warm.run_together(log, 2, *arguments) == [2, 2]
    assert "error: train.batch_size 3 must be a multiple of 2 = 2 process(es) x" in log.read_text()
    assert not (place / "runs" / "odd").exists()


def test_run_train_under_a_launcher(place, warm_environment):
    """Each process that a launcher starts trains itself, instead of launching more."""
    script = str(tiny.ROOT / "egs/tta/autoencoderkl/run_train.sh")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    launcher += ["--nproc_per_node", "2"]
    config = ["--config", str(place / "stage1.json"), "--exp_name", "launched"]
    done = subprocess.run(
        [*launcher, "sh", script, *config],
        cwd="/",
        env=tiny.environment(VIRTUAL_ENV=str(warm_environment)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in (place / "runs/launched/log.txt").read_text()
    assert_close(place / "runs" / "launched", place / "runs" / "one1", STEPS, 1e-4)
