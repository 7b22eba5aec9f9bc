"""Prepared mels as training batches."""

from __future__ import annotations

import itertools
import logging
import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from processors.mel import MEL_FLOOR
from processors.stream import ClipStream, Share
from utils.commands import remake
from utils.errors import UserError

SILENCE = math.log(MEL_FLOOR)


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
                f" {len(segments[0])}; remove the wrong one and run: {remake(path)}"
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
        raise UserError(f"{path}: not a whole mel file ({error}); {_redo(path)}") from None
    if mel.ndim != 2 or mel.dtype.kind != "f":
        raise UserError(f"{path}: holds {mel.dtype}{list(mel.shape)}, not a mel; {_redo(path)}")
    return mel


def _redo(path: Path) -> str:
    return f"remove it and run: {remake(path)}"


def distinct_clips(records: Sequence[dict]) -> list[dict]:
    """One record per clip, in order: five captions of a clip are five records."""
    return list({(record["Dataset"], record["Uid"]): record for record in records}.values())


class MelDataset(torch.utils.data.Dataset):
    """Mel segments by position in the stream."""

    def __init__(
        self, paths: Sequence[Path], names: Sequence[str], frames: int, stream: ClipStream
    ) -> None:
        self.paths, self.names = paths, names
        self.frames = frames
        self.stream = stream

    def __getitems__(self, positions: list[int]) -> dict | UserError:
        """As `batch`.

        Arrays are handed over through a pipe; tensors would need /dev/shm, which is small in
        containers. An error is returned, since one raised in another process would arrive as the
        text of its traceback.
        """
        try:
            return self.batch(positions)
        except UserError as error:
            return error

    def batch(self, positions: list[int]) -> dict:
        """The batch at these positions, each mel cropped at the random start of its position.

        {"mel": float32 array [B, 1, n_mel, frames], "uid": [B]}.
        """
        clips = [self.stream.clip(position) for position in positions]
        paths, starts = [self.paths[clip] for clip in clips], []
        for position, path in zip(positions, paths, strict=True):
            spare = mel_frames(path) - self.frames
            random = self.stream.random(position)
            starts.append(int(random.integers(spare + 1)) if spare > 0 else 0)
        mel = read_batch(paths, self.frames, starts).numpy()
        return {"mel": mel, "uid": [self.names[clip] for clip in clips]}


def training_batches(dataset: MelDataset, share: Share, step: int, workers: int) -> Iterator[dict]:
    """This process's micro-batches from `step` on, read ahead by `workers` processes.

    What `dataset.batch` gives, its arrays as tensors. Where a worker cannot be started or is
    killed, this process reads the batches itself from then on, and the log says so.
    """
    taken = 0
    if workers:
        try:
            for batch in _loader(dataset, share.from_step(step), workers):
                yield _checked(batch)
                taken += 1
        except (RuntimeError, OSError) as error:
            logging.getLogger("arion").warning(
                "a process that loads batches was lost (%s); training goes on without them. If it"
                " was for lack of memory, set train.num_workers=0",
                str(error).strip().splitlines()[-1],
            )
    for positions in itertools.islice(share.from_step(step), taken, None):
        yield _checked(dataset.__getitems__(positions))


def _checked(batch: dict | UserError) -> dict:
    if isinstance(batch, UserError):
        raise batch
    arrays = {k: torch.from_numpy(v) for k, v in batch.items() if isinstance(v, np.ndarray)}
    return {**batch, **arrays}


def _loader(dataset: MelDataset, positions: Iterator[list[int]], workers: int) -> Iterator:
    """torch raises a worker's death wherever the main process is; here it waits for `next`."""
    before = signal.getsignal(signal.SIGCHLD)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=positions,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_stopping_to_parent,
        prefetch_factor=4,
    )
    iterator = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return iterator


def _leave_stopping_to_parent(_worker: int) -> None:
    """Ctrl-C and a closed terminal reach all processes; the parent still needs the workers.

    SIGTERM ends a worker, or nothing but SIGKILL could end one whose parent is gone.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: dict) -> dict:
    return batch
