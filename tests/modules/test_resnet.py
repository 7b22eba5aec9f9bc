import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.resnet import Upsample
from utils.device import memory_format

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
GPU = pytest.param("cuda", marks=NEEDS_GPU)


@pytest.mark.parametrize("size", [(6, 10), (5, 10), (6, 9), (5, 9)])
def test_upsampling_is_to_the_nearest_neighbour(size):
    upsample = Upsample(4)
    x = torch.randn(2, 4, 3, 5)
    expected = upsample.conv(F.interpolate(x, size=size, mode="nearest"))
    assert torch.equal(upsample(x, size), expected)


class UpBlock(nn.Module):
    """What a network has around an upsampling, as little as shows the fault that it avoids."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(8, 8, 3, padding=1)
        self.upsample = Upsample(8)
        self.after = nn.Sequential(nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.upsample(self.before(x), (2 * x.shape[2], 2 * x.shape[3] - 1)))


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=NEEDS_COMPILER), GPU])
def test_compiled_in_bf16_its_gradients_are_those_of_float32(device):
    torch.manual_seed(0)
    where = {"device": device, "memory_format": memory_format(torch.device(device))}
    block, x = UpBlock().to(**where), torch.randn(2, 8, 6, 8).to(**where).requires_grad_()
    weights = [x, *block.parameters()]

    def gradients(network, bf16: bool) -> tuple[torch.Tensor, ...]:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            out = network(x)
        return torch.autograd.grad(out.float().square().mean(), weights)

    compiled = gradients(torch.compile(block), True)
    for found, expected in zip(compiled, gradients(block, False), strict=True):
        assert (found - expected).norm() < 0.1 * expected.norm()
