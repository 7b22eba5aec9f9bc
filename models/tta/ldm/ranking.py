"""The best of several sounds of one text, as CLAP hears them (arXiv:2301.12503)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import soxr
import torch

from models.tta.evaluation.features import BACKBONES, Ear, find_ears
from models.tta.ldm.sampling import Sound
from utils.errors import UserError

PUBLISHED = Path("ckpts/evaluation")  # where evaluation looks for published weights, too


class Judge:
    """Keeps of each few sounds the one whose embedding lies nearest to its text's."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.scores: list[float] = []  # of the candidates for the sound that was last kept

    def best(self, sounds: Iterator[Sound], candidates: int, sample_rate: int) -> Iterator[Sound]:
        """Of each `candidates` sounds in turn, which are of one text, the best."""
        while group := list(itertools.islice(sounds, candidates)):
            self.scores = [self.score(sound, sample_rate) for sound in group]
            yield group[max(range(len(group)), key=self.scores.__getitem__)]

    @torch.no_grad()
    def score(self, sound: Sound, sample_rate: int) -> float:
        """The cosine of the sound's and of its text's embedding."""
        wav = soxr.resample(sound.wav, sample_rate, self.ear.backbone.rate, "HQ")
        heard, _ = self.ear.net(torch.from_numpy(wav)[None].to(self.ear.device))
        return float((heard * self.ear.net.embed_text(sound.text)).sum())

    def receipt(self) -> dict[str, object]:
        """What a receipt says of the choice; the kept sound's own seed makes it again, alone."""
        return {
            "clap": str(self.ear.weights),
            "clap_score": round(max(self.scores), 6),
            "clap_scores": [round(score, 6) for score in self.scores],
        }


def find_judge(name: str | None, device: torch.device) -> Judge:
    """The CLAP of this name (a folder, or on the hub), or the one that lies with the published.

    Raises:
        UserError: its weights are not there.
    """
    ears, _ = find_ears(["clap"], {} if name is None else {"clap": name}, PUBLISHED, device)
    if not ears:
        clap = BACKBONES["clap"]
        raise UserError(
            f"--num_candidates needs the weights of CLAP, and {PUBLISHED / Path(clap.file).name} is"
            f" not there; fetch them with --clap {clap.file}, or name their folder; they are"
            f" published at {clap.where}"
        )
    return Judge(ears[0])
