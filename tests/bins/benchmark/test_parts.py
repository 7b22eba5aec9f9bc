"""Every part of the benchmark on tiny models: what it compares is what it says."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from bins.benchmark import audioldm, autoencoderkl, inference, measure, preprocess, synthetic
from bins.tta import benchmark
from modules.attention import SpatialTransformer
from modules.resnet import Norm
from tests import tiny
from utils.cli import run_main

CPU = torch.device("cpu")


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Of both stages, tiny, with a frozen T5 that is tiny as well."""
    small = {"vocab_size": 1100, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    monkeypatch.setattr(synthetic, "T5_BASE", small)
    monkeypatch.setattr(inference, "PLAIN_STEPS", 8)
    return str(tiny.write_config(tmp_path, 1)), str(tiny.write_config(tmp_path, 2))


def by_name(part) -> dict[str, measure.Line]:
    return {line.name: line for line in part.lines}


def test_stage_2_pays_for_the_unet_and_the_reference_for_all(configs, tmp_path):
    part = audioldm.measure(configs[1], configs[0], [], 1, tmp_path / "work")
    lines = by_name(part)
    ours, alone, reference = (
        lines[name] for name in (audioldm.OURS, audioldm.ALONE, audioldm.REFERENCE)
    )
    assert ours.gflop == pytest.approx(alone.gflop, rel=1e-6)  # the cache spares all else
    assert reference.gflop > 1.3 * ours.gflop
    assert all(line.seconds > 0 and line.clips == 4 for line in part.lines)
    assert part.ratios[0].value == pytest.approx(ours.seconds / alone.seconds)
    assert part.ratios[1].value == pytest.approx(reference.seconds / ours.seconds)


def test_attention_is_computed_twice_only_within_the_block():
    block = SpatialTransformer(32, 2, 8, 1, Norm(8, 1e-6))
    mask = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    text = block.text_keys_values(torch.randn(1, 3, 8), mask)
    x = torch.randn(1, 32, 2, 2, requires_grad=True)
    counted = []
    block.norm.register_forward_hook(lambda *_: counted.append(1))
    with audioldm.attention_computed_twice():
        block(x, text).sum().backward(retain_graph=True)
    assert len(counted) == 2
    block(x, text).sum().backward()
    assert len(counted) == 3


def test_stage_1_trains_both_networks_either_way(configs, tmp_path):
    part = autoencoderkl.measure(configs[0], [], 1, tmp_path / "work")
    ours, plain = (by_name(part)[name] for name in (autoencoderkl.OURS, autoencoderkl.PLAIN))
    # One look of the discriminator at a batch serves both networks.
    assert 0.5 * plain.gflop < ours.gflop < plain.gflop
    assert part.ratios[0].value == pytest.approx(plain.seconds / ours.seconds)


def test_inference_pays_for_its_steps(configs, tmp_path):
    part = inference.measure(configs[1], configs[0], [], 1, tmp_path / "work", CPU)
    ours, plain = part.lines
    assert ours.gflop > 0
    assert part.ratios[0].value == pytest.approx(plain.seconds / ours.seconds)


def test_preprocessing_is_run_for_real(tmp_path):
    config = "egs/tta/autoencoderkl/exp_config.json"
    part = preprocess.measure(config, [], 3, 1, tmp_path, CPU)
    folder = tmp_path / synthetic.DATASET
    assert len(list((folder / "mel").glob("*.npy"))) == 3
    ours, floor = part.lines
    assert part.ratios[0].value == pytest.approx(floor.seconds / ours.seconds)


def test_flops_are_those_of_a_known_product():
    layer = nn.Linear(8, 16, bias=False)
    (line,) = measure.alternate({"linear": lambda: layer(torch.ones(4, 8))}, 4, 2, CPU)
    assert line.gflop == pytest.approx(2 * 4 * 8 * 16 / 1e9)
    assert 0 < line.seconds < 1
    assert line.gib > 0


def test_the_command_prints_a_table_and_writes_json(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(benchmark, "CLIPS_PER_WORKER", 2)
    monkeypatch.setattr(measure, "MATRIX", 64)
    given = ["preprocess", "--num_workers", "1", "--device", "cpu", "--json", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, given)])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    run_main(benchmark.main)
    assert "(to reach: at least 0.8)" in capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert [part["name"] for part in report["parts"]] == ["preprocess"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vae"], "'vae' is no part; there are preprocess, autoencoderkl, audioldm, inference"),
        (["--rounds", "0"], "--rounds: 0 must be at least 1"),
        (["inference", "--device", "toaster"], "--device toaster: not usable here"),
    ],
)
def test_what_is_refused(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit):
        run_main(benchmark.main)
    assert said in capsys.readouterr().err
