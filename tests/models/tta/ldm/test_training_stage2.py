"""Stage 2's part of the loop: what it draws, and what it makes of a batch."""

import dataclasses
import itertools

import pytest
import torch

from bins.tta.train import make_task
from models.base.accelerator import make_accelerator
from models.tta.ldm.training import AudioLDMTraining
from tests import tiny
from utils.seeds import generator


@pytest.fixture(scope="module")
def config(trained):
    return tiny.load(trained / "stage2.json", {"model": {"caption_dropout": 0.3}})


@pytest.fixture(scope="module")
def task(config, tmp_path_factory) -> AudioLDMTraining:
    torch.manual_seed(0)
    task = make_task(config, make_accelerator(config), None)
    task.prepare_data(tmp_path_factory.mktemp("cache"))
    return task


def timesteps(task, step: int, clips: int) -> torch.Tensor:
    return task._draw(generator("cpu", 1, "test", step), clips)[0]


def test_the_timesteps_of_a_batch_lie_at_equal_distances(task):
    for step in range(20):
        drawn = timesteps(task, step, 8)
        assert drawn.dtype == torch.int64
        assert 0 <= drawn.min() <= drawn.max() < 1000
        gaps = drawn.sort().values.diff()
        assert gaps.min() >= 124
        assert gaps.max() <= 126


@pytest.mark.parametrize("clips", [1, 4])
def test_each_clip_s_timestep_is_uniform(task, clips):
    drawn = torch.stack([timesteps(task, step, clips) for step in range(2000)])
    for one in drawn.T:
        shares = one.float().histc(10, 0, 1000) / len(one)
        assert (shares - 0.1).abs().max() < 0.03  # 4 standard deviations


def test_captions_are_dropped_for_the_empty_prompt_at_their_rate(task):
    empty, _ = task.text_encoder.tokenize([""])
    batches = itertools.islice(task.batches(0), 250)
    rows = [row for batch in batches for row in batch["token_ids"]]
    dropped = [torch.equal(row, empty[0]) for row in rows]
    assert sum(dropped) / len(dropped) == pytest.approx(0.3, abs=0.06)


def test_a_step_s_loss_does_not_depend_on_its_micro_batches(trained, config, tmp_path):
    def loss(micro_batches: int) -> float:
        train = dataclasses.replace(config.train, gradient_accumulation_steps=micro_batches)
        cut = dataclasses.replace(config, train=train)
        newest = trained / "runs/ldm/checkpoints/step-00000006"
        task = make_task(cut, make_accelerator(cut), newest)
        task.prepare_data(tmp_path)
        numbered = zip(range(micro_batches), task.batches(3), strict=False)
        losses = [next(task.losses(batch, 3, micro)).value for micro, batch in numbered]
        return torch.stack(losses).mean().item()

    assert loss(1) == pytest.approx(loss(4), rel=1e-5)


def test_validation_does_not_depend_on_what_a_clip_is_batched_with(task):
    together = task._draw_for_clips(range(3))
    for number in range(3):
        alone = task._draw_for_clips(range(number, number + 1))
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one[0], other[number])
