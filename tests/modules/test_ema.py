import pytest
import torch
from torch import nn

from modules.ema import EMA


def parameters(*values: float, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2, 3), value, dtype=dtype)) for value in values]


def test_constant_weights_give_the_closed_form():
    held = parameters(0.0, 1.0)
    ema = EMA(held, decay=0.9)
    with torch.no_grad():
        held[0].fill_(1.0)
        held[1].fill_(3.0)
    for _ in range(5):
        ema.update(held, step=10**6)  # long after the warm-up
    torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 - 0.9**5))
    torch.testing.assert_close(ema.shadow[1], torch.full((2, 3), 3 - 2 * 0.9**5))


def test_the_first_steps_forget_the_start_faster():
    held = parameters(0.0)
    ema = EMA(held, decay=0.9999)
    with torch.no_grad():
        held[0].fill_(1.0)
    kept = 1.0
    for step in range(8):
        ema.update(held, step)
        kept *= (1 + step) / (10 + step)
        torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 - kept))


def test_small_changes_of_half_precision_weights_are_not_lost():
    held = parameters(1.0, dtype=torch.bfloat16)
    ema = EMA(held, decay=0.9999)
    with torch.no_grad():
        held[0].fill_(1.0078125)
    ema.update(held, step=10**6)
    assert ema.shadow[0].dtype == torch.float32
    torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 + 0.0078125e-4))


def test_swapped_gives_the_average_and_then_the_weights_back():
    held = parameters(2.0)
    ema = EMA(held, decay=0.5)
    with torch.no_grad():
        held[0].fill_(4.0)
    storage = held[0].data_ptr()

    def fail_within() -> None:
        with ema.swapped(held):
            assert (held[0] == 2.0).all()
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert (held[0] == 4.0).all()
    assert (ema.shadow[0] == 2.0).all()
    assert held[0].data_ptr() == storage, "optimizers and compiled graphs hold on to the storage"


def test_the_shadow_keeps_the_memory_format():
    weight = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last).weight
    assert EMA([weight], 0.9).shadow[0].stride() == weight.stride()
