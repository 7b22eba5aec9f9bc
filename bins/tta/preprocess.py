"""wav + captions -> mel .npy + train.json, valid.json, test.json, for each data set of the config.

    python bins/tta/preprocess.py [--config F] [--num_workers N] [key.path=value ...]
    python bins/tta/preprocess.py --check_vocoder PATH [--config F] [key.path=value ...]
    python bins/tta/preprocess.py --check_vae RUN [--check_vocoder PATH] [--weights mn04=PATH] [...]

A second run does only what is missing or stale; a run that was killed is gone on with by the same
command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.load import load_config
from config.schema import Config
from preprocessors.prepare import prepare, some_sounds
from utils.cli import (
    add_config_arguments,
    add_workers,
    named_values,
    new_parser,
    parse_arguments,
    run_main,
)
from utils.errors import UserError

VOCODER_CLIPS = 8  # of each data set, to try a vocoder on
VAE_CLIPS = 100  # likewise a VAE, which kind by kind needs more
EVALUATION = Path("ckpts/evaluation")  # published weights of taggers, and what they heard


def main() -> None:
    parser = new_parser(__doc__)
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    add_workers(parser)
    parser.add_argument(
        "--check_vocoder",
        metavar="PATH",
        help="only try a vocoder (a HiFi-GAN's folder, or griffin_lim) on some clips",
    )
    parser.add_argument(
        "--check_vae",
        metavar="RUN",
        help="only try a VAE (a stage-1 run) on held-out clips of the prepared data sets, with"
        " --check_vocoder's vocoder; default: the newest of its mel in log_dir, else griffin_lim",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a tagger's published file, to hear what --check_vae makes; default: what is in"
        " ckpts/evaluation",
    )
    arguments = parse_arguments(parser)
    config = load_config(arguments.config, arguments.overrides)
    if config.model_type == "Edits":
        raise UserError(
            f"{arguments.config}: makes triplets; run: sh egs/tta/audit/run_preprocess.sh"
        )
    if arguments.check_vae is not None:
        check_the_vae(config, arguments)
    elif arguments.check_vocoder is not None:
        check_the_vocoder(config, arguments.check_vocoder)
    else:
        for report in prepare(config, arguments.num_workers):
            print(report)


def check_the_vocoder(config: Config, vocoder: str) -> None:
    """Tries a vocoder on a few sounds of each data set, before anything is prepared."""
    from models.tta.evaluation.clips import Clip
    from models.vocoders.check import check_vocoder

    for dataset in config.dataset:
        sounds = some_sounds(config, dataset, VOCODER_CLIPS)
        clips = [Clip(sound.stem, sound) for sound in sounds]
        out = Path(config.preprocess.processed_dir) / "vocoder_check" / dataset
        print(check_vocoder(vocoder, clips, config.preprocess.mel, out))


def check_the_vae(config: Config, arguments: argparse.Namespace) -> None:
    """Tries a VAE on held-out clips of each data set, heard by the taggers that are at hand."""
    from models.tta.evaluation.clips import read_references
    from models.tta.evaluation.features import TAGGERS, find_ears
    from models.vocoders.check import check_vae
    from models.vocoders.load import newest_vocoder
    from utils.device import best_device
    from utils.run_folder import find_weights

    mel = config.preprocess.mel
    run = find_weights(arguments.check_vae, config.log_dir, "AutoencoderKL")
    vocoder = arguments.check_vocoder or newest_vocoder(config.log_dir, mel)
    print(f"VAE: {run}, vocoder: {vocoder}", file=sys.stderr)
    chosen = named_values(arguments.weights, "--weights")
    ears, _ = find_ears(TAGGERS, chosen, EVALUATION, best_device(None))
    for dataset in config.dataset:
        clips, split, _ = read_references(dataset, config, None)
        count = min(VAE_CLIPS, len(clips))
        spread = [clips[i * len(clips) // count] for i in range(count)]
        out = Path(config.preprocess.processed_dir) / "vae_check" / dataset
        print(f"{dataset}, {count} clips of its split {split}")
        print(check_vae(run, vocoder, spread, mel, out, ears, EVALUATION / "cache"))


if __name__ == "__main__":
    run_main(main)
