"""Asking a run to save and end: Ctrl-C, a cluster's SIGTERM, a terminal that is closed."""

from __future__ import annotations

import signal
import time

import torch
from accelerate import Accelerator

AGREE_EVERY = 10  # steps after which several processes agree on whether to stop
INSIST_AFTER = 2.0  # seconds; launchers pass a Ctrl-C on, so that it comes twice at once


class StopRequest:
    """Notes the first of these signals; the loop asks for it between steps.

    Attributes: signal, its number, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif number == signal.SIGINT and now - self._since > INSIST_AFTER:
            raise KeyboardInterrupt

    def agreed(self, accelerator: Accelerator, step: int) -> bool:
        """Whether to stop before `step`, the same in all processes."""
        asked = self.signal is not None
        if accelerator.num_processes == 1:
            return asked
        if step % AGREE_EVERY:
            return False
        flag = torch.tensor(float(asked), device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum").item())
