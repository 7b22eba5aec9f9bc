"""wav -> CLAP's embedding of it, once: the frozen network's vector of every window of every clip.

The windows are those of the cache of latents, row by row, so that a latent and the embedding that
it is learnt with are of the same stretch of sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from torch import nn

from processors.cache import Rows, compute_rows, content_key
from processors.wav_dataset import read_crop

if TYPE_CHECKING:
    from accelerate import Accelerator

SOUNDS_PER_BLOCK = 64


def build_sound_cache(
    folder: Path,
    crops: Sequence[tuple[Path, int, int]],
    rate: int,
    clap_rate: int,
    clap: nn.Module,
    fingerprint: str,
    accelerator: Accelerator,
) -> Rows:
    """Rows [D] float16 of all crops, or finds that it was done before, below `folder`.

    Args:
        crops: a kept sound, and the first sample and the number of samples of each.
        rate, clap_rate: Hz, of the kept sounds and of what the network hears.
        clap: wav [1, T] -> (embedding [1, D] of length 1, anything).
        fingerprint: of the network's weights.

    Raises:
        UserError: a sound was not kept beside its mel, or is damaged.
    """

    @torch.inference_mode()
    def embed(chosen: Sequence[tuple[Path, int, int]]) -> np.ndarray:
        rows = []
        for path, start, samples in chosen:
            wav = soxr.resample(read_crop(path, start, samples), rate, clap_rate, "HQ")
            heard = torch.from_numpy(wav)[None]
            rows.append(clap(heard.to(accelerator.device))[0].half().cpu().numpy())
        return np.concatenate(rows)

    paths = sorted({path for path, _, _ in crops})
    stats = {str(path): _size_and_time(path) for path in paths}
    places = [(str(path), start, samples) for path, start, samples in crops]
    here = folder / f"sound-{content_key(fingerprint, rate, stats, places)}"
    return compute_rows(here, crops, SOUNDS_PER_BLOCK, embed, accelerator, "hearing sounds")


def _size_and_time(path: Path) -> tuple[int, int] | None:
    """Bytes and time of change; None where there is no such file, which reading it then says."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
