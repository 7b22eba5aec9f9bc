"""What the quickstart made, heard by a classifier that was trained on the real clips alone.

python bins/tta/quickstart.py page      index.html and recognised.csv (run.sh ends with it)
python bins/tta/quickstart.py samplers  how many sounds are recognised, by sampler and steps
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import new_parser, parse_arguments, run_main

if TYPE_CHECKING:  # heavy, and --help is at once
    from config.schema import Config

STEPS = (3, 5, 10, 15, 25, 50)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("command", choices=("page", "samplers"))
    parser.add_argument("--output_dir", default="quickstart", help="default: %(default)s")
    arguments = parse_arguments(parser)
    folder = Path(arguments.output_dir)

    from config.load import load_config
    from utils.checkpoint import read_json

    places = [f"preprocess.processed_dir={folder}/data", f"log_dir={folder}/runs"]
    config = load_config("egs/tta/quickstart/autoencoderkl.json", places)
    advice = "; first run: sh egs/tta/quickstart/run.sh"
    prompts = read_json(folder / "prompts.json", list, advice)
    commands = {"page": make_page, "samplers": compare_samplers}
    commands[arguments.command](config, folder, prompts)


def make_page(config: Config, folder: Path, prompts: list[dict[str, str]]) -> None:
    from models.tta.evaluation.demo import page_of_sounds

    files = sorted((folder / "seconds").glob("*"))
    seconds = {path.name[2:]: float(path.read_text()) for path in files}
    print(page_of_sounds(config, folder, prompts, seconds))


def compare_samplers(config: Config, folder: Path, prompts: list[dict[str, str]]) -> None:
    from models.tta.evaluation import demo
    from models.tta.ldm.pipeline import load_pipeline
    from models.vocoders.load import load_vocoder
    from utils.run_folder import find_weights
    from utils.table import markdown_table

    pipeline = load_pipeline(find_weights(None, config.log_dir, "AudioLDM"), "cpu")
    vocoder = load_vocoder("griffin_lim", config.preprocess.mel)
    samplers = pipeline.settings.noise_scheduler.samplers
    rows = demo.compare_samplers(config, pipeline, vocoder, prompts, samplers, STEPS)
    print(markdown_table(["steps", "seconds a sound", *samplers], list(rows)))


if __name__ == "__main__":
    run_main(main)
