import pytest
import torch
from torch import nn

from modules.ema import EMA, TURNS, even_shares


def parameters(*values: float, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2, 3), value, dtype=dtype)) for value in values]


def test_constant_weights_give_the_closed_form():
    held = parameters(0.0, 1.0)
    ema = EMA(held, decay=0.9)
    with torch.no_grad():
        held[0].fill_(1.0)
        held[1].fill_(3.0)
    late = 10**6  # long after the warm-up
    for step in range(late, late + 2 * TURNS):
        ema.update(held, step)
    kept = 0.9 ** (2 * TURNS)
    torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 - kept))
    torch.testing.assert_close(ema.shadow[1], torch.full((2, 3), 3 - 2 * kept))


def test_it_is_the_average_at_every_step_of_a_weight_that_changes_slowly():
    held, steps, decay = parameters(0.0), 3000, 0.99
    ema, every = EMA(held, decay), 0.0
    for step in range(steps):
        with torch.no_grad():
            held[0].fill_(step / steps)
        ema.update(held, step)
        kept = min(decay, (1 + step) / (10 + step))
        every = kept * every + (1 - kept) * step / steps
    # Ten steps of a slope are the most that either can be ahead.
    assert ema.shadow[0].mean().item() == pytest.approx(every, abs=TURNS / steps)


def test_the_first_turns_forget_the_start_faster():
    held = parameters(0.0)
    ema = EMA(held, decay=0.9999)
    with torch.no_grad():
        held[0].fill_(1.0)
    kept = 1.0
    for step in range(2 * TURNS + 1):  # the only parameter has the first turn of each ten
        ema.update(held, step)
        kept *= (1 + step) / (10 + step)
        if step % TURNS == 0:
            torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 - kept))


def test_every_parameter_has_its_turn_and_turns_cost_the_same():
    sizes = [1024 * number for number in range(1, 200)]
    shares = even_shares(sizes, TURNS)
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    sums = [sum(sizes[number] for number in share) for share in shares]
    assert max(sums) < 1.02 * min(sums)


def test_small_changes_of_half_precision_weights_are_not_lost():
    held = parameters(1.0, dtype=torch.bfloat16)
    ema = EMA(held, decay=0.9999)
    with torch.no_grad():
        held[0].fill_(1.0078125)
    ema.update(held, step=10**6)
    assert ema.shadow[0].dtype == torch.float32
    kept = 0.9999**TURNS
    torch.testing.assert_close(ema.shadow[0], torch.full((2, 3), 1 + 0.0078125 * (1 - kept)))


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
