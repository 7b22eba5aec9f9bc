"""What a model brings to the training loop in bins/tta/train.py, and all that the loop knows of it.

A task is a class called with (config, accelerator, share, checkpoint); `checkpoint` is the folder
to go on from, or None. Adding a model is such a class, a config, and a line in TASKS of
bins/tta/train.py. Order of calls:

    __init__                  networks, optimizers, records; only caches are written
    prepare_data(cache)       once
    batches(step)             once; then, for every micro-batch of every step:
        losses(batch, ...)        the loop calls backward on each value before it takes the next
    after_step(step, means)   once a step, after the optimizers
    validate, samples, save_for_inference, save_training     between steps, when they are due;
        in the first three the weights are the average, where there is one
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from modules.ema import EMA


class Loss(NamedTuple):
    """A network's loss on one micro-batch.

    Attributes:
        network: its name in `Task.trainable`.
        value: what backward is called on, a mean over clips; a tensor without dimensions.
        metrics: what to log, tensors without dimensions.
        means: what `Task.after_step` needs, as means over the whole batch.
    """

    network: str
    value: Tensor
    metrics: dict[str, Tensor]
    means: dict[str, Tensor]


class Sample(NamedTuple):
    """A sound to look at and to listen to: mel [n_mel, frames], wav [T] in [-1, 1]."""

    name: str
    mel: np.ndarray
    wav: np.ndarray


class Task(Protocol):
    """One model in training.

    Attributes:
        trainable: the networks that learn, by name.
        optimizers: one for each of them, by the same name (modules.optimizer.make_optimizer).
        wrapped: the networks as accelerate prepared them, whose gradients processes exchange.
        ema: the average that inference uses in place of the weights, if there is one.
        train_records, valid_records: the data. A dry run shortens them before `prepare_data`.
        joint_step: the first step at which every network learns; a dry run begins there.
        shown: metrics beside the progress bar.
        summary: lines of the dry run, such as {"latent": "4 x 10 x 78 per clip"}.
        notes: what the user should know before the first step, such as which VAE was taken.
        begun_from: where the first weights of a new run came from; None: random, or a checkpoint.
        made_from: what the weights depend on, for `made_with` in config.json.
    """

    trainable: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    wrapped: Sequence[nn.Module]
    ema: EMA | None
    train_records: Sequence[dict]
    valid_records: Sequence[dict]
    joint_step: int
    shown: tuple[str, ...]
    summary: dict[str, str]
    notes: list[str]
    begun_from: Path | None
    made_from: dict[str, object]

    def prepare_data(self, cache: Path) -> None:
        """Reads or computes all that `batches` and `validate` need; caches go below `cache`."""

    def batches(self, step: int) -> Iterator[dict]:
        """This process's micro-batches from `step` on, without end."""

    def clips_of(self, step: int) -> list[str]:
        """Names of the clips in the whole batch of a step, over all processes."""

    def losses(self, batch: dict, step: int, micro: int) -> Iterator[Loss]:
        """The losses of micro-batch number `micro` of a step, one for each network that learns."""

    def after_step(self, step: int, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """What changes besides weights, given the batch's `Loss.means`; returns metrics."""

    def troubles(self, metrics: dict[str, float]) -> dict[str, str]:
        """What is wrong with a summary's means, and what to try, by a short name of the trouble."""

    def validate(self) -> dict[str, float]:
        """Metrics over valid.json; "loss" decides which checkpoint is best. {} without clips."""

    def samples(self) -> list[Sample]:
        """Sounds for TensorBoard, made by the main process alone."""

    def save_for_inference(self, folder: Path) -> None:
        """Writes what inference and later stages need; the weights in use are the average then."""

    def save_training(self, folder: Path) -> None:
        """Writes what going on needs besides, optimizers excepted."""
