"""A run that is killed, stopped or split into more pieces ends where one left alone ends."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import tiny, warm
from tests.compare import assert_close, assert_same, scalars
from tests.warm import SAVES, Trap

STEPS = 8
SETTINGS = {
    "max_steps": STEPS,
    "save_checkpoints_steps": 2,
    "save_summary_steps": 3,  # no multiple of the above: figures wait while a checkpoint is written
    "valid_interval": 4,
    "keep_checkpoint_max": 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, configs of both stages and the vocoder, and a run of each that was left alone."""
    root = tmp_path_factory.mktemp("resume")
    tiny.write_data(root)
    for stage in (1, 2, 3):
        config = tiny.write_config(root, stage, **SETTINGS)
        log, arguments = root / "log", ["--config", config, "--exp_name", f"alone{stage}"]
        if stage != 1:
            arguments.append(f"model.autoencoder_path={root}/runs/alone1")
        assert warm.run(log, *arguments) == 0, log.read_text()
    return root


@pytest.fixture
def command(place, request):
    """(arguments of a run, its folder) by name and stage, the run not yet begun."""

    def make(stage: int) -> tuple[list[str], Path]:
        name = f"{request.node.originalname}{stage}"
        shutil.rmtree(place / "runs" / name, ignore_errors=True)
        arguments = ["--config", f"{place}/stage{stage}.json", "--exp_name", name]
        if stage != 1:
            arguments.append(f"model.autoencoder_path={place}/runs/alone1")
        return arguments, place / "runs" / name

    return make


# File operations on these paths: within a save, at a batch's clips, and on anything of the run.
MOMENTS = (SAVES, ("/mel/clip",), ("/runs/",))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_killed_at_random_moments(place, command, stage, pytestconfig, tmp_path):
    """The same moments each time: the dice are seeded and choose among file operations."""
    arguments, run = command(stage)
    alone, cache, log = place / "runs" / f"alone{stage}", place / "data/cache", tmp_path / "log"
    wanted, dice = pytestconfig.getoption("kills"), random.Random(stage)
    kills, ends = 0, 0
    while kills < wanted or run.exists():
        if not run.exists():
            shutil.rmtree(cache, ignore_errors=True)
        trap = Trap(dice.choice(MOMENTS), dice.randint(1, 60)) if kills < wanted else None
        status = warm.run(log, *arguments, trap=trap)
        if status == 0:  # it got to the end: what is killed next begins anew
            assert_same(run, alone, STEPS)
            shutil.rmtree(run)
            ends += 1
        else:
            assert status == -signal.SIGKILL, log.read_text()
            kills += 1
    print(f"stage {stage}: {kills} kills, {ends} runs to the end, all equal")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_saves_and_says_how_to_go_on(place, command, number, tmp_path):
    arguments, run = command(1)
    log = tmp_path / "log"
    arguments += ["train.save_checkpoints_steps=100", "train.valid_interval=2"]  # none is due
    asked = Trap(("/mel/clip",), 90, number)  # each step opens mels; this is one of the first
    assert warm.run(log, *arguments, trap=asked) == 128 + number
    said = r"step ([1-7]): stopped and saved; to go on, run the same command again"
    (step,) = re.findall(said, log.read_text())
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-0000000{step}"]
    assert warm.run(log, *arguments) == 0
    assert_same(run, place / "runs/alone1", STEPS)


def test_stopped_with_all_its_children(place, command, tmp_path):
    """A cluster's SIGTERM also reaches the processes that load batches."""
    arguments, run = command(1)
    log = tmp_path / "log"
    asked = Trap(SAVES, 20, signal.SIGTERM, group=True)
    assert warm.run(log, *arguments, "train.num_workers=2", trap=asked) == 128 + signal.SIGTERM
    assert "stopped and saved" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert warm.run(log, *arguments) == 0
    assert_same(run, place / "runs/alone1", STEPS)


def test_after_the_end_it_says_so_at_once(place):
    command = ["-X", "importtime", "bins/tta/train.py", "--config", f"{place}/stage2.json"]
    again = subprocess.run(
        [sys.executable, *command, "--exp_name", "alone2"],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0
    assert again.stdout == (
        f"{place}/runs/alone2: finished at step 8; a larger train.max_steps lets it go on\n"
    )
    imported = [line.rpartition("|")[2].strip() for line in again.stderr.splitlines()]
    assert "utils.run_folder" in imported
    assert "torch" not in imported  # which takes seconds


def test_goes_on_past_its_end_with_more_steps(place, command, tmp_path):
    arguments, run = command(1)
    log = tmp_path / "log"
    assert warm.run(log, *arguments, "train.max_steps=6") == 0
    assert warm.run(log, *arguments) == 0
    assert_same(run, place / "runs/alone1", STEPS)


def test_newest_and_best_checkpoints_are_kept(place, command, tmp_path):
    arguments, run = command(1)
    # A rate that ruins the weights after step 4: the loss there is the best.
    ruin = ["train.warmup_steps=4", "train.adam.lr=0.02", "train.keep_checkpoint_max=1"]
    for end in (6, 8):  # in two goes: what was best before counts after them, too
        assert warm.run(tmp_path / "log", *arguments, *ruin, f"train.max_steps={end}") == 0
    from utils.checkpoint import read_json

    loss, best = min((loss, step) for step, loss in scalars(run)["valid/loss"])
    assert best < 6
    kept = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in kept] == [f"step-{best:08d}", "step-00000008"]
    state = read_json(kept[-1] / "state.json")
    assert state["best_step"] == best
    assert state["best_loss"] == pytest.approx(loss)


def test_damaged_newest_checkpoint_is_named(place, command, tmp_path):
    arguments, run = command(1)
    log = tmp_path / "log"
    assert warm.run(log, *arguments) == 0
    shutil.rmtree(run / "final")
    newest = run / "checkpoints" / "step-00000008"
    weights = newest / "vae.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-1])
    log.unlink()
    assert warm.run(log, *arguments) == 2
    said = log.read_text()
    assert said.startswith(f"error: {weights}: has {size - 1} bytes, not {size} as saved\n")
    assert f"step-00000006 is before it. To go on without it: rm -r '{newest}'" in said
    shutil.rmtree(newest)
    assert warm.run(log, *arguments) == 0
    assert_same(run, place / "runs/alone1", STEPS)


def test_two_trainings_cannot_share_a_folder(place, command, tmp_path):
    arguments, run = command(1)
    first = warm.start(tmp_path / "log", *arguments, trap=Trap(SAVES, 15, signal.SIGSTOP))
    # Not only within a checkpoint: told to go on before it has stopped, it would stop for good.
    while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.05)
        assert first.is_alive()
    assert list(run.glob("checkpoints/.step*"))
    (tmp_path / "second").touch()
    second = warm.start(tmp_path / "second", *arguments)
    said = f"{run}: another training is at work there since 20"
    while said not in (tmp_path / "second").read_text():
        time.sleep(0.05)
        assert second.is_alive()
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    second.join()
    assert second.exitcode == 0  # it goes on from where the first came to while it waited
    assert f"goes on from {run}/checkpoints/step-00000008" in (tmp_path / "second").read_text()
    assert_same(run, place / "runs/alone1", STEPS)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_more_pieces_give_the_same_result(place, command, stage, tmp_path):
    arguments, run = command(stage)
    log = tmp_path / "log"
    assert warm.run(log, *arguments, "train.gradient_accumulation_steps=2") == 0, log.read_text()
    assert_close(run, place / f"runs/alone{stage}", STEPS, 1e-4)
