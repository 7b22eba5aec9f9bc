"""The optimizer's step beside torch's own parts, and the learning rate beside torch's schedules."""

import copy
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("schedule", "warmup", "shares"),
    [
        ("constant", 0, [1, 1, 1, 1, 1, 1]),
        ("constant", 3, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", 0, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("linear", 2, [1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", 0, [1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
        ("cosine", 2, [1 / 2, 1, 1, 0.8535534, 0.5, 0.1464466]),
        ("cosine", 6, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]),
    ],
)
def test_the_learning_rate_of_each_of_six_steps(schedule, warmup, shares):
    train = SimpleNamespace(
        adam=SimpleNamespace(lr=3e-4), warmup_steps=warmup, max_steps=6, lr_schedule=schedule
    )
    rates = [learning_rate(train, step) for step in range(6)]
    assert rates == pytest.approx([3e-4 * share for share in shares], rel=1e-6)


@pytest.mark.parametrize(("schedule", "end"), [("constant", 1), ("linear", 0), ("cosine", 0)])
def test_where_the_learning_rate_ends(schedule, end):
    train = SimpleNamespace(
        adam=SimpleNamespace(lr=1.0), warmup_steps=100, max_steps=100_000, lr_schedule=schedule
    )
    assert learning_rate(train, 0) == 0.01  # a step that learns nothing would be wasted
    assert learning_rate(train, 99) == learning_rate(train, 100) == 1
    assert learning_rate(train, 99_999) == pytest.approx(end, abs=2e-5)
    assert learning_rate(train, 100_000) == pytest.approx(end, abs=1e-12)
