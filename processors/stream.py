"""The endless stream of training clips: which clip stands where, from the seed and nothing else.

Position p of the stream is clip p mod n of epoch p div n; every epoch is a fresh permutation. A
step takes `batch_size` positions, shared out to the parts of a step and to the processes, so that
data order does not depend on their number, and a resumed run meets the clips it would have met.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


class ClipStream:
    """Maps positions of the stream to clips, and gives each position its own random numbers."""

    def __init__(self, clips: int, seed: int) -> None:
        self.clips = clips
        self.seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def clip(self, position: int) -> int:
        """The clip at a position of the stream."""
        epoch, place = divmod(position, self.clips)
        if epoch not in self._epochs:
            if len(self._epochs) > 1:  # a batch spans two epochs at most, unless epochs are tiny
                del self._epochs[min(self._epochs)]
            generator = np.random.default_rng([self.seed, 0, epoch])
            self._epochs[epoch] = generator.permutation(self.clips)
        return int(self._epochs[epoch][place])

    def random(self, position: int) -> np.random.Generator:
        """Random numbers that belong to a position: the same in any process, at any time."""
        return np.random.default_rng([self.seed, 1, position])


@dataclass(frozen=True)
class Share:
    """The part of every batch that this process takes, in `parts` pieces one after the other.

    Piece `part` of process `rank` is the slice [part * processes + rank] of the batch, cut in
    parts * processes equal slices.
    """

    batch_size: int
    parts: int = 1
    rank: int = 0
    processes: int = 1

    @property
    def piece(self) -> int:
        """Clips in one piece."""
        return self.batch_size // (self.parts * self.processes)

    def slice(self, part: int) -> slice:
        """Where piece `part` lies in the batch."""
        first = (part * self.processes + self.rank) * self.piece
        return slice(first, first + self.piece)

    def positions(self, step: int, part: int) -> list[int]:
        """Positions of the stream that make up piece `part` of a step."""
        inside = self.slice(part)
        base = step * self.batch_size
        return list(range(base + inside.start, base + inside.stop))

    def clips(self, step: int, stream: ClipStream) -> list[int]:
        """The clips of the whole batch of a step, those of other processes included."""
        first = step * self.batch_size
        return [stream.clip(position) for position in range(first, first + self.batch_size)]

    def from_step(self, step: int) -> Iterator[list[int]]:
        """Positions of every piece from `step` on, without end; a DataLoader's batch sampler."""
        while True:
            for part in range(self.parts):
                yield self.positions(step, part)
            step += 1
