"""The loss falls: both stages learn eight clips by heart, whatever the details of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import golden, tiny
from tests.compare import scalars

STEPS = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Eight clips of smooth patterns: noise in them could not be learnt in time."""
    root = tmp_path_factory.mktemp("learns")
    folder = tiny.write_data(root)
    band, frame = np.mgrid[: tiny.MEL.n_mel, : tiny.FRAMES]
    for number in range(8):
        pattern = -5 + 2 * np.sin(0.3 * (number + 1) * frame + 0.5 * band)
        np.save(folder / "mel" / f"clip {number}.npy", pattern.astype(np.float32))
    for stage in (1, 2):
        tiny.write_config(root, stage, max_steps=STEPS, save_checkpoints_steps=STEPS)
    return root


@pytest.mark.parametrize(
    ("stage", "curve", "first", "bar"), [(1, "rec_loss", 1.2, 0.6), (2, "loss", 0.9, 0.35)]
)
def test_the_loss_falls_far_below_that_of_a_guess(place, stage, curve, first, bar):
    """A mel that is guessed by its mean is 1.27 off; a guess of no noise at all costs 1.

    Measured with seven seeds: 0.24 to 0.40 in stage 1, 0.17 to 0.20 in stage 2.
    """
    settings = ("batch_size=8", "adam.lr=3e-3", "save_summary_steps=1", "valid_interval=1000")
    run = golden.train(place, stage, f"run{stage}", *(f"train.{setting}" for setting in settings))
    losses = [value for _, value in scalars(run)[f"train/{curve}"]]
    assert len(losses) == STEPS
    assert losses[0] > first
    assert np.mean(losses[-10:]) < bar
