"""What a model brings to the loop: the shipped ones have it all, and the loop asks for no more."""

from __future__ import annotations

import inspect
import itertools
import pkgutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from bins.tta.train import TASKS, loop, make_task
from models.base.accelerator import make_accelerator
from models.base.dry_run import DryRun
from models.base.task import Loss, Sample, Task
from modules.optimizer import adamw
from tests import tiny

METHODS = {
    name: member
    for name, member in vars(Task).items()
    if inspect.isfunction(member) and not name.startswith("_")
}


@pytest.mark.parametrize("model_type", TASKS)
def test_a_shipped_model_has_the_methods_of_a_task(model_type):
    task = pkgutil.resolve_name(TASKS[model_type])
    assert len(METHODS) == 10
    for name, method in METHODS.items():
        ours = inspect.signature(getattr(task, name)).parameters
        assert list(ours) == list(inspect.signature(method).parameters), name


@pytest.mark.parametrize("stage", [1, 2])
def test_a_shipped_model_has_the_attributes_of_a_task(trained, stage):
    config = tiny.load(trained / f"stage{stage}.json")
    task = make_task(config, make_accelerator(config), None)
    for name in Task.__annotations__:
        assert hasattr(task, name), name
    assert task.trainable.keys() == task.optimizers.keys()


class Line:
    """A line through points: the smallest model, which knows nothing of sound."""

    ema, shown, joint_step, begun_from = None, ("loss",), 5, None

    def __init__(self, config, accelerator, share, checkpoint) -> None:
        self.train_records = [{"x": n / 8} for n in range(200)]
        self.valid_records = self.train_records[:9]
        self.network = torch.nn.Linear(1, 1)
        self.trainable = {"line": self.network}
        self.optimizers = {"line": adamw(self.network.parameters(), config.train.adam)}
        self.wrapped, self.share = (self.network,), share
        self.summary, self.notes = {"points": "on a line"}, ["nothing to note"]
        self.made_from, self.seen = {}, []

    def prepare_data(self, cache) -> None:
        (cache / "made").write_text("")

    def batches(self, step):
        return ({"x": torch.ones(2, 1), "step": s} for s in itertools.count(step))

    def clips_of(self, step):
        return [f"point {step}"]

    def losses(self, batch, step, micro):
        self.seen.append(("losses", step, micro))
        error = self.network(batch["x"]) - 3
        loss = error.square().mean()
        yield Loss("line", loss, {"loss": loss.detach()}, {"micro": torch.tensor(float(micro))})
        assert self.network.weight.grad is not None  # backward came first

    def after_step(self, step, means):
        self.seen.append(("after_step", step, means["micro"].item()))
        return {"after": means["micro"]}

    def troubles(self, metrics):
        return {}

    def validate(self):
        return {"loss": 0.5}

    def samples(self):
        return [Sample("point", np.zeros((1, 1)), np.zeros(1))]


def test_the_loop_calls_a_model_in_the_order_that_is_written(trained, capsys):
    train = {"gradient_accumulation_steps": 2, "batch_size": 4}
    config = tiny.load(trained / "stage1.json", {"train": train})
    run = DryRun(config, lambda config, accelerator, _: Line(config, accelerator, None, None))
    assert isinstance(run.accelerator, Accelerator)
    assert len(run.task.train_records) == 3 * 4  # what a dry run needs
    assert len(run.task.valid_records) == 4
    loop(run)
    assert run.task.seen == [
        call
        for step in (5, 6, 7)
        for call in (("losses", step, 0), ("losses", step, 1), ("after_step", step, 0.5))
    ]
    run.finish()
    said = capsys.readouterr().out
    for text in ("points", "on a line", "nothing to note", "parameters, line", "loss 0.5"):
        assert text in said
