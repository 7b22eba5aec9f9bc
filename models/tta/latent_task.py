"""What the tasks of both stages share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from config.schema import Config
from models.base.task import Task
from processors.lengths import padding_notes
from processors.stream import Share


class LatentTask(Task):
    """A Task whose data are records of clips, in a `stream`, and whose `vae` makes latents."""

    ema, joint_step = None, 0

    def __init__(self, config: Config, accelerator: Accelerator, share: Share) -> None:
        self.config, self.accelerator, self.share = config, accelerator, share
        self.seed = config.train.random_seed
        self.train_records = self.load_records("train")
        self.valid_records = self.load_records("valid")
        self.notes: list[str] = padding_notes(config)
        self.begun_from: Path | None = None
        self.made_from: dict[str, object] = {}

    @abstractmethod
    def load_records(self, split: str) -> Sequence[dict]:
        """Those of `split` that the stage learns from."""

    def begin_from(self, folder: Path) -> None:
        """Notes where the first weights of a new run come from."""
        self.begun_from = folder
        self.notes.append(f"starts from the weights in {folder}")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[z, n_mel/f, frames/f]"""
        mel = self.config.preprocess
        return self.vae.config.latent_shape(mel.n_mel, mel.segment_frames)

    @property
    def summary(self) -> dict[str, str]:
        return {"latent": " x ".join(map(str, self.latent_shape)) + " per clip"}

    def clips_of(self, step: int) -> list[str]:
        return [self.train_records[number]["Uid"] for number in self.share.clips(step, self.stream)]

    def after_step(self, step: int, means: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def troubles(self, metrics: dict[str, float]) -> dict[str, str]:
        return {}
