"""A run watches itself: steps without finite gradients, and figures that mean trouble."""

from __future__ import annotations

import logging

import torch

GIVE_UP_AFTER = 5  # steps in a row whose loss or gradient is not finite


class Watch:
    """Collects flags on the device; reads them, and the figures, at summaries."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.gave_up = False
        self.advice = ""
        self._notes: list[tuple[int, torch.Tensor, list[str]]] = []
        self._in_a_row = 0
        self._warned: set[str] = set()

    def note(self, step: int, skipped: torch.Tensor, names: list[str]) -> None:
        """Remembers whether a step was skipped (a tensor, 0 or 1) and the clips of its batch."""
        self._notes.append((step, skipped, names))

    def check(self, figures: dict[str, float], step: int, waiting: float) -> None:
        """Logs what is wrong since the last call, with the figure and what to try."""
        notes, self._notes = self._notes, []
        flags = torch.stack([flag for _, flag, _ in notes]).tolist() if notes else []
        for (number, _, names), skipped in zip(notes, flags, strict=True):
            self._in_a_row = self._in_a_row + 1 if skipped else 0
            if skipped:
                self.log.warning(
                    "step %d: loss or gradient not finite, step skipped; clips: %s",
                    number,
                    ", ".join(names),
                )
            if self._in_a_row >= GIVE_UP_AFTER and not self.gave_up:
                self.gave_up = True
                self.advice = (
                    f"{GIVE_UP_AFTER} steps in a row up to step {number} had no finite loss or"
                    " gradient; try a smaller train.adam.lr, train.mixed_precision=no, or look at"
                    " the clips named in log.txt"
                )
        self._warn_of_figures(figures, step, waiting)

    def _warn_of_figures(self, figures: dict[str, float], step: int, waiting: float) -> None:
        std = figures.get("latent_std")
        if std is not None and std < 1e-2:
            self._once(
                "latent",
                f"step {step}: the latent has collapsed, standard deviation {std:.2g}; try a"
                " smaller model.loss.kl_weight or a smaller train.adam.lr",
            )
        real, fake = figures.get("logits_real"), figures.get("logits_fake")
        if real is not None and real > 1 and fake < -1 and figures["d_loss"] < 0.01:
            self._once(
                "discriminator",
                f"step {step}: the discriminator wins outright, d_loss {figures['d_loss']:.2g};"
                " try a smaller model.loss.disc_channels or a later model.loss.disc_start",
            )
        if waiting > 0.2:
            self._once(
                "loader",
                f"step {step}: {waiting:.0%} of the time goes into waiting for data; try a larger"
                " train.num_workers, or a faster disk",
            )

    def _once(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self.log.warning(message)
