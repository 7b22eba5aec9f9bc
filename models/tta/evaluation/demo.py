"""How many sounds are recognised as what their prompts ask for, on the demo data set.

A prompt is {"prompt": text, "Kind": of sound}, as preprocessors.demo makes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

import numpy as np

from config.schema import Config
from models.tta.evaluation.page import PageClip, write_page
from models.tta.evaluation.recognition import Classifier, train_classifier
from models.tta.ldm.pipeline import Pipeline
from models.tta.ldm.sampling import generate
from models.vocoders.load import Vocoder
from processors.mel import mel_of_wav
from processors.metadata import load_split, mel_path
from utils.audio import read_wav
from utils.checkpoint import read_json
from utils.errors import UserError

BATCH_SIZE = 25
Prompts = Sequence[dict[str, str]]


def train_listener(config: Config) -> Classifier:
    """A classifier that learnt from the real clips of the training set alone."""
    # A clip of two events is of no one kind.
    records = [r for r in load_split(config, "train") if " + " not in r["Kind"]]
    real = [np.load(mel_path(config, record)) for record in records]
    return train_classifier(real, [record["Kind"] for record in records])


def page_of_sounds(config: Config, folder: Path, prompts: Prompts, stages: dict[str, float]) -> str:
    """Writes <folder>/index.html about <folder>/sounds/0000.wav and so on, one for each prompt.

    Args:
        stages: seconds by name, in the order they ran.

    Returns:
        What came out, for the terminal.
    """
    mel = config.preprocess.mel
    captions = {record["Caption"] for record in load_split(config, "train")}
    names = [f"sounds/{number:04d}" for number in range(len(prompts))]
    _check_texts(folder, names, prompts)
    wavs = [read_wav(folder / f"{name}.wav", mel.sample_rate) for name in names]
    heard = train_listener(config).hear([mel_of_wav(wav, mel) for wav in wavs])
    clips = [
        PageClip(name, p["prompt"], p["Kind"], kind, new_wording=p["prompt"] not in captions)
        for name, p, kind in zip(names, prompts, heard, strict=True)
    ]
    page = write_page(folder, clips, stages)
    recognised = sum(clip.recognised for clip in clips)
    return (
        f"{recognised} of {len(clips)} sounds recognised as what was asked for\n"
        f"{sum(stages.values()):.0f} s in all; now open {page}"
    )


def _check_texts(folder: Path, names: Sequence[str], prompts: Prompts) -> None:
    for name, prompt in zip(names, prompts, strict=True):
        text = read_json(folder / f"{name}.json", dict)["text"]
        if text != prompt["prompt"]:
            raise UserError(
                f"{folder}/{name}.wav is of {text!r}, and {prompt['prompt']!r} was to be made;"
                f" remove {folder}/sounds and run again: sh egs/tta/quickstart/run.sh --output_dir"
                f" {quote(str(folder))}"
            )


def compare_samplers(
    config: Config,
    pipeline: Pipeline,
    vocoder: Vocoder,
    prompts: Prompts,
    samplers: Sequence[str],
    steps: Sequence[int],
) -> Iterator[list]:
    """For each number of steps: it, seconds a sound, and how many each sampler gets recognised."""
    listener, mel = train_listener(config), config.preprocess.mel
    texts = [prompt["prompt"] for prompt in prompts]
    for count in steps:
        recognised, began = [], time.perf_counter()
        for sampler in samplers:
            settings = pipeline.settings.sampling_with(sampler=sampler, num_steps=count)
            sounds = generate(pipeline, vocoder, texts, settings, BATCH_SIZE)
            heard = listener.hear([mel_of_wav(sound.wav, mel) for sound in sounds])
            right = [kind == prompt["Kind"] for kind, prompt in zip(heard, prompts, strict=True)]
            recognised.append(sum(right))
        seconds = (time.perf_counter() - began) / len(samplers) / len(prompts)
        yield [count, f"{seconds:.2f}", *recognised]
