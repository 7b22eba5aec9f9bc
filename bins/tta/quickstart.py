"""The two steps of the quickstart that are its own: its data at the start, its page at the end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import run_main
from utils.errors import UserError

FOLDER = Path("quickstart")
CONFIG = "egs/tta/quickstart/autoencoderkl.json"
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = {"data": make_data, "page": make_page}
    parser.add_argument(
        "command", choices=commands, help="data: sounds, captions, prompts; page: index.html"
    )
    commands[parser.parse_args().command]()


def make_data() -> None:
    """quickstart/data/Demo/{wav/,captions.csv} and quickstart/prompts.txt; not made twice."""
    from preprocessors.demo import demo_prompts, make_demo
    from utils.config import load_config

    folder = FOLDER / "data" / "Demo"
    if not (folder / "captions.csv").exists():  # written last
        make_demo(folder, load_config(CONFIG).preprocess.sample_rate, SEED)
    prompts = [prompt["prompt"] for prompt in demo_prompts(SEED)]
    (FOLDER / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")


def make_page() -> None:
    """Has a classifier, trained on the real clips alone, hear the sounds; writes the page."""
    from preprocessors.demo import demo_prompts
    from processors.metadata import load_split
    from utils.config import load_config
    from utils.page import PageClip, write_page

    config = load_config(CONFIG)
    captions = {record["Caption"] for record in load_split(config, "train")}
    prompts = demo_prompts(SEED)
    wavs = [FOLDER / "sounds" / f"{number:04d}.wav" for number in range(len(prompts))]
    clips = [
        PageClip(
            file=f"sounds/{wav.name}",
            picture=f"sounds/{wav.with_suffix('.png').name}",
            prompt=prompt["prompt"],
            kind=prompt["Kind"],
            heard=heard,
            new_wording=prompt["prompt"] not in captions,
        )
        for wav, prompt, heard in zip(wavs, prompts, hear(config, wavs), strict=True)
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


def hear(config, wavs: list[Path]) -> list[str]:
    """What a classifier trained on the real clips takes each wav for."""
    import numpy as np

    from models.tta.recognition import train_classifier
    from processors.mel import mel_of_wav
    from processors.metadata import load_split, mel_path
    from utils.audio import read_wav

    missing = [wav for wav in wavs if not wav.exists()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; run: sh egs/tta/quickstart/run.sh")
    # A clip of two events is of no one kind.
    records = [r for r in load_split(config, "train") if " + " not in r["Kind"]]
    real = [np.load(mel_path(config, record)) for record in records]
    classifier = train_classifier(real, [record["Kind"] for record in records])
    mel = config.preprocess.mel
    return classifier.hear([mel_of_wav(read_wav(wav, mel.sample_rate), mel) for wav in wavs])


if __name__ == "__main__":
    run_main(main)
