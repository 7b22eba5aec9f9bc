"""What is the quickstart's own: its data at the start, its page at the end, a look at samplers.

python bins/tta/quickstart.py data      sounds, captions, prompts (run.sh begins with it)
python bins/tta/quickstart.py page      index.html and recognised.csv (run.sh ends with it)
python bins/tta/quickstart.py samplers  how many sounds are recognised, by sampler and steps
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import run_main
from utils.errors import UserError

if TYPE_CHECKING:  # heavy, and --help is at once
    from config.schema import Config
    from models.tta.evaluation.recognition import Classifier

FOLDER = Path("quickstart")
CONFIG = "egs/tta/quickstart/autoencoderkl.json"
SEED = 0
SAMPLERS = ("ddim", "pndm", "dpm++", "unipc")
STEPS = (3, 5, 10, 15, 25, 50)
BATCH_SIZE = 25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {"data": make_data, "page": make_page, "samplers": compare_samplers}
    parser.add_argument("command", choices=commands)
    commands[parser.parse_args().command]()


def make_data() -> None:
    """quickstart/data/Demo/{wav/,captions.csv} and quickstart/prompts.txt; not made twice."""
    from config.load import load_config
    from preprocessors.demo import demo_prompts, make_demo

    folder = FOLDER / "data" / "Demo"
    if not (folder / "captions.csv").exists():  # written last
        make_demo(folder, load_config(CONFIG).preprocess.sample_rate, SEED)
    prompts = [prompt["prompt"] for prompt in demo_prompts(SEED)]
    (FOLDER / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")


def make_page() -> None:
    """Has a classifier, trained on the real clips alone, hear the sounds; writes the page."""
    from config.load import load_config
    from models.tta.evaluation.page import PageClip, write_page
    from preprocessors.demo import demo_prompts
    from processors.mel import mel_of_wav
    from processors.metadata import load_split
    from utils.audio import read_wav

    config = load_config(CONFIG)
    mel = config.preprocess.mel
    captions = {record["Caption"] for record in load_split(config, "train")}
    prompts = demo_prompts(SEED)
    wavs = [FOLDER / "sounds" / f"{number:04d}.wav" for number in range(len(prompts))]
    missing = [wav for wav in wavs if not wav.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; run: sh egs/tta/quickstart/run.sh")
    heard = classifier(config).hear([mel_of_wav(read_wav(w, mel.sample_rate), mel) for w in wavs])
    clips = [
        PageClip(
            file=f"sounds/{wav.name}",
            picture=f"sounds/{wav.with_suffix('.png').name}",
            prompt=prompt["prompt"],
            kind=prompt["Kind"],
            heard=kind,
            new_wording=prompt["prompt"] not in captions,
        )
        for wav, prompt, kind in zip(wavs, prompts, heard, strict=True)
    ]
    stages = [
        (path.name[2:], float(path.read_text())) for path in sorted((FOLDER / "seconds").iterdir())
    ]
    page = write_page(
        FOLDER,
        title="Arion quickstart",
        intro="Sounds made from sentences by models trained on this machine, from nothing.",
        clips=clips,
        stages=stages,
    )
    recognised = sum(clip.recognised for clip in clips)
    print(f"{recognised} of {len(clips)} sounds recognised as what was asked for")
    print(f"{sum(seconds for _, seconds in stages):.0f} s in all; now open {page}")


def classifier(config: Config) -> Classifier:
    """Trained on the real clips of the training set."""
    import numpy as np

    from models.tta.evaluation.recognition import train_classifier
    from processors.metadata import load_split, mel_path

    # A clip of two events is of no one kind.
    records = [r for r in load_split(config, "train") if " + " not in r["Kind"]]
    real = [np.load(mel_path(config, record)) for record in records]
    return train_classifier(real, [record["Kind"] for record in records])


def compare_samplers() -> None:
    """Prints how many of the hundred sounds are recognised, and their time, in a table."""
    import time

    from config.load import load_config
    from models.tta.ldm.pipeline import load_pipeline
    from models.tta.ldm.sampling import generate
    from models.vocoders.load import load_vocoder
    from preprocessors.demo import demo_prompts
    from processors.mel import mel_of_wav
    from utils.run_folder import find_weights

    config, prompts = load_config(CONFIG), demo_prompts(SEED)
    folder = find_weights(None, config.log_dir, "AudioLDM")
    listener, mel = classifier(config), config.preprocess.mel
    pipeline, vocoder = load_pipeline(folder, "cpu"), load_vocoder("griffin_lim", mel)
    print("| steps | seconds a sound | " + " | ".join(SAMPLERS) + " |")
    print("|---" * (2 + len(SAMPLERS)) + "|")
    for steps in STEPS:
        recognised, began = [], time.perf_counter()
        for sampler in SAMPLERS:
            settings = pipeline.settings.sampling_with(num_steps=steps, sampler=sampler)
            texts = [prompt["prompt"] for prompt in prompts]
            sounds = generate(pipeline, vocoder, texts, settings, BATCH_SIZE)
            heard = listener.hear([mel_of_wav(sound.wav, mel) for sound in sounds])
            right = [kind == prompt["Kind"] for kind, prompt in zip(heard, prompts, strict=True)]
            recognised.append(sum(right))
        seconds = (time.perf_counter() - began) / len(SAMPLERS) / len(prompts)
        print(f"| {steps} | {seconds:.2f} | " + " | ".join(map(str, recognised)) + " |", flush=True)


if __name__ == "__main__":
    run_main(main)
