"""A run watches itself: steps without finite gradients, and figures that mean trouble.

Nothing here waits for the device between summaries: flags stay on it until they are read together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

GIVE_UP_AFTER = 5  # steps in a row whose loss or gradient is not finite
LASTING = 3  # summaries in a row that show a trouble, before it is called one
PATIENCE = 500  # steps after the warm-up within which a loss has to move
MOVED = 0.02  # share of the first loss
COLLAPSED_STD = 1e-2  # of the latent
COLLAPSED_NATS = 1e-2  # that a latent value tells
WON_LOSS = 0.01  # of the discriminator; 1 where it knows nothing
WAITING = 0.2  # share of the time


class Watch:
    """Collects flags on the device; reads them, and the figures, at summaries.

    Attributes: gave_up, whether the run should stop now, and advice, what to try then.
    """

    def __init__(
        self,
        log: logging.Logger,
        clips_of: Callable[[int], list[str]],
        patience: float,
        memory: dict | None = None,
    ) -> None:
        """Of one run.

        Args:
            log: where warnings go.
            clips_of: names the clips of a step.
            patience: steps within which the loss has to move; inf where it starts out good.
            memory: `memory` of the run as it was saved.
        """
        self.log, self.clips_of, self.patience = log, clips_of, patience
        self.memory = memory or {"not_finite_in_a_row": 0, "first_step": None, "first_loss": None}
        self.gave_up, self.advice = False, ""
        self._flags: list[tuple[int, torch.Tensor]] = []
        self._seen: dict[str, int] = {}

    def note(self, step: int, skipped: torch.Tensor) -> None:
        """Remembers whether an update was left out (a tensor, 0 or 1); `step` counts from 0."""
        self._flags.append((step, skipped))

    def read_flags(self) -> None:
        """Names the clips of the steps that were left out since the last call."""
        flags, self._flags = self._flags, []
        values = torch.stack([flag for _, flag in flags]).tolist() if flags else []
        for (step, _), skipped in zip(flags, values, strict=True):
            in_a_row = self.memory["not_finite_in_a_row"] + 1 if skipped else 0
            self.memory["not_finite_in_a_row"] = in_a_row
            if skipped:
                self.log.warning(
                    "step %d: loss or gradient not finite, step skipped; its clips: %s",
                    step + 1,
                    ", ".join(self.clips_of(step)),
                )
            if in_a_row >= GIVE_UP_AFTER and not self.gave_up:
                self.gave_up = True
                self.advice = (
                    f"{in_a_row} steps in a row up to step {step + 1} had no finite loss or"
                    " gradient; nothing was learnt from them and the run is saved. Try a smaller"
                    " train.adam.lr or train.mixed_precision=no, and look at the clips named in"
                    " log.txt"
                )

    def check(self, figures: dict[str, float], step: int, waiting: float) -> None:
        """Logs what is wrong with the means since the last summary, and what to try.

        `waiting` is the share of the time in which the device had nothing to do for lack of data.
        """
        self.read_flags()
        for warn in (self._latent, self._discriminator, self._stuck):
            warn(figures, step)
        self._lasting(
            "loader",
            waiting > WAITING,
            f"step {step}: {waiting:.0%} of the time goes into waiting for data; try a larger"
            " train.num_workers, or a faster disk",
        )

    def _latent(self, figures: dict[str, float], step: int) -> None:
        std, nats = figures.get("latent_std", 1.0), figures.get("latent_nats", 1.0)
        self._lasting(
            "latent",
            std < COLLAPSED_STD or nats < COLLAPSED_NATS,
            f"step {step}: the latent has collapsed, its standard deviation is {std:.2g} and a"
            f" value of it tells {nats:.2g} nats of the mel; try a smaller model.loss.kl_weight or"
            " a smaller train.adam.lr",
        )

    def _discriminator(self, figures: dict[str, float], step: int) -> None:
        loss = figures.get("d_loss", 1.0)
        self._lasting(
            "discriminator",
            loss < WON_LOSS,
            f"step {step}: the discriminator wins outright, d_loss is {loss:.2g} (1: it knows"
            " nothing); try a smaller model.loss.disc_channels, or a later model.loss.disc_start"
            " so that it meets better reconstructions",
        )

    def _stuck(self, figures: dict[str, float], step: int) -> None:
        """The loss of a run that never left its start."""
        loss = figures.get("loss", figures.get("rec_loss"))
        if loss is None:
            return
        if self.memory["first_loss"] is None:
            self.memory.update(first_step=step, first_loss=loss)
        first, first_step = self.memory["first_loss"], self.memory["first_step"]
        self._lasting(
            "stuck",
            step - first_step >= self.patience and loss > (1 - MOVED) * first,
            f"step {step}: the loss has not moved, it was {first:.4g} at step {first_step} and is"
            f" {loss:.4g} now; try a larger train.adam.lr, and look at the data",
        )

    def _lasting(self, what: str, now: bool, message: str) -> None:
        """Warns once, when a trouble has shown at LASTING summaries in a row."""
        if self._seen.get(what, 0) < LASTING:
            self._seen[what] = self._seen.get(what, 0) + 1 if now else 0
            if self._seen[what] == LASTING:
                self.log.warning(message)
