"""The optimizer's step beside torch's own parts, and the learning rate beside torch's schedules."""

import copy

import pytest
import torch
from torch import nn

from config.schema import AdamConfig
from modules.optimizer import adamw, gradient_norm, learning_rate, optimizer_step

ADAM = AdamConfig(1e-2, [0.9, 0.999], 1e-8, 1e-2)


@pytest.mark.parametrize("largest", [0.1, 1e6])
def test_a_step_is_clipping_and_then_adamw(largest):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    theirs, x = copy.deepcopy(ours), torch.randn(3, 4)
    mine = adamw(ours.parameters(), ADAM)
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=1e-2, foreach=False)
    for _ in range(5):
        ours(x).square().sum().backward()
        theirs(x).square().sum().backward()
        norm = gradient_norm(ours.parameters())
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), largest)
        torch.testing.assert_close(norm, expected)
        optimizer_step(mine, 1e-2, norm, largest, torch.tensor(0.0))
        plain.step()
        plain.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_the_learning_rate_is_that_of_transformers(schedule, warmup):
    """Theirs begins to warm up at 0, ours at the first step's share of the rate."""
    from types import SimpleNamespace

    from transformers import get_scheduler

    steps, adam = 20, ADAM
    train = SimpleNamespace(
        adam=adam, warmup_steps=warmup, max_steps=warmup + steps, lr_schedule=schedule
    )
    ours = [learning_rate(train, step) for step in range(warmup + steps)]
    assert ours[:warmup] == pytest.approx([adam.lr * (n + 1) / 4 for n in range(warmup)])
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=adam.lr)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=steps)
    for rate in ours[warmup:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
