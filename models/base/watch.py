"""A run watches itself: steps without finite gradients, and metrics that mean trouble.

Nothing here waits for the device between summaries: flags stay on it until they are read together.
"""

from __future__ import annotations

import logging
import math

import torch

from models.base.task import Task

GIVE_UP_AFTER = 5  # steps in a row whose loss or gradient is not finite
LASTING = 3  # summaries in a row that show a trouble, before it is called one
WAITING = 0.2  # share of the time


class Watch:
    """Collects flags on the device; reads them, and the metrics, at summaries.

    Attributes: gave_up, whether the run should stop now, and advice, what to try then.
    """

    def __init__(self, log: logging.Logger, task: Task) -> None:
        """Warns in `log` of what `task` finds wrong, and names its clips."""
        self.log, self.task = log, task
        self.gave_up, self.advice = False, ""
        self._flags: list[tuple[int, torch.Tensor]] = []
        self._skipped_in_a_row = 0
        self._seen_in_a_row: dict[str, int] = {}

    def note(self, step: int, skipped: torch.Tensor) -> None:
        """Remembers whether a step was skipped (a tensor, 0 or 1); `step` counts from 0."""
        self._flags.append((step, skipped))

    def read_flags(self) -> None:
        """Names the clips of the steps that were skipped since the last call."""
        flags, self._flags = self._flags, []
        values = torch.stack([flag for _, flag in flags]).tolist() if flags else []
        for (step, _), skipped in zip(flags, values, strict=True):
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
            if skipped:
                self.log.warning(
                    "step %d: loss or gradient not finite, step skipped; its clips: %s",
                    step + 1,
                    ", ".join(self.task.clips_of(step)),
                )
            if self._skipped_in_a_row >= GIVE_UP_AFTER and not self.gave_up:
                self.gave_up = True
                self.advice = (
                    f"{self._skipped_in_a_row} steps in a row up to step {step + 1} had no finite"
                    " loss or gradient; nothing was learnt from them and the run is saved. Try a"
                    " smaller train.adam.lr or train.mixed_precision=no, and look at the clips"
                    " named in log.txt"
                )

    def check_validation(self, loss: float, step: int) -> bool:
        """Whether validation's `loss` is finite. If the weights are not either, gives up."""
        if math.isfinite(loss):
            return True
        if self.check_weights(step):
            self.log.warning(
                "step %d: validation's loss is not finite, though all weights are; look at the"
                " mels of valid.json",
                step,
            )
        return False

    def check_weights(self, step: int) -> bool:
        """Whether all weights are finite. If they are not, gives up."""
        networks = self.task.trainable.values()
        if all(weight.isfinite().all() for network in networks for weight in network.parameters()):
            return True
        if not self.gave_up:
            self.gave_up = True
            self.advice = (
                f"step {step}: weights are not finite, and of no use. To go on from an earlier"
                " checkpoint, remove those of the run's checkpoints/ since then, and try a smaller"
                " train.adam.lr or train.mixed_precision=no"
            )
        return False

    def check(self, metrics: dict[str, float], step: int, waiting: float) -> None:
        """Logs what is wrong with the means since the last summary, and what to try.

        `waiting` is the share of the time in which the device had no batch to work on. A trouble is
        named once, when LASTING summaries in a row have shown it.
        """
        self.read_flags()
        troubles = self.task.troubles(metrics)
        if waiting > WAITING:
            troubles["loader"] = (
                f"{waiting:.0%} of the time goes into waiting for data; try a larger"
                " train.num_workers, or a faster disk"
            )
        seen = self._seen_in_a_row
        for name in seen.keys() | troubles.keys():
            if seen.get(name, 0) < LASTING:
                seen[name] = seen.get(name, 0) + 1 if name in troubles else 0
                if seen[name] == LASTING:
                    self.log.warning("step %d: %s", step, troubles[name])
