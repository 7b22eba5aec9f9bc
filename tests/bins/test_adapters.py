"""Adapters of trained models: their runs, what goes on from them, and the sounds that they make."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bins.tta import convert, edit, inference
from bins.tta.train import make_task
from models.base.accelerator import make_accelerator
from models.tta.ldm.lora import Adapter
from models.tta.ldm.pipeline import load_pipeline
from tests import tiny, warm
from tests.compare import assert_same
from utils.checkpoint import file_hash, load_tensors, read_json, save_tensors
from utils.cli import run_main

LORA = {"rank": 2, "alpha": 4, "target": "all", "text_encoder": True}
USED = ("--lora", "RUNS/lora")
OF_ONE = {"adapter_config.json", "adapter_model.safetensors"}
OF_ALL = {*OF_ONE, "config.json", "pipeline.json"}
OF_A_CHECKPOINT = {"adam_unet.safetensors", "learning.safetensors", "state.json"}
OF_TEXT = {"text_encoder", *(f"text_encoder/{file}" for file in OF_ONE)}
OF_ITS_LEARNING = {"text_encoder/learning.safetensors"}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def settings(base: Path, **changes) -> list[str]:
    lora = json.dumps({**LORA, **changes})
    return [f"train.init_from={base}", f"train.lora={lora}", "train.adam.lr=0.02"]


def train(root: Path, name: str, *changes: str, config: str = "stage2.json") -> tuple[int, str]:
    """Exit status and output of a run."""
    log = root / f"{name}.log"
    log.unlink(missing_ok=True)
    status = warm.run(log, "--config", f"{root}/{config}", "--exp_name", name, *changes)
    return status, log.read_text()


@pytest.fixture(scope="module")
def adapted(trained) -> Path:
    """runs/lora there, adapters of runs/ldm."""
    status, log = train(trained, "lora", *settings(trained / "runs/ldm"))
    assert status == 0, log
    yield trained / "runs/lora"
    shutil.rmtree(trained / "runs/lora")


def command(program, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [program.__name__, *map(str, arguments)])
    run_main(program.main)


@pytest.fixture
def sound(adapted, monkeypatch, tmp_path):
    """The next sound of the inference command, and its receipt."""
    root = adapted.parent.parent

    def run(*arguments: object) -> tuple[np.ndarray, dict]:
        out = tmp_path / "out"
        given = (f"--log_dir={root}/runs", f"--output_dir={out}", "--device=cpu", "--num_steps=2")
        command(inference, monkeypatch, *given, "--text=a dog", *arguments)
        newest = max(out.glob("*.json"))
        return soundfile.read(newest.with_suffix(".wav"))[0], read_json(newest)

    return run


def test_a_run_holds_the_adapters_alone_and_says_of_what(adapted):
    base = adapted.parent / "ldm/final"
    newest = adapted / "checkpoints/step-00000006"
    assert files(adapted / "final") == OF_ALL | OF_TEXT
    assert files(newest) == OF_ALL | OF_TEXT | OF_A_CHECKPOINT | OF_ITS_LEARNING
    written = read_json(adapted / "final/pipeline.json")
    assert (written["adapts"], written["base"]) == ("AudioLDM", str(base))
    assert file_hash(base / "unet.safetensors").startswith(written["base_weights"])
    peft = read_json(adapted / "final/adapter_config.json")
    assert (peft["r"], peft["lora_alpha"], peft["base_model_name_or_path"]) == (2, 4, str(base))
    tensors = {}
    for part in ("", "text_encoder"):
        found = load_tensors(adapted / "final" / part / "adapter_model.safetensors")
        learnt = load_tensors(newest / part / "learning.safetensors")
        assert all(tensor.any() for tensor in found.values())
        assert any(not torch.equal(tensor, learnt[name]) for name, tensor in found.items())
        tensors |= {part + name: tensor for name, tensor in found.items()}
    size = sum(tensor.numel() for tensor in tensors.values())
    log = (adapted / "log.txt").read_text()
    assert f"adapters of {len(tensors) // 2} layers learn, {size / 1e6:.2f} M numbers beside" in log
    assert f"starts from the weights in {base}" in log
    assert f"takes the VAE in {base}/vae" in log


def losses(run: Path) -> list[float]:
    lines = (run / "log.txt").read_text().splitlines()
    return [float(line.split()[-1]) for line in lines if ": valid loss" in line]


def test_it_begins_as_the_base_and_its_averages_merged_are_what_was_validated(
    adapted, monkeypatch, tmp_path
):
    root = adapted.parent.parent
    first, *_, last = losses(adapted)
    assert last < first - 1e-3
    command(convert, monkeypatch, "merge", "--lora", adapted, tmp_path / "merged")
    for start, expected in ((root / "runs/ldm", first), (tmp_path / "merged", last)):
        config = tiny.load(root / "stage2.json", {"train": {"init_from": str(start)}})
        task = make_task(config, make_accelerator(config), None)
        task.prepare_data(tmp_path / "cache")
        assert task.validate()["loss"] == pytest.approx(expected, rel=2e-4)
    texts = [
        load_pipeline(folder, "cpu", adapters=adapters).text_encoder.encode(["a dog"])[0]
        for folder, adapters in (
            (root / "runs/ldm/final", []),
            (root / "runs/ldm/final", [Adapter.find(str(adapted))]),
            (tmp_path / "merged", []),
        )
    ]
    assert (texts[1] - texts[0]).abs().max() > 1e-3
    torch.testing.assert_close(texts[1], texts[2])


def test_it_goes_on_as_if_it_had_not_stopped(adapted):
    root = adapted.parent.parent
    again = shutil.copytree(adapted, adapted.parent / "again")
    shutil.rmtree(again / "final")
    shutil.rmtree(again / "checkpoints/step-00000006")
    moved = (root / "runs/ldm/final").rename(root / "moved")  # the same weights elsewhere
    try:
        status, log = train(root, "again", *settings(moved))
    finally:
        moved.rename(root / "runs/ldm/final")
    assert status == 0, log
    assert "resumes at step 3 of 6" in log
    assert f"train.init_from: {root}/runs/ldm -> {moved}\n" in log
    assert_same(again, adapted, 6)
    shutil.rmtree(again)


def test_what_a_run_does_not_go_on_with(adapted, tmp_path):
    root = adapted.parent.parent
    base, more = root / "runs/ldm/final", "train.max_steps=9"
    other = shutil.copytree(base, tmp_path / "other")
    weights = load_tensors(other / "unet.safetensors")
    weights["conv_in.bias"] += 1
    save_tensors(other / "unet.safetensors", weights)
    shutil.copytree(base, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare/vae")
    ours = file_hash(base / "unet.safetensors")[:12]
    noise = "model.noise_scheduler.beta_schedule"
    for name, changes, said in (
        ("lora", [*settings(other), more], f"and this run adapts {ours}, which were in {base}"),
        ("lora", [*settings(base, rank=4), more], "has changed (train.lora.rank: 2 -> 4)"),
        ("lora", [more], "has changed (train.lora.alpha: 4.0 -> None, train.lora.rank: 2"),
        ("ldm", [*settings(base), more], "has changed (train.lora.alpha: None -> 4.0, train.lora"),
        ("new", settings(adapted), f"give them as --lora {adapted}, or make a whole one: python"),
        (
            "new",
            settings(tmp_path / "bare"),
            "bare: train.lora adapts a whole AudioLDM; it lacks v",
        ),
        ("new", [*settings(base), f"{noise}=linear"], f"has '{noise}=\"scaled_linear\"'"),
    ):
        status, log = train(root, name, *changes)
        assert (status, "Traceback" in log) == (2, False), log
        assert said in log, (said, log)
    assert not (root / "runs/new").exists()


def test_sounds_with_adapters_and_their_receipts(adapted, sound, monkeypatch, tmp_path):
    base, plain = sound("--checkpoint_path", adapted.parent / "ldm")
    assert "lora" not in plain
    same, _ = sound("--lora", f"{adapted}:0")
    assert np.array_equal(base, same)
    other, receipt = sound("--lora", adapted)
    assert np.abs(other - base).max() > 1e-3
    weights = file_hash(adapted / "final/adapter_model.safetensors")[:12]
    used = {"folder": str(adapted / "final"), "weight": 1.0, "weights": weights}
    assert receipt == {**plain, "file": receipt["file"], "lora": [used]}
    twice, receipt = sound("--lora", f"{adapted}:0.25", "--lora", f"{adapted}/final:0.75")
    assert [part["weight"] for part in receipt["lora"]] == [0.25, 0.75]
    np.testing.assert_allclose(twice, other, atol=1e-3)
    command(convert, monkeypatch, "merge", "--lora", f"{adapted}:1", tmp_path / "merged")
    merged, _ = sound("--checkpoint_path", tmp_path / "merged")
    assert np.array_equal(merged, other)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lora", "gone"], "gone: no such folder; to train one, run: sh egs/tta/audioldm/run_tr"),
        (["--lora", "RUNS/ldm"], "ldm: holds no LoRA (adapter_model.safetensors in it"),
        (["--lora", "RUNS/lora:nan"], "the weight must be a finite number"),
        (["--checkpoint_path", "RUNS/lora"], "holds adapters (LoRA), not a whole model: give them"),
        (
            ["--checkpoint_path", "RUNS/ldm/checkpoints/step-00000003", *USED],
            "it adapts the weights",
        ),
    ],
)
def test_what_is_refused(adapted, sound, capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        sound(*(argument.replace("RUNS", str(adapted.parent)) for argument in arguments))
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_adapters_of_an_editor(edits, monkeypatch, tmp_path):
    """With `audit`, which is not merged here, as with any model that was trained on it."""
    changes = settings(edits / "runs/audit", target="attention", text_encoder=False)
    status, log = train(edits, "edit_lora", *changes, config="stage4.json")
    assert status == 0, log
    run = edits / "runs/edit_lora"
    assert files(run / "final") == OF_ALL
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(1).normal(0, 0.1, 1600), 4000)
    sounds = []
    for lora in (f"{run}:0", run):
        given = (f"--log_dir={edits}/runs", f"--output_dir={tmp_path}/out", "--device=cpu")
        command(
            *(edit, monkeypatch, *given, "--num_steps=2", "--text=Drop a dog"),
            *(f"--audio={tmp_path}/a.wav", "--lora", lora),
        )
        newest = max((tmp_path / "out").glob("*.json"))
        sounds.append(soundfile.read(newest.with_suffix(".wav"))[0])
        assert read_json(newest)["lora"][0]["folder"] == str(run / "final")
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-4
    status, log = train(edits, "no", *settings(edits / "runs/ldm"), config="stage4.json")
    assert status == 2
    assert "train.lora adapts a whole AUDIT; it lacks editor.safetensors" in log
    shutil.rmtree(run)


def test_a_dry_run_says_what_learns(adapted, tmp_path):
    root = adapted.parent.parent
    status, log = train(root, "dry", "--dry_run", *settings(root / "runs/ldm"))
    assert status == 0, log
    found = (adapted / "final").rglob("adapter_model.safetensors")
    size = sum(tensor.numel() for path in found for tensor in load_tensors(path).values())
    assert f"parameters, unet      {size:,}" in log
