"""wav + captions -> mel .npy + train.json, valid.json, test.json, for each data set of the config.

    python bins/tta/preprocess.py [--config F] [--num_workers N] [key.path=value ...]
    python bins/tta/preprocess.py --check_vocoder PATH [--config F] [key.path=value ...]

A second run does only what is missing or stale; a run that was killed is gone on with by the same
command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.load import load_config
from preprocessors.prepare import prepare, some_sounds
from utils.cli import add_config_arguments, add_workers, parse_arguments, run_main
from utils.errors import UserError

VOCODER_CLIPS = 8  # of each data set, to try a vocoder on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    add_workers(parser)
    parser.add_argument(
        "--check_vocoder",
        metavar="PATH",
        help="only try a vocoder (a HiFi-GAN's folder, or griffin_lim) on some clips",
    )
    arguments = parse_arguments(parser)
    config = load_config(arguments.config, arguments.overrides)
    if config.model_type == "Edits":
        raise UserError(
            f"{arguments.config}: makes triplets; run: sh egs/tta/audit/run_preprocess.sh"
        )
    if arguments.check_vocoder is None:
        for report in prepare(config, arguments.num_workers):
            print(report)
        return

    from models.vocoders.check import check_vocoder

    for dataset in config.dataset:
        sounds = some_sounds(config, dataset, VOCODER_CLIPS)
        out = Path(config.preprocess.processed_dir) / "vocoder_check" / dataset
        print(check_vocoder(arguments.check_vocoder, sounds, config.preprocess.mel, out))


if __name__ == "__main__":
    run_main(main)
