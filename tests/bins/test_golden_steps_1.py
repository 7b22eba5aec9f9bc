"""Stage 1: steps of the real program against the papers' equations in tests/reference.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import golden


@dataclass
class Case:
    """Settings, and what has to happen under them for the case to be worth its name."""

    steps: int
    changes: tuple[str, ...]
    happened: Callable[[object], bool]


NO_CRITIC = "model.loss.disc_start=100"
CASES = {
    "without a discriminator": Case(
        4,
        (NO_CRITIC, "model.loss.kl_weight=0.01", "model.loss.logvar_init=0.5"),
        lambda r: not r.critic.norms and r.seen[0]["kl_loss"] > 1,
    ),
    "with the level of patches": Case(
        4,
        (NO_CRITIC, "model.loss.level_weight=0.7"),
        lambda r: not r.critic.norms,
    ),
    "disc_factor 0 is without one": Case(
        3,
        ("model.loss.disc_factor=0", "model.loss.disc_start=0"),
        lambda r: not r.critic.norms,
    ),
    "adaptive weight from disc_start on": Case(
        4,
        (
            *("model.loss.disc_start=1", "model.loss.disc_weight=0.7"),
            *("model.loss.kl_weight=0.001", "train.adam.lr=0.03"),
        ),
        # The hinge is at work where real logits are above 1, and others below -1.
        lambda r: (
            len(r.critic.norms) == 3
            and max(seen["largest_real"] for seen in r.seen[1:]) > 1.1
            and min(seen["least_fake"] for seen in r.seen[1:]) < -1.1
        ),
    ),
    "clamped weight and disc_factor": Case(
        4,
        (
            *("model.loss.disc_start=0", "model.loss.disc_factor=0.6"),
            "model.loss.max_adapt_d_weight=0.5",
        ),
        lambda r: r.seen[0]["d_weight"] == 0 and r.seen[1]["d_weight"] == 0.5,
    ),
    "the decoder alone, from noisy latents": Case(
        4,
        (
            *("model.loss.disc_start=1", "model.loss.decoder_alone=true"),
            f"train.init_from=ROOT/runs/{golden.STARTED}",
            *("model.loss.decoder_noise=0.8", "model.loss.kl_weight=0.01"),
        ),
        lambda r: r.seen[3]["kl_loss"] > 1 and len(r.critic.norms) == 3,
    ),
    "gradients clipped, each network's by its own norm": Case(
        4,
        ("model.loss.disc_start=0", "train.grad_clip=0.3"),
        lambda r: min(r.generator.norms) > 1 and min(r.critic.norms) > 0.35,
    ),
    "two micro-batches": Case(
        3,
        ("model.loss.disc_start=0", "train.gradient_accumulation_steps=2"),
        lambda r: r.seen[1]["d_weight"] > 0,
    ),
    "warm-up, then a line": Case(
        5,
        (NO_CRITIC, "train.warmup_steps=2", "train.lr_schedule=linear"),
        lambda r: rates(r) == pytest.approx([0.5, 1, 1, 2 / 3, 1 / 3]),
    ),
    "warm-up, then a cosine": Case(
        5,
        (NO_CRITIC, "train.warmup_steps=1", "train.lr_schedule=cosine"),
        lambda r: rates(r) == pytest.approx([1, 1, 0.853553, 0.5, 0.146447], rel=1e-5),
    ),
}


def rates(reference) -> list[float]:
    """Learning rates as shares of the largest."""
    return [seen["learning_rate"] / golden.TRAIN["adam"]["lr"] for seen in reference.seen]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("golden1")
    golden.write_place(root)
    golden.train(root, 1, golden.STARTED, *golden.STILL)
    return root


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_papers(place, name):
    case = CASES[name]
    steps = (f"train.max_steps={case.steps}", f"train.save_checkpoints_steps={case.steps}")
    changes = [change.replace("ROOT", str(place)) for change in case.changes]
    run = golden.train(place, 1, name, *changes, *steps)
    reference = golden.reference_1(place, run)
    began = golden.weights_1(reference)
    for step in range(case.steps):
        reference.step(step)
    assert case.happened(reference)
    expected = golden.weights_1(reference)
    found = golden.learnt_1(run, case.steps)
    assert found.keys() == expected.keys()
    golden.assert_reached(found, expected, began)
    golden.assert_curves(run, reference.seen)
