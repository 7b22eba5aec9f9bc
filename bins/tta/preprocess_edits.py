"""Triplets (instruction, input, output) for editing, of data sets that are prepared already.

    python bins/tta/preprocess_edits.py [--config F] [--num_workers N] [key.path=value ...]

Mixes the sounds, makes their mels and train.json, valid.json, test.json, and a page with some of
them. A second run does only what is missing or stale; a run that was killed is gone on with by the
same command.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import add_config_arguments, add_workers, new_parser, parse_arguments, run_main
from utils.errors import UserError


def main() -> None:
    parser = new_parser(__doc__)
    add_config_arguments(parser, "egs/tta/audit/edits.json")
    add_workers(parser)
    arguments = parse_arguments(parser)

    from config.load import load_config
    from models.tta.evaluation.triplets import page_of_triplets
    from preprocessors.edits.prepare import prepare_edits

    config = load_config(arguments.config, arguments.overrides)
    if config.model_type != "Edits":
        raise UserError(
            f"{arguments.config}: model_type {config.model_type} must be Edits, as in"
            " egs/tta/audit/edits.json"
        )
    print(prepare_edits(config, arguments.num_workers))
    print(f"  to look and listen: {page_of_triplets(config)}")


if __name__ == "__main__":
    run_main(main)
