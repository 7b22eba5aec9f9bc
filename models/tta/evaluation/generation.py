"""A sound for every reference, to be evaluated: one caption each, made once, gone on with."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.tta.evaluation.clips import Clip
from models.tta.ldm.pipeline import Pipeline
from models.tta.ldm.sampling import SamplingSettings, generate
from models.vocoders.load import Vocoder
from utils.audio import wav_bytes
from utils.checkpoint import read_json, write_json
from utils.errors import UserError
from utils.files import one_writer, write_bytes
from utils.progress import progress


def as_in_json(values: dict) -> dict:
    """`values` as a receipt gives them back: a tuple is a list."""
    return json.loads(json.dumps(values))


# A sound whose receipt is older than one of these settings was made with its default.
DEFAULTS = as_in_json(
    {
        setting.name: setting.default
        for setting in dataclasses.fields(SamplingSettings)
        if setting.default is not dataclasses.MISSING
    }
)


def generate_missing(
    folder: Path,
    references: Sequence[Clip],
    pipeline: Pipeline,
    vocoder: Vocoder,
    sampling: SamplingSettings,
    made_by: Mapping[str, str],
    batch_size: int,
) -> None:
    """Writes <folder>/<Uid>.wav with its receipt <Uid>.json for each reference that has none.

    A clip with several captions gets a sound for the first that its split lists. Sound k of the
    references has the seed `sampling.seed` + k, so that what is made does not depend on what was
    there.

    Args:
        references: with captions; those without are left out.
        made_by: what else of the model, the vocoder and the device a receipt tells.

    Raises:
        UserError: no reference has a caption, or a sound that is there was made in another way.
    """
    told = as_in_json({**dataclasses.asdict(sampling), **made_by})
    jobs = [(sampling.seed + k, clip) for k, clip in enumerate(references) if clip.captions]
    if not jobs:
        raise UserError("none of the references has a caption to make a sound of")
    with one_writer(folder):
        todo = [(seed, clip) for seed, clip in jobs if not _is_there(folder, clip, seed, told)]
        bar = progress(
            total=len(jobs), initial=len(jobs) - len(todo), title="generating", unit="sound"
        )
        # Neighbours are made in batches; a gap begins a new one.
        for _, group in itertools.groupby(enumerate(todo), lambda item: item[1][0] - item[0]):
            run = [job for _, job in group]
            settings = dataclasses.replace(sampling, seed=run[0][0])
            texts = [clip.captions[0] for _, clip in run]
            sounds = generate(pipeline, vocoder, texts, settings, batch_size)
            for (seed, clip), sound in zip(run, sounds, strict=True):
                path = folder / f"{clip.uid}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                receipt = {"uid": clip.uid, "text": sound.text, **told, "seed": seed}
                if sound.fault:
                    receipt["warning"] = sound.fault
                write_json(path.with_name(f"{path.stem}.json"), receipt)
                # The sound comes last, and whole.
                write_bytes(path, wav_bytes(sound.wav, pipeline.settings.mel.sample_rate))
                bar.update()
        bar.close()


def _is_there(folder: Path, clip: Clip, seed: int, told: Mapping[str, object]) -> bool:
    """Whether the clip's sound was made, in just this way."""
    path = folder / f"{clip.uid}.wav"
    if not path.is_file():
        return False
    receipt = {**DEFAULTS, **read_json(path.with_name(f"{path.stem}.json"))}
    expected = {"uid": clip.uid, "text": clip.captions[0], **told, "seed": seed}
    for name, value in expected.items():
        if receipt.get(name, value) != value:  # what an older one does not tell is not held to it
            raise UserError(
                f"{path} was made with {name} {receipt[name]!r}, not {value!r}; give another"
                " folder by --generated"
            )
    return True


def run_name(folder: Path) -> str:
    """A name for a folder of weights: runs/small/final is "small", a checkpoint has its step."""
    if folder.name == "final":
        return folder.resolve().parent.name
    of_run = folder.parent.name == "checkpoints"
    return f"{folder.resolve().parents[1].name}_{folder.name}" if of_run else folder.name
