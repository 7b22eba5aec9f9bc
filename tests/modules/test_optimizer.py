"""The optimizer's step beside torch's own parts, and the learning rate beside torch's schedules."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import modules.optimizer
from config.schema import AdamConfig
from modules.optimizer import (
    Muon,
    adamw,
    gradient_norm,
    learning_rate,
    make_optimizer,
    optimizer_step,
    orthogonalised,
)
from utils.checkpoint import optimizer_tensors, restore_optimizer
from utils.errors import UserError

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


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (20, 20)])
def test_muons_step_is_the_nearest_half_orthogonal_matrix_but_for_its_scale(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    # The coefficients give singular values of 0.7 to 1.2 along the same directions.
    inner = u.T @ found @ v.T
    assert inner.diagonal().min() > 0.65
    assert inner.diagonal().max() < 1.25
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(24, 216), (216, 24), (24, 48), (24, 30)])
@pytest.mark.parametrize("weakest", [0, -6])
def test_a_long_matrixs_step_is_newton_schulz_written_out(shape, weakest):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    matrix = u @ torch.diag(s * torch.logspace(0, weakest, len(s))) @ v
    sizes = torch.linalg.svdvals(matrix) / matrix.norm()
    for _ in range(5):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    expected = u @ torch.diag(sizes) @ v
    found = orthogonalised(matrix.float()).double()
    # Of a row that is a thousandth of the longest, float32 keeps few digits of its square.
    assert (found - expected).norm() < 2e-3 * expected.norm()


def test_muon_multiplies_in_float32_proper_and_leaves_the_setting_as_it_was(monkeypatch):
    weight, seen = nn.Parameter(torch.eye(16, 40)), []
    weight.grad = torch.ones_like(weight)
    real = modules.optimizer.orthogonalised

    def looks(matrix):
        seen.append(torch.get_float32_matmul_precision())
        return real(matrix)

    monkeypatch.setattr(modules.optimizer, "orthogonalised", looks)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as the trainings have it
    try:
        optimizer_step(Muon([weight], [], ADAM), 1e-2, torch.tensor(1.0), 1.0, torch.tensor(0.0))
        assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "high")
    finally:
        torch.set_float32_matmul_precision(before)


def test_muon_is_torchs_but_for_its_bfloat16():
    torch.manual_seed(0)
    ours = nn.Linear(24, 32, bias=False)
    theirs = copy.deepcopy(ours)
    adam = AdamConfig(1e-2, [0.9, 0.999], 1e-8, 0.1)
    mine = Muon(ours.parameters(), [], adam)
    plain = torch.optim.Muon(
        theirs.parameters(), lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(6):
        x = torch.randn(5, 24)
        ours(x).square().sum().backward()
        theirs(x).square().sum().backward()
        norm = gradient_norm(ours.parameters())
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer_step(mine, 1e-2, norm, 1.0, torch.tensor(0.0))
        plain.step()
        plain.zero_grad()
    start = nn.Linear(24, 32, bias=False).weight  # of the same size
    assert (ours.weight - theirs.weight).norm() < 0.02 * start.norm()


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw():
    torch.manual_seed(0)

    def network():
        torch.manual_seed(1)
        return nn.ModuleList(
            [nn.Conv2d(16, 32, 3), nn.Embedding(40, 16), nn.Conv2d(1, 16, 3), nn.GroupNorm(4, 32)]
        )

    train = SimpleNamespace(optimizer="muon", adam=ADAM)
    ours, theirs = network(), network()
    mine, plain = make_optimizer(ours, train), adamw(theirs.parameters(), ADAM)
    assert [weight.shape for weight in mine.matrices] == [(32, 16, 3, 3)]
    for step in range(3):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.sin(torch.arange(one.numel()) + step).view_as(one)
            other.grad = one.grad.clone()
        optimizer_step(mine, 1e-2, torch.tensor(1.0), 1.0, torch.tensor(0.0))
        optimizer_step(plain, 1e-2, torch.tensor(1.0), 1.0, torch.tensor(0.0))
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) == (name != "0.weight")


def test_muon_goes_on_from_a_checkpoint_and_leaves_a_step_out():
    weights = [nn.Parameter(torch.eye(16, 20)), nn.Parameter(torch.ones(3))]
    others = [nn.Parameter(w.detach().clone()) for w in weights]
    mine, again = Muon(weights, [], ADAM), Muon(others, [], ADAM)

    def step(optimizer, parameters, number, skip=0.0):
        for weight in parameters:
            weight.grad = torch.cos(torch.arange(weight.numel()) * number).view_as(weight)
            weight.grad[..., 0] += float("nan") if skip else 0.0
        norm = gradient_norm(parameters)
        optimizer_step(optimizer, 1e-2, norm, 1.0, torch.tensor(skip))

    step(mine, weights, 1)
    kept = [w.detach().clone() for w in weights]
    step(mine, weights, 2, skip=1.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, kept, strict=True))
    for weight, other in zip(weights, others, strict=True):
        other.data.copy_(weight)
    moments = {k: v.clone() for k, v in optimizer_tensors(mine).items()}
    restore_optimizer(again, moments, Path())
    step(mine, weights, 3)
    step(again, others, 3)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    assert not torch.equal(weights[0], kept[0])


@pytest.mark.parametrize("began", ["adamw", "muon", "muon of other weights", "adamw of more"])
def test_moments_of_another_optimizer_or_other_weights_are_refused(began):
    """Taken as they are, they make weights of NaN, or a KeyError in the midst of a step."""

    def made(optimizer, *shapes):
        weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
        kind = Muon(weights, [], ADAM) if optimizer == "muon" else adamw(weights, ADAM)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer_step(kind, 1e-2, torch.tensor(1.0), 1.0, torch.tensor(0.0))
        return kind

    first, goes_on = {
        "adamw": (made("adamw", (16, 16)), made("muon", (16, 16))),
        "muon": (made("muon", (16, 16)), made("adamw", (16, 16))),
        "muon of other weights": (made("muon", (16, 16)), made("muon", (16, 20))),
        "adamw of more": (made("adamw", (3,), (3,)), made("adamw", (3,))),
    }[began]
    moments = {name: value.clone() for name, value in optimizer_tensors(first).items()}
    kind = type(goes_on).__name__
    with pytest.raises(UserError, match=f"^adam_vae.safetensors: its moments .* of {kind} for"):
        restore_optimizer(goes_on, moments, Path("adam_vae.safetensors"))


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
