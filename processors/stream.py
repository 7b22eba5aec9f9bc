"""The endless stream of training clips: which clip stands where, from the seed and nothing else.

Position p of the stream is clip p mod n of epoch p div n; every epoch is a fresh permutation. A
step takes `batch_size` positions, shared out to its micro-batches and to the processes, so that the
order of the data does not depend on their number, and a resumed run meets the clips it would have
met.
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
    """What one process takes of every batch, as micro-batches one after the other.

    A batch is cut into micro_batches x world_size slices of equal size; micro-batch `micro` of
    process `rank` is slice number micro x world_size + rank.
    """

    batch_size: int
    micro_batches: int = 1
    rank: int = 0
    world_size: int = 1

    @property
    def micro_batch_size(self) -> int:
        """Clips in one micro-batch."""
        return self.batch_size // (self.micro_batches * self.world_size)

    def slice(self, micro: int) -> slice:
        """Where micro-batch `micro` lies in the batch."""
        first = (micro * self.world_size + self.rank) * self.micro_batch_size
        return slice(first, first + self.micro_batch_size)

    def positions(self, step: int, micro: int) -> list[int]:
        """Positions of the stream that make up micro-batch `micro` of a step."""
        inside = self.slice(micro)
        base = step * self.batch_size
        return list(range(base + inside.start, base + inside.stop))

    def clips(self, step: int, stream: ClipStream) -> list[int]:
        """The clips of the whole batch of a step, those of other processes included."""
        first = step * self.batch_size
        return [stream.clip(position) for position in range(first, first + self.batch_size)]

    def from_step(self, step: int) -> Iterator[list[int]]:
        """Positions of every micro-batch from `step` on, without end."""
        while True:
            for micro in range(self.micro_batches):
                yield self.positions(step, micro)
            step += 1
