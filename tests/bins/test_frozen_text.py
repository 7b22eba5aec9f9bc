"""Stage 2 as it is shipped, with a T5 that does not learn: its cache, killed and in company."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import golden, tiny, warm
from tests.compare import assert_close, assert_same, tensors
from tests.warm import SAVES, Trap

STEPS = 6
SETTINGS = {
    "max_steps": STEPS,
    "save_checkpoints_steps": 2,
    "save_summary_steps": 2,
    "valid_interval": 4,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, a stage-1 run, a T5 in a folder, and a stage-2 run that was left alone."""
    root = tmp_path_factory.mktemp("frozen")
    golden.write_place(root)
    golden.train(root, 1, "vae", "train.max_steps=1")
    tiny.write_config(root, 2, **SETTINGS)
    captions = [f"{word} sounds twice" for word in tiny.WORDS]
    golden.write_t5(root / "t5", captions)
    golden.write_t5(root / "other t5", captions, seed=1)
    assert warm.run(root / "log", *arguments(root, "alone")) == 0, (root / "log").read_text()
    return root


def arguments(place: Path, name: str, t5: str = "t5") -> list[str]:
    return [
        *("--config", f"{place}/stage2.json", "--exp_name", name),
        *(f"model.autoencoder_path={place}/runs/vae", "model.caption_dropout=0.5"),
        f"model.text_encoder.pretrained={place / t5}",
    ]


def cache(place: Path) -> dict[str, tuple[int, int]]:
    """Every file of what networks made, with what changes when it is written again."""
    files = (path for path in (place / "data/cache").glob("*/*") if path.is_file())
    return {f"{p.parent.name}/{p.name}": (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def kinds(names) -> list[str]:
    """Which caches there are: ["latent", "text"] is one of each."""
    return sorted(folder.partition("-")[0] for folder in {n.partition("/")[0] for n in names})


# The first file operations of a save write weights, the last ones rename the folder.
@pytest.mark.parametrize("operation", [3, 20, 45])
def test_killed_in_a_save_it_ends_as_if_left_alone(place, operation, tmp_path):
    name, log = f"killed{operation}", tmp_path / "log"
    trap = Trap(SAVES, operation)
    assert warm.run(log, *arguments(place, name), trap=trap) == -signal.SIGKILL
    before = cache(place)
    assert warm.run(log, *arguments(place, name)) == 0, log.read_text()
    assert cache(place) == before
    assert_same(place / "runs" / name, place / "runs/alone", STEPS)


@pytest.mark.parametrize("operation", [2, 9])
def test_killed_while_it_fills_the_cache(place, operation, tmp_path):
    shutil.rmtree(place / "data/cache")
    name, log = f"filling{operation}", tmp_path / "log"
    trap = Trap(("/cache/",), operation)
    assert warm.run(log, *arguments(place, name), trap=trap) == -signal.SIGKILL
    whole = {file: stat for file, stat in cache(place).items() if file.endswith(".npy")}
    assert warm.run(log, *arguments(place, name)) == 0, log.read_text()
    assert kinds(cache(place)) == ["latent", "text"]
    assert whole.items() <= cache(place).items()
    assert_same(place / "runs" / name, place / "runs/alone", STEPS)


def test_it_goes_on_with_the_t5_that_it_began_with(place, tmp_path):
    """The checkpoint holds it; what the config names may have changed or gone since."""
    log, t5 = tmp_path / "log", shutil.copytree(place / "t5", place / "a t5")
    goes_on = arguments(place, "goes_on", "a t5")
    assert warm.run(log, *goes_on, "train.max_steps=4") == 0, log.read_text()
    before = cache(place)
    shutil.rmtree(t5)
    assert warm.run(log, *goes_on) == 0, log.read_text()
    assert cache(place) == before
    found, alone = (tensors(place / "runs" / name, STEPS) for name in ("goes_on", "alone"))
    assert found.keys() == alone.keys()
    assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_a_new_run_uses_the_cache_and_another_t5_has_its_own(place, tmp_path):
    log, before = tmp_path / "log", cache(place)
    assert kinds(before) == ["latent", "text"]
    short = ("train.max_steps=2",)
    assert warm.run(log, *arguments(place, "again"), *short) == 0, log.read_text()
    assert cache(place) == before
    assert warm.run(log, *arguments(place, "other", "other t5"), *short) == 0, log.read_text()
    assert before.items() <= cache(place).items()
    new = cache(place).keys() - before.keys()
    assert kinds(new) == ["text"]
    again, other = (load_file(learning(place, name)) for name in ("again", "other"))
    assert not all(torch.equal(again[name], other[name]) for name in again)


def learning(place: Path, name: str) -> Path:
    return golden.checkpoint(place / "runs" / name, 2) / "learning.safetensors"


def test_one_weight_of_the_t5_or_one_caption_changes_its_cache(place, tmp_path):
    log, folder = tmp_path / "log", shutil.copytree(place / "t5", place / "t5 changed")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.final_layer_norm.weight"][3] *= 1.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    records, before = place / "data/Tiny/train.json", cache(place)
    short = ("train.max_steps=1",)
    assert warm.run(log, *arguments(place, "weight", "t5 changed"), *short) == 0, log.read_text()
    changed = cache(place)
    assert kinds(changed.keys() - before.keys()) == ["text"]
    text = records.read_text()
    records.write_text(text.replace("wind sounds", "wind sounds twice", 1))
    try:
        assert warm.run(log, *arguments(place, "caption"), *short) == 0, log.read_text()
    finally:
        records.write_text(text)
    assert kinds(cache(place).keys() - changed.keys()) == ["text"]


def test_two_processes_share_the_cache_out_and_are_as_one(place, tmp_path):
    shutil.rmtree(place / "data/cache")
    log = tmp_path / "log"
    assert warm.run_together(log, 2, *arguments(place, "two")) == [0, 0], log.read_text()
    assert kinds(cache(place)) == ["latent", "text"]
    assert_close(place / "runs/two", place / "runs/alone", STEPS, 1e-4)
