"""Prepared sounds as (mel, wav) batches, which a vocoder is trained on.

    <Dataset>/mel/<Uid>.npy    float32 [n_mel, frames]
    <Dataset>/pcm/<Uid>.npy    int16 [samples], the resampled sound that the mel was made from

A crop of an .npy file is read by mapping it: no decoder, no resampler, and nothing of the rest of
the clip. With 16 bits a sample, a sound takes 1.6 times the room of its mel (80 bands, hop 256).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from config.schema import Config
from processors.clips import PCM_SCALE, pcm_dir
from processors.dataset import MelDataset, mel_frames, read_batch
from processors.metadata import dataset_dir
from processors.stream import ClipStream
from utils.commands import command
from utils.errors import UserError


def pcm_path(config: Config, record: dict) -> Path:
    """Path of a record's kept sound."""
    return pcm_dir(dataset_dir(config, record["Dataset"]) / "mel") / f"{record['Uid']}.npy"


def read_crop(path: Path, start: int, samples: int) -> np.ndarray:
    """`samples` samples of a kept sound from `start` on, float32 in [-1, 1]; silence past its end.

    Raises:
        UserError: the file is missing or damaged.
    """
    piece = _map(path)[start : start + samples]
    crop = np.zeros(samples, np.float32)
    np.divide(piece, PCM_SCALE, out=crop[: len(piece)])
    return crop


def _redo() -> str:
    return f"to make it anew, run: {command('mels', 'preprocess.keep_wavs=true')}"


def _map(path: Path) -> np.ndarray:
    """A kept sound [samples], mapped."""
    try:
        pcm = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing, the sound was not kept beside its mel; {_redo()}"
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a whole file of samples ({error}); {_redo()}") from None
    if pcm.ndim != 1 or pcm.dtype != np.int16:
        raise UserError(f"{path}: holds {pcm.dtype}{list(pcm.shape)}, not int16 samples; {_redo()}")
    return pcm


class WavDataset(MelDataset):
    """Aligned crops by position in the stream.

    {"mel": [B, 1, n_mel, frames], "wav": [B, frames * hop_size], "uid": [B]}: frame t of a mel is
    centred on sample (t + 1/2) hop_size of its wav, as `processors.mel` has it.
    """

    def __init__(
        self,
        mels: Sequence[Path],
        wavs: Sequence[Path],
        names: Sequence[str],
        frames: int,
        hop_size: int,
        stream: ClipStream,
    ) -> None:
        super().__init__(mels, names, frames, stream)
        self.wavs, self.hop_size = wavs, hop_size

    def batch(self, positions: list[int]) -> dict:
        """The batch at these positions, each clip cropped at the random start of its position."""
        clips = [self.stream.clip(position) for position in positions]
        starts = [self._start(*pair) for pair in zip(positions, clips, strict=True)]
        wavs = [
            read_crop(self.wavs[clip], start * self.hop_size, self.frames * self.hop_size)
            for clip, start in zip(clips, starts, strict=True)
        ]
        return {
            "mel": read_batch([self.paths[clip] for clip in clips], self.frames, starts).numpy(),
            "wav": np.stack(wavs),
            "uid": [self.names[clip] for clip in clips],
        }

    def _start(self, position: int, clip: int) -> int:
        """The first frame of the crop; UserError where mel and wav are not of one length."""
        frames, samples = mel_frames(self.paths[clip]), len(_map(self.wavs[clip]))
        if samples // self.hop_size != frames:
            raise UserError(
                f"{self.wavs[clip]}: {samples} samples are not the {frames} frames of"
                f" {self.paths[clip]} with hop_size {self.hop_size}; {_redo()}"
            )
        spare = frames - self.frames
        return int(self.stream.random(position).integers(spare + 1)) if spare > 0 else 0
