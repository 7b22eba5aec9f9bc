"""Sounds to listen to during training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from config.schema import Config
from models.base.task import Sample
from models.tta.ldm.pipeline import Pipeline
from models.vocoders.load import Vocoder
from processors.dataset import distinct_clips, read_batch
from processors.metadata import mel_path

EVALUATED = 16  # captions of valid.json that train.evaluation hears, too


def heard(names: Sequence[str], mels: Tensor, vocoder: Vocoder) -> list[Sample]:
    """mels [B, n_mel, frames] with what the vocoder makes of them."""
    sounds = zip(names, mels.numpy(), vocoder(mels).numpy(), strict=True)
    return [Sample(*sound) for sound in sounds]


def generated(
    names: Sequence[str], prompts: Sequence[str], pipeline: Pipeline, vocoder: Vocoder, seed: int
) -> list[Sample]:
    """A sound for each prompt, with seeds from `seed` on."""
    if not prompts:
        return []
    mels = pipeline(prompts, seeds=[seed + n for n in range(len(prompts))])
    return heard(names, mels.cpu(), vocoder)


def beside_clips(
    config: Config, records: Sequence[dict], pipeline: Pipeline, vocoder: Vocoder, seed: int
) -> list[Sample]:
    """Sounds of a few records' captions, each beside its clip as the vocoder plays it.

    Records without a caption, which CLAP learns from as well, are left out.
    """
    clips = distinct_clips([record for record in records if record["Caption"]])[:EVALUATED]
    names = [f"{number}/generated" for number in range(len(clips))]
    found = generated(names, [clip["Caption"] for clip in clips], pipeline, vocoder, seed)
    for number, clip in enumerate(clips):
        mel = read_batch([mel_path(config, clip)], config.preprocess.segment_frames)[:, 0]
        found += heard([f"{number}/original"], mel, vocoder)
    return found
