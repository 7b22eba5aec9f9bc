"""What an AudioSet tagger says of the sounds that a training logs, beside the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.base.task import Sample
from models.tta.evaluation.clips import measure
from models.tta.evaluation.features import BACKBONES, find_ears
from models.tta.evaluation.metrics import softmax_kl
from models.tta.evaluation.protocol import PROTOCOLS
from utils.errors import UserError

ORIGINAL = "original"


class Tagger:
    """EfficientAT mn04, with the weights in the file `weights`.

    Raises:
        UserError: there is no such file, or it does not hold mn04's weights.
    """

    def __init__(self, weights: str, sample_rate: int, device: torch.device) -> None:
        if not Path(weights).is_file():
            mn04 = BACKBONES["mn04"]
            raise UserError(
                f"train.evaluation {weights}: no such file; it is {mn04.file} from {mn04.where}"
            )
        (ear,), _ = find_ears(["mn04"], {"mn04": weights}, Path(), device)
        self.net, self.rate, self.device = ear.net, ear.backbone.rate, device
        self.sample_rate, self.protocol = sample_rate, PROTOCOLS["arion"]

    def scores(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Figures of all samples "<clip>/<name>" for which there is "<clip>/original".

        For each name: "KL_<name>", mean KL(original || sample) of the tagger's softmax; and
        "level_<name>", mean difference of level, dB RMS.
        """
        sounds: dict[str, dict[str, np.ndarray]] = {}
        for sample in samples:
            clip, _, name = sample.name.rpartition("/")
            sounds.setdefault(clip, {})[name] = sample.wav
        found: dict[str, list[float]] = {}
        for of_clip in sounds.values():
            if ORIGINAL not in of_clip:
                continue
            original = of_clip.pop(ORIGINAL)
            logits, level = self._hear(original)
            for name, wav in of_clip.items():
                others, other = self._hear(wav)
                found.setdefault(f"KL_{name}", []).append(float(softmax_kl(logits, others)))
                found.setdefault(f"level_{name}", []).append(other - level)
        return {name: float(np.mean(values)) for name, values in found.items()}

    @torch.no_grad()
    def _hear(self, wav: np.ndarray) -> tuple[torch.Tensor, float]:
        """wav [T] -> logits [1, C], and its level in dB RMS."""
        heard = self.protocol.prepare(wav[:, None], self.sample_rate, self.rate)
        _, logits = self.net(torch.from_numpy(heard)[None].to(self.device))
        return logits.cpu(), measure(wav[:, None], self.sample_rate).level
