import json
import logging
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config.schema import AdamConfig
from models.base.watch import GIVE_UP_AFTER, LASTING, Watch
from models.tta.autoencoder.training import AutoencoderTraining
from modules.optimizer import adamw, optimizer_step
from tests import tiny, warm

TROUBLES = partial(AutoencoderTraining.troubles, None)
HEALTHY = {"rec_loss": 0.5, "latent_std": 1.0, "latent_nats": 0.8, "d_loss": 0.9}


@pytest.fixture
def warnings():
    """What a Watch logs."""
    log = logging.getLogger("test_watch")
    log.propagate = False
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    log.handlers = [handler]
    return seen


def make_watch() -> Watch:
    log = logging.getLogger("test_watch")
    clips_of = lambda step: [f"a{step}", f"b{step}"]  # noqa: E731
    return Watch(log, SimpleNamespace(clips_of=clips_of, troubles=TROUBLES))


def check(watch: Watch, times: int, metrics: dict, waiting: float = 0.0, step: int = 100) -> None:
    for number in range(times):
        watch.check(metrics, step + 100 * number, waiting)


def test_healthy_metrics_give_no_warning(warnings):
    watch = make_watch()
    for number in range(20):
        watch.note(number, torch.tensor(0.0))
        watch.check({**HEALTHY, "rec_loss": 1 - 0.01 * number}, 100 * number, 0.05)
    assert warnings == []
    assert not watch.gave_up


@pytest.mark.parametrize(
    ("metrics", "waiting", "said"),
    [
        (
            {"latent_std": 0.003},
            0.0,
            "step 300: the latent has collapsed, its standard deviation is 0.003 and a value of it"
            " tells 0.8 nats of the mel; try a smaller model.loss.kl_weight or a smaller"
            " train.adam.lr",
        ),
        ({"latent_nats": 0.004}, 0.0, "tells 0.004 nats of the mel"),
        ({"d_loss": 0.002}, 0.0, "step 300: the discriminator wins outright, d_loss is 0.002"),
        ({}, 0.41, "step 300: 41% of the time goes into waiting for data; try a larger"),
    ],
)
def test_lasting_trouble_is_named_once_with_figure_and_advice(warnings, metrics, waiting, said):
    watch = make_watch()
    check(watch, LASTING - 1, {**HEALTHY, **metrics}, waiting)
    assert warnings == []
    check(watch, 5, {**HEALTHY, **metrics}, waiting, step=300)
    assert len(warnings) == 1
    assert said in warnings[0]


def test_passing_trouble_is_not_named(warnings):
    watch = make_watch()
    for _ in range(5):
        check(watch, LASTING - 1, {**HEALTHY, "d_loss": 0.0}, 0.9)
        check(watch, 1, HEALTHY, 0.0)
    assert warnings == []


def test_skipped_steps_name_their_clips_and_end_the_run(warnings):
    watch = make_watch()
    for step, skipped in enumerate([0, 1, 1, 0, *[1] * GIVE_UP_AFTER]):
        watch.note(step, torch.tensor(float(skipped)))
        watch.check(HEALTHY, step + 1, 0.0)
    assert len(warnings) == 2 + GIVE_UP_AFTER
    assert warnings[0] == ("step 2: loss or gradient not finite, step skipped; its clips: a1, b1")
    assert watch.gave_up
    assert watch.advice.startswith("5 steps in a row up to step 9 had no finite loss or gradient")
    assert "train.adam.lr" in watch.advice


def test_skipped_update_leaves_weights_moments_and_count_alone():
    adam = AdamConfig(1e-2, [0.9, 0.999], 1e-8, 1e-2)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = adamw([weight], adam)
    weight.grad = torch.full((3,), 0.5)
    optimizer_step(optimizer, 1e-2, torch.tensor(0.8), 1.0, torch.tensor(0.0))
    before = weight.detach().clone()
    state = {name: value.clone() for name, value in optimizer.state[weight].items()}
    weight.grad = torch.tensor([float("nan"), float("inf"), 1.0])
    optimizer_step(optimizer, 1e-2, torch.tensor(float("nan")), 1.0, torch.tensor(1.0))
    assert torch.equal(weight, before)
    assert not torch.equal(before, torch.ones(3))
    assert {name: value.tolist() for name, value in optimizer.state[weight].items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert weight.grad is None  # the next step starts afresh


def test_the_device_is_read_once_a_summary(monkeypatch):
    reads = []

    def counted(name: str):
        read = getattr(torch.Tensor, name)
        return lambda tensor: reads.append(name) or read(tensor)

    for name in ("tolist", "item", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    watch, skip = make_watch(), torch.tensor(0.0)
    for step in range(200):
        watch.note(step, skip)
        assert len(reads) == step // 50
        if step % 50 == 49:
            watch.check(HEALTHY, step, 0.0)
    assert reads == ["tolist"] * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("watch")
    tiny.write_data(root)
    for stage in (1, 2):
        tiny.write_config(root, stage, max_steps=8, save_checkpoints_steps=8)
    return root


def spoil(place, numbers) -> None:
    for number in numbers:
        path = place / "data/Tiny/mel" / f"clip {number}.npy"
        mel = np.load(path)
        mel[2, 3] = np.nan
        np.save(path, mel)


@pytest.mark.parametrize("stage", [1, 2])
def test_one_clip_that_is_not_finite_spoils_nothing(place, stage, tmp_path):
    from safetensors.torch import load_file

    from tests.compare import scalars

    whole = place / "data/Tiny/mel"
    kept = shutil.copytree(whole, tmp_path / "mel")
    arguments = ["--config", place / f"stage{stage}.json", "--exp_name", f"spoilt{stage}"]
    log, run = tmp_path / "log", place / "runs" / f"spoilt{stage}"
    if stage == 2:
        vae = ["--config", place / "stage1.json", "--exp_name", "vae", "train.max_steps=2"]
        assert warm.run(log, *vae) == 0, log.read_text()
    spoil(place, [1])
    try:
        assert warm.run(log, *arguments) == 0, log.read_text()
    finally:
        shutil.rmtree(whole)
        kept.rename(whole)
    said = [line for line in log.read_text().splitlines() if "step skipped" in line]
    assert 2 <= len(said) <= 6  # about every second batch holds the clip
    assert all("clip 1" in line for line in said)
    for file in run.rglob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert tensor.isfinite().all(), f"{file}: {name}"
    updates = load_file(run / "checkpoints/step-00000008" / optimizer_file(stage))
    assert updates["0.step"] == 8 - len(said)
    for points in scalars(run).values():
        assert np.isfinite([value for _, value in points]).all()


def optimizer_file(stage: int) -> str:
    return "adam_generator.safetensors" if stage == 1 else "adam_unet.safetensors"


def test_a_run_without_finite_losses_stops_saved_with_advice(place, tmp_path):
    whole = place / "data/Tiny/mel"
    kept = shutil.copytree(whole, tmp_path / "mel")
    log, run = tmp_path / "log", place / "runs/hopeless"
    spoil(place, range(8))
    try:
        arguments = ["--config", place / "stage1.json", "--exp_name", "hopeless"]
        assert warm.run(log, *arguments, "train.valid_interval=100") == 2
    finally:
        shutil.rmtree(whole)
        kept.rename(whole)
    assert "error: 5 steps in a row up to step 5 had no finite loss" in log.read_text()
    assert "run the same command again" not in log.read_text()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000006"]
    assert not (run / "final").exists()


def test_weights_that_are_not_finite_end_a_run_without_final(place, tmp_path):
    log = tmp_path / "log"
    too_much = ["train.adam.lr=1e39", "train.warmup_steps=0", "train.max_steps=1"]
    arguments = ["--config", place / "stage1.json", *too_much]
    valid = place / "data/Tiny/valid.json"
    clips = valid.read_text()
    try:
        for name, records in (("infinite", clips), ("unseen", "[]")):
            valid.write_text(records)
            run = place / "runs" / name
            assert warm.run(log, *arguments, "--exp_name", name) == 2
            assert "error: step 1: weights are not finite, and of no use" in log.read_text()
            assert not (run / "final").exists()
    finally:
        valid.write_text(clips)
    assert warm.run(log, *arguments, "--exp_name", name) == 2
    assert "/vae.safetensors: weights are not finite (" in log.read_text()
    assert "take an earlier checkpoint, or train anew" in log.read_text()


def test_a_validation_that_is_not_finite_is_never_the_best(place, tmp_path):
    """Nothing would be less than it, and no later checkpoint the best."""
    name, whole = "unmeasured", place / "data/Tiny/mel"
    kept = shutil.copytree(whole, tmp_path / "mel")
    valid = json.loads((place / "data/Tiny/valid.json").read_text())
    log, run = tmp_path / "log", place / "runs" / name
    spoil(place, [valid[0]["Uid"].split()[-1]])
    try:
        arguments = ["--config", place / "stage1.json", "--exp_name", name]
        assert warm.run(log, *arguments, "train.max_steps=2") == 0, log.read_text()
    finally:
        shutil.rmtree(whole)
        kept.rename(whole)
    assert "step 2: validation's loss is not finite, though all weights are" in log.read_text()
    assert (run / "final").exists()
    path = run / "checkpoints/step-00000002/state.json"
    state = json.loads(path.read_text())
    assert state["best_step"] is None
    path.write_text(json.dumps({**state, "best_loss": float("nan"), "best_step": 2}))  # as once
    assert warm.run(log, *arguments, "train.max_steps=3") == 0, log.read_text()
    newest = json.loads((run / "checkpoints/step-00000003/state.json").read_text())
    assert newest["best_step"] == 3
