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


def read_segment(path: Path, frames: int, start: int = 0) -> np.ndarray:
    """Exactly `frames` frames of a mel file, float32 [n_mel, frames].

    Shorter mels are padded with silence at the end, longer ones are cut from frame `start` on.
    The file is mapped, not read, so that ten minutes of sound cost no more than ten seconds.
    """
    mel = _map(path)
    piece = mel[:, start : start + frames]
    segment = np.full((mel.shape[0], frames), SILENCE, dtype=np.float32)
    segment[:, : piece.shape[1]] = piece
    return segment


def read_batch(
    paths: Sequence[Path], frames: int, starts: Sequence[int] | None = None
) -> torch.Tensor:
    """Segments of several mel files as a batch, float32 [B, 1, n_mel, frames].

    Raises UserError where a file is damaged, or has another number of bands than the first.
    """
    starts = starts or [0] * len(paths)
    segments = [
        read_segment(path, frames, start) for path, start in zip(paths, starts, strict=True)
    ]
    for path, segment in zip(paths, segments, strict=True):
        if len(segment) != len(segments[0]):
            raise UserError(
                f"{path}: holds a mel of {len(segment)} bands, and {paths[0]} of"
                f" {len(segments[0])}; remove the wrong one and run: {REDO.partition('run: ')[2]}"
            )
    return torch.from_numpy(np.stack(segments)[:, None])


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
        clips = [self.stream.clip(position) for position in positions]
        paths, starts = [self.paths[clip] for clip in clips], []
        for position, path in zip(positions, paths, strict=True):
            spare = mel_frames(path) - self.frames
            random = self.stream.random(position)
            starts.append(int(random.integers(spare + 1)) if spare > 0 else 0)
        names = [self.names[clip] for clip in clips]
        return {"mel": read_batch(paths, self.frames, starts), "uid": names}


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
