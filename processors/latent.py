"""mel -> latent, once: the frozen VAE's posterior of every clip, kept on disk for stage 2.

A clip is cut into windows of `segment_frames`, half overlapping, so that stage 2 still sees random
crops; a clip of the usual length is one window. What is kept is the posterior's mean and standard
deviation, in half precision, so that sampling from it still varies: 12 kB for ten seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from processors.cache import Rows, compute_rows, content_key, main_first
from processors.dataset import mel_frames, read_batch
from processors.json_lines import Arrays, Mapped, digest_of
from processors.kept_records import kept_while
from utils.progress import progress

if TYPE_CHECKING:
    from accelerate import Accelerator

WINDOWS_PER_BLOCK = 64
WINDOWS_PER_BATCH = 8
ASKED = 100_000  # mels at most, at each start, whether they were changed


@dataclasses.dataclass(frozen=True)
class LatentCache:
    """Posteriors of all windows: rows [2, z, h, w] float16, mean then standard deviation."""

    rows: Rows
    first: np.ndarray  # [clips + 1]: windows of clip c are first[c]..first[c + 1]
    windows: np.ndarray  # int [rows, 2]: the clip of each, and its first frame

    def posteriors(self, windows: Sequence[int]) -> torch.Tensor:
        """[B, 2, z, h, w] float16 of these windows, in memory or on the device."""
        return self.rows.take(np.asarray(windows, dtype=np.int64))

    def window(self, clip: int, random: np.random.Generator | None = None) -> int:
        """A row of this clip: a random window of it, or the first one."""
        count = int(self.first[clip + 1] - self.first[clip])
        return int(self.first[clip]) + (int(random.integers(count)) if random else 0)


def window_starts(frames: int, segment: int) -> list[int]:
    """First frames of a clip's windows; the last window ends with the clip."""
    if frames <= segment + 1:  # 10 s are 625 frames, trained at 624: no window of its own for one
        return [0]
    return [*range(0, frames - segment, segment // 2 or 1), frames - segment]


def build_latent_cache(
    folder: Path,
    clips: Sequence[dict],
    path_of: Callable[[dict], Path],
    segment: int,
    vae: nn.Module,
    fingerprint: str,
    accelerator: Accelerator,
) -> LatentCache:
    """Encodes the mels of `clips`, at `path_of` each, or finds that it was done before.

    `fingerprint` identifies the VAE's weights and its mel settings; together with the windows and
    the mels' sizes and times of change it names the cache, below `folder`. These are asked for when
    a folder of mels has changed, or one of `ASKED` mels: a start would wait for millions of them.
    """
    paths = Mapped(path_of, clips)
    index = folder / f"mels-{content_key(os.path.abspath(paths[0]), digest_of(clips))}.index"

    def places() -> list[str]:
        folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
        some = range(0, len(paths), -(-len(paths) // ASKED))
        return [*sorted(folders), *(os.path.abspath(paths[n]) for n in some)]

    with main_first(accelerator):
        arrays, _ = kept_while(index, places, lambda: _measure(paths))
    lengths, length_of = np.unique(arrays["frames"], return_inverse=True)
    starts = [window_starts(int(frames), segment) for frames in lengths]
    counts = np.array([len(of_length) for of_length in starts], np.int64)[length_of]
    first = np.concatenate([[0], np.cumsum(counts)])
    clip_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    place = np.arange(first[-1]) - first[clip_of]  # of a window among its clip's
    table = np.zeros((len(starts), max(map(len, starts), default=0)), np.int32)
    for row, of_length in zip(table, starts, strict=True):
        row[: len(of_length)] = of_length
    windows = np.stack([clip_of, table[length_of[clip_of], place]], axis=1)

    @torch.inference_mode()
    def encode(windows: np.ndarray) -> np.ndarray:
        rows = []
        for i in range(0, len(windows), WINDOWS_PER_BATCH):
            batch = windows[i : i + WINDOWS_PER_BATCH].tolist()
            files, begins = [paths[clip] for clip, _ in batch], [start for _, start in batch]
            mel = read_batch(files, segment, begins).to(accelerator.device)
            with accelerator.autocast():
                posterior = vae.encode(mel)
            rows.append(torch.stack([posterior.mean, posterior.std], dim=1).half().cpu().numpy())
        return np.concatenate(rows)

    rule = [[int(frames), *of] for frames, of in zip(lengths, starts, strict=True)]
    key = content_key(fingerprint, segment, rule, arrays["mels"].tobytes().hex())
    here = folder / f"latent-{key}"
    rows = compute_rows(here, windows, WINDOWS_PER_BLOCK, encode, accelerator, "encoding sounds")
    return LatentCache(rows, first, windows)


def _measure(paths: Sequence[Path]) -> Arrays:
    """ "frames" of each mel, from its header; "mels", a hash of names, sizes, times of change."""
    mels, frames = hashlib.sha256(), np.empty(len(paths), np.int64)
    for number, path in enumerate(progress(paths, title="reading mels", unit="mel")):
        frames[number] = mel_frames(path)
        status = os.stat(path)
        mels.update(os.fsencode(f"{path}\0{status.st_size} {status.st_mtime_ns}\n"))
    return {"frames": frames, "mels": np.frombuffer(mels.digest(), np.uint8)}
