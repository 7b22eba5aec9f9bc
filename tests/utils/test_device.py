"""What depends on the device at hand."""

import platform
from pathlib import Path

import pytest
import torch
from torch import nn

from utils.device import fits, graphed, precision, to_device

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_a_setting_of_precision_is_kept_and_auto_asks_the_device():
    assert precision("no", CPU) == "no"
    assert precision("bf16", CPU) == "bf16"
    assert precision("auto", torch.device("mps")) == "no"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="is about x86's instructions")
@pytest.mark.parametrize(("has", "expected"), [(False, "no"), (True, "bf16")])
def test_a_cpu_that_only_emulates_bf16_trains_in_float32(monkeypatch, has, expected):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert precision("auto", CPU) == expected


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux's list of instructions")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="is about x86's instructions")
def test_auto_takes_bf16_where_the_system_lists_its_instructions():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert precision("auto", CPU) == ("bf16" if "avx512_bf16" in flags else "no")


def test_on_a_cpu_nothing_is_graphed_resident_or_copied():
    assert graphed(abs, torch.ones(1)) is abs
    assert not fits(1, CPU)
    tensor = torch.ones(1)
    assert to_device(tensor, CPU) is tensor


@NEEDS_GPU
@torch.no_grad()
def test_a_graph_gives_what_its_function_gives_and_keeps_results_apart():
    layer = nn.Linear(4, 4, device="cuda").requires_grad_(False)

    def function(x, more):
        return layer(x) + more

    def inputs(seed):
        torch.manual_seed(seed)
        return torch.randn(2, 4, device="cuda"), torch.randn(4, device="cuda")

    graph = graphed(function, *inputs(0))
    results = [graph(*inputs(seed)) for seed in range(3)]
    for seed, result in enumerate(results):
        torch.testing.assert_close(result, function(*inputs(seed)))


@NEEDS_GPU
def test_a_batch_is_moved_without_waiting():
    moved = to_device(torch.arange(3), torch.device("cuda"))
    assert moved.tolist() == [0, 1, 2]
