"""A vocoder of one's own: it learns, inference finds it; where it does not fit, it is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bins.tta import inference
from models.vocoders.load import GRIFFIN_LIM, load_vocoder, newest_vocoder
from models.vocoders.saved import TrainedVocos
from processors.clips import pcm_of_wav
from processors.mel import mel_of_wav
from tests import golden, tiny, warm
from tests.compare import scalars
from utils.checkpoint import read_json
from utils.errors import UserError

STEPS, DISC_START = 45, 30


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Clips that click in the middle of each frame, and the run of a vocoder on their mels.

    Noise alone would leave nothing to learn: a network begins with it.
    """
    root = tmp_path_factory.mktemp("vocoder")
    folder = tiny.write_data(root)
    for number in range(11):
        samples = np.arange(40 * tiny.MEL.hop_size)
        noise = np.random.default_rng(number).standard_normal(len(samples))
        swell = 0.2 + 0.18 * np.sin(samples * 0.001 * (number + 1))
        wav = swell * (samples % tiny.MEL.hop_size == tiny.MEL.hop_size // 2) + 1e-3 * noise
        np.save(folder / "mel" / f"clip {number}.npy", mel_of_wav(wav, tiny.MEL))
        np.save(folder / "pcm" / f"clip {number}.npy", pcm_of_wav(wav))
    tiny.write_config(root, 3, max_steps=STEPS, save_checkpoints_steps=STEPS)
    settings = ("batch_size=8", "adam.lr=1e-2", "save_summary_steps=1")
    train = [f"train.{setting}" for setting in settings]
    golden.train(root, 3, "vocoder", *train, f"model.loss.disc_start={DISC_START}")
    return root


def test_the_energy_distance_falls_and_stays_low_with_discriminators(place):
    curves = {tag: [value for _, value in points] for tag, points in scalars(run(place)).items()}
    losses = curves["train/energy"]
    assert losses[0] > 1.0
    assert np.mean(losses[20:30]) < 0.85 * losses[0]
    assert np.mean(losses[-10:]) < 0.85 * losses[0]
    assert len(curves["train/d_loss"]) == STEPS - DISC_START
    assert curves["valid/loss"][-1] < 0.85 * losses[0]


def run(place: Path) -> Path:
    return place / "runs" / "vocoder"


def test_original_vocoder_and_griffin_lim_are_beside_each_other(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(run(place) / "tensorboard")).Reload().Tags()["audio"]
    assert {"audio/0/original", "audio/0/vocoder", "audio/0/griffin_lim"} <= set(tags)


def test_a_dry_run_tries_the_discriminators_and_writes_nothing(place, tmp_path):
    before, log = sorted(place.rglob("*")), tmp_path / "log"
    arguments = ["--config", place / "stage3.json", "--exp_name", "dry", "--dry_run"]
    never = ("model.loss.disc_start=50", "train.max_steps=50")
    assert warm.run(log, *arguments, *never) == 0, log.read_text()
    assert "d_loss" in log.read_text()
    assert "the discriminators never take part: train.max_steps 50 is not above" in log.read_text()
    assert sorted(place.rglob("*")) == before


def test_sounds_that_were_not_kept_are_named_before_the_first_step(place, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(place / "data", root / "data")
    config = tiny.write_config(root, 3)
    (root / "data/Tiny/pcm/clip 9.npy").unlink()  # one to validate with
    log = tmp_path / "log"
    assert warm.run(log, "--config", config, "--exp_name", "without") == 2
    assert "pcm/clip 9.npy: missing, the sound was not kept" in log.read_text()
    assert "keep_wavs=true" in log.read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preprocess.segment_frames=31", "segment_frames 31 must be at least 32, 1024 samples"),
        ("train.compile=true", "train.compile is not for model_type Vocoder"),
        ("model.discriminators.period_channels=40", "must be a multiple of 32, not 40"),
        ("model.loss.kl_weight=1", "a key of model_type AutoencoderKL, not of Vocoder"),
    ],
)
def test_settings_that_a_vocoder_cannot_have(place, override, message, tmp_path):
    log = tmp_path / "log"
    assert warm.run(log, "--config", place / "stage3.json", override) == 2
    assert message in log.read_text()


def test_it_is_loaded_by_its_run_frozen_and_within_full_scale(place):
    for folder in (run(place), run(place) / "final"):
        vocoder = load_vocoder(str(folder), tiny.MEL)
        assert isinstance(vocoder, TrainedVocos)
        wav = vocoder(torch.full((2, tiny.MEL.n_mel, 5), 4.0))
        assert wav.shape == (2, 5 * tiny.MEL.hop_size)
        assert wav.abs().max() == 1
        assert not wav.requires_grad


def test_a_vocoder_of_another_mel_is_refused_and_not_found(place):
    other = dataclasses.replace(tiny.MEL, fmax=1500.0)
    with pytest.raises(UserError, match=r"made for another mel .*fmax 2000.0 and 1500.0"):
        load_vocoder(str(run(place)), other)
    runs = str(place / "runs")
    assert newest_vocoder(runs, other) == GRIFFIN_LIM
    assert newest_vocoder(runs, tiny.MEL) == str(run(place) / "final")


def test_inference_takes_the_newest_and_says_so(place, trained, tmp_path, monkeypatch, capsys):
    logs = tmp_path / "runs"
    shutil.copytree(run(place), logs / "vocoder")
    model = f"--checkpoint_path={trained}/runs/ldm"
    where = [model, f"--log_dir={logs}", f"--output_dir={tmp_path}/out", "--device=cpu"]
    for more, name in (
        ([], f"{logs}/vocoder/final"),
        (["--vocoder=griffin_lim"], GRIFFIN_LIM),
    ):
        monkeypatch.setattr(sys, "argv", ["inference.py", "--text=a dog", *where, *more])
        inference.main()
        said = capsys.readouterr().err
        assert f"model: {trained}/runs/ldm/final\nvocoder: {name}\n" in said
    receipts = [read_json(tmp_path / f"out/000{number}.json") for number in (0, 1)]
    assert [r["vocoder"] for r in receipts] == [f"{logs}/vocoder/final", GRIFFIN_LIM]
    sounds = [(tmp_path / f"out/000{number}.wav").read_bytes() for number in (0, 1)]
    assert sounds[0] != sounds[1]
    assert len(sounds[0]) == len(sounds[1])
