"""A HiFi-GAN trained here: from published weights, saved, loaded and gone on with."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.vocoders.hifigan import HiFiGAN
from models.vocoders.load import load_vocoder
from models.vocoders.saved import VocoderSettings
from tests import golden, tiny
from tests.models.tta.convert.small_models import write_vocoder
from utils.errors import UserError

SHAPE = {
    "upsample_initial_channel": 16,
    "upsample_rates": [8, 4],
    "upsample_kernel_sizes": [15, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}
STILL = ("train.adam.lr=1e-30", "train.max_steps=1", "train.ema_decay=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Tiny data, the config of a HiFi-GAN for it, and one in transformers' format to start from."""
    root = tmp_path_factory.mktemp("hifigan")
    golden.write_place(root)
    path = root / "stage3.json"
    config = json.loads(path.read_text())
    config["model"] |= {"generator": "hifigan", "hifigan": SHAPE}
    path.write_text(json.dumps(config))
    write_vocoder(root / "published")
    return root


def test_it_starts_from_published_weights_and_sounds_like_them(place):
    start = load_vocoder(str(place / "published"), tiny.MEL)
    run = golden.train(place, 3, "still", f"train.init_from={place}/published", *STILL)
    trained = load_vocoder(str(run), tiny.MEL)
    assert isinstance(trained, HiFiGAN)
    mel = torch.from_numpy(np.random.default_rng(0).normal(-4, 1, (2, tiny.MEL.n_mel, 9))).float()
    wav = trained(mel)
    assert wav.shape == (2, 9 * tiny.MEL.hop_size)
    assert wav.std() > 0.01
    torch.testing.assert_close(wav, start(mel), rtol=0, atol=1e-5)
    assert "starts from the weights in" in (run / "log.txt").read_text()


def test_all_of_it_learns_and_a_run_that_was_stopped_ends_as_one_that_was_not(place):
    settings = [f"train.{x}" for x in ("ema_decay=0.5", "lr_schedule=constant")]
    settings.append("train.save_checkpoints_steps=2")
    whole = golden.train(place, 3, "whole", *settings, "train.max_steps=4")
    golden.train(place, 3, "parts", *settings, "train.max_steps=2")
    parts = golden.train(place, 3, "parts", *settings, "train.max_steps=4")
    began = load_file(golden.checkpoint(whole, 2) / "learning.safetensors")
    ended = [
        load_file(golden.checkpoint(run, 4) / "learning.safetensors") for run in (whole, parts)
    ]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
    learns = [name for name in began if name.startswith("generator.generator.")]
    fixed = {"generator.generator.mean", "generator.generator.scale"}
    same = {name for name in learns if torch.equal(began[name], ended[0][name])}
    assert same == fixed
    averages = [load_file(run / "final/vocoder.safetensors") for run in (whole, parts)]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_a_start_that_does_not_fit_is_named(place):
    for stage_changes, message in (
        (("model.hifigan.upsample_initial_channel=32",), "published"),
        (("model.generator=vocos",), "--config egs/tta/vocoder/exp_config_hifigan.json"),
    ):
        with pytest.raises(AssertionError, match=message):
            golden.train(place, 3, "no", f"train.init_from={place}/published", *stage_changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsample_rates": [8, 8]}, r"upsample_rates \[8, 8\] must multiply to .*hop_size 32"),
        ({"upsample_rates": [32]}, "must have as many entries"),
        ({"upsample_kernel_sizes": [15, 3]}, "upsample_kernel_sizes 3 must be at least its rate"),
        ({"upsample_initial_channel": 18}, "upsample_initial_channel 18 must be a multiple of 4"),
    ],
)
def test_shapes_that_it_cannot_have(place, changes, message):
    with pytest.raises(UserError, match=message):
        tiny.load(place / "stage3.json", {"model": {"hifigan": changes}})


def test_the_shipped_shape_is_v1_as_published():
    """arXiv:2010.05646, table 1: 13.92 M parameters; 256 samples a frame."""
    config = tiny.load(tiny.ROOT / "egs/tta/vocoder/exp_config_hifigan.json")
    assert math.prod(config.model.hifigan.upsample_rates) == config.preprocess.hop_size == 256
    generator = VocoderSettings.of(config).make().frozen().generator
    assert sum(p.numel() for p in generator.parameters()) == 13_926_017
