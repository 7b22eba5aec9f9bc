import math

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from modules.ema import EACH_STEP, EMA, EVERY


class Weights(nn.Module):
    def __init__(self, *values: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.held = nn.ParameterList(
            nn.Parameter(torch.full((2, 3), value, dtype=dtype)) for value in values
        )

    def fill(self, *values: float) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.held, values, strict=True):
                parameter.fill_(value)


def test_each_step_is_the_written_formula():
    weights, expected = Weights(0.5), 0.5
    ema = EMA(weights, decay=0.6)
    for step in range(12):
        weights.fill(math.sin(step))
        ema.update(step)
        d = min(0.6, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * math.sin(step)
        assert ema.shadow["held.0"].mean().item() == pytest.approx(expected, abs=1e-6)


def test_it_is_the_average_of_diffusers_from_its_second_step_on():
    """diffusers' first step copies the weights."""
    weights = Weights(0.0, 1.0)
    theirs = EMAModel(weights.parameters(), decay=0.97)
    weights.fill(0.3, 0.7)
    theirs.step(weights.parameters())
    ours = EMA(weights, decay=0.97)
    for step in range(1, 40):
        weights.fill(math.sin(step), math.cos(step))
        theirs.step(weights.parameters())
        ours.update(step)
        for mine, other in zip(ours.shadow.values(), theirs.shadow_params, strict=True):
            torch.testing.assert_close(mine, other)


def test_late_steps_are_averaged_ten_at_a_time_and_for_all_ten():
    weights, decay, start = Weights(0.0), 0.99, EACH_STEP - 20
    ema, each = EMA(weights, decay), 0.0
    for step in range(start, EACH_STEP + 50 * EVERY):
        value = step / EACH_STEP - 1
        weights.fill(value)
        before = ema.shadow["held.0"].clone()
        ema.update(step)
        each = decay * each + (1 - decay) * value
        averaged = step < EACH_STEP or step % EVERY == EVERY - 1
        assert torch.equal(before, ema.shadow["held.0"]) != averaged
    # Where the weights change slowly, that is the average of each step up to a step of theirs.
    assert ema.shadow["held.0"].mean().item() == pytest.approx(each, abs=EVERY / EACH_STEP)
    assert each > 30 * EVERY / EACH_STEP


def test_ten_late_steps_at_once_keep_decay_to_the_tenth():
    weights = Weights(0.0)
    ema = EMA(weights, decay=0.9)
    weights.fill(1.0)
    for step in range(EACH_STEP, EACH_STEP + EVERY):
        ema.update(step)
    assert ema.shadow["held.0"].mean().item() == pytest.approx(1 - 0.9**10, abs=1e-6)


def test_the_average_depends_on_steps_alone_so_a_resumed_run_has_the_same():
    weights = Weights(0.0)
    whole = EMA(weights, decay=0.9)
    for step in range(EACH_STEP - 5, EACH_STEP + 33):
        weights.fill(math.sin(step))
        if step == EACH_STEP + 7:  # no step that is averaged
            resumed = EMA(weights, decay=0.9)
            resumed.load({name: tensor.clone() for name, tensor in whole.shadow.items()})
        whole.update(step)
        if step >= EACH_STEP + 7:
            resumed.update(step)
    assert torch.equal(whole.shadow["held.0"], resumed.shadow["held.0"])


def test_small_changes_of_half_precision_weights_are_not_lost():
    weights = Weights(1.0, dtype=torch.bfloat16)
    ema = EMA(weights, decay=0.9999)
    weights.fill(1.0078125)
    ema.update(10**6 - 1)
    assert ema.shadow["held.0"].dtype == torch.float32
    kept = 0.9999**EVERY
    torch.testing.assert_close(ema.shadow["held.0"], torch.full((2, 3), 1 + 0.0078125 * (1 - kept)))


def test_swapped_gives_the_average_and_then_the_weights_back():
    weights = Weights(2.0)
    ema = EMA(weights, decay=0.5)
    weights.fill(4.0)
    (held,) = weights.held
    storage = held.data_ptr()

    def fail_within() -> None:
        with ema.swapped():
            assert (held == 2.0).all()
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert (held == 4.0).all()
    assert (ema.shadow["held.0"] == 2.0).all()
    assert held.data_ptr() == storage, "optimizers and compiled graphs hold on to the storage"


def test_the_shadow_keeps_the_memory_format():
    network = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    assert EMA(network, 0.9).shadow["weight"].stride() == network.weight.stride()
