"""Prepared mels as training batches."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from processors.stream import ClipStream, Share
from utils.errors import UserError

SILENCE = math.log(1e-5)  # the floor of the natural-log mel
REDO = "remove it and run: sh egs/tta/preprocess/run_preprocess.sh"


def read_segment(path: Path, frames: int, start: int | None = None) -> np.ndarray:
    """Exactly `frames` frames of a mel file, float32 [n_mel, frames].

    Shorter mels are padded with silence at the end, longer ones are cut from frame `start` on.
    The file is mapped, not read, so that ten minutes of sound cost no more than ten seconds.
    """
    mel = _map(path)
    start = start or 0
    piece = mel[:, start : start + frames]
    segment = np.full((mel.shape[0], frames), SILENCE, dtype=np.float32)
    segment[:, : piece.shape[1]] = piece
    return segment


def mel_frames(path: Path) -> int:
    """Number of frames of a mel file, from its header."""
    return _map(path).shape[1]


def _map(path: Path) -> np.ndarray:
    """A mel file [n_mel, frames], mapped; UserError where it is damaged or none."""
    try:
        mel = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a whole mel file ({error}); {REDO}") from None
    if mel.ndim != 2 or mel.dtype.kind != "f":
        raise UserError(f"{path}: holds {mel.dtype}{list(mel.shape)}, not a mel; {REDO}")
    return mel


def distinct_clips(records: Sequence[dict]) -> list[dict]:
    """One record per clip, in order: five captions of a clip are five records."""
    return list({(record["Dataset"], record["Uid"]): record for record in records}.values())


class MelDataset(torch.utils.data.Dataset):
    """Mel segments by position in the stream: {"mel": [B, 1, n_mel, frames], "uid": [B]}."""

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], frames: int, stream: ClipStream
    ) -> None:
        self.paths, self.names = paths, names
        self.frames = frames
        self.stream = stream

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, positions: list[int]) -> dict:
        """The batch at these positions, each mel cropped at the random start of its position."""
        segments, names = [], []
        for position in positions:
            clip = self.stream.clip(position)
            spare = mel_frames(self.paths[clip]) - self.frames
            start = int(self.stream.random(position).integers(spare + 1)) if spare > 0 else 0
            segments.append(read_segment(self.paths[clip], self.frames, start))
            names.append(self.names[clip])
        return {"mel": torch.from_numpy(np.stack(segments)[:, None]), "uid": names}


def training_batches(dataset: MelDataset, share: Share, step: int, workers: int) -> Iterator[dict]:
    """The pieces of batches that this process takes, from `step` on, read ahead by `workers`."""
    return iter(
        torch.utils.data.DataLoader(
            dataset,
            batch_sampler=share.from_step(step),
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_leave_stopping_to_parent,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )


def _leave_stopping_to_parent(_worker: int) -> None:
    """A stop that a terminal or a cluster sends to all processes must not break the last step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: dict) -> dict:
    return batch
