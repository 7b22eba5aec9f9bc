"""wav + captions -> mel .npy + train.json, valid.json, test.json, for each data set of the config.

    python bins/tta/preprocess.py [--config F] [--num_workers N] [key.path=value ...]
    python bins/tta/preprocess.py --check_vocoder PATH [--config F] [key.path=value ...]

A second run does only what is missing or stale; a run that was killed is gone on with by the same
command.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.load import load_config
from preprocessors.prepare import prepare, some_sounds
from utils.cli import add_config_arguments, parse_arguments, run_main

VOCODER_CLIPS = 8  # of each data set, to try a vocoder on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    parser.add_argument(
        "--num_workers", type=_positive, default=_usable_cores(), help="default: %(default)s"
    )
    parser.add_argument(
        "--check_vocoder",
        metavar="PATH",
        help="only try a vocoder (a HiFi-GAN's folder, or griffin_lim) on some clips",
    )
    arguments = parse_arguments(parser)
    config = load_config(arguments.config, arguments.overrides)
    if arguments.check_vocoder is None:
        for report in prepare(config, arguments.num_workers):
            print(report)
        return

    from models.vocoders.check import check_vocoder

    for dataset in config.dataset:
        sounds = some_sounds(config, dataset, VOCODER_CLIPS)
        out = Path(config.preprocess.processed_dir) / "vocoder_check" / dataset
        print(check_vocoder(arguments.check_vocoder, sounds, config.preprocess.mel, out))


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, cores or 1)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    run_main(main)
