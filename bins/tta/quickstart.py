"""What the quickstart made, heard by networks that were trained on the real clips alone.

python bins/tta/quickstart.py page      index.html and recognised.csv (run.sh ends with it)
python bins/tta/quickstart.py samplers  how many sounds are recognised, by sampler and steps
python bins/tta/quickstart.py edits     edits/index.html (run_edit.sh ends with it)
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import at_least_1, new_parser, parse_arguments, run_main

if TYPE_CHECKING:  # heavy, and --help is at once
    from config.schema import Config

STEPS = (3, 5, 10, 15, 25, 50)


def main() -> None:
    parser = new_parser(__doc__)
    commands = {"page": make_page, "samplers": compare_samplers, "edits": make_page_of_edits}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--output_dir", default="quickstart", help="default: %(default)s")
    parser.add_argument(
        "--num_steps", type=at_least_1, help="of SDEdit, for edits; default: the model's"
    )
    arguments = parse_arguments(parser)
    folder = Path(arguments.output_dir)

    from config.load import load_config

    places = [f"preprocess.processed_dir={folder}/data", f"log_dir={folder}/runs"]
    name = "edits" if arguments.command == "edits" else "autoencoderkl"
    config = load_config(f"egs/tta/quickstart/{name}.json", places)
    commands[arguments.command](config, folder, arguments.num_steps)


def read_prompts(folder: Path) -> list[dict[str, str]]:
    from utils.checkpoint import read_json

    again = f"sh egs/tta/quickstart/run.sh --output_dir {shlex.quote(str(folder))}"
    return read_json(folder / "prompts.json", list, f"; first run: {again}")


def read_seconds(folder: Path) -> dict[str, float]:
    """Stages in the order they ran -> seconds."""
    files = sorted((folder / "seconds").glob("*"))
    return {path.name[2:]: float(path.read_text()) for path in files}


def make_page(config: Config, folder: Path, _: int | None) -> None:
    from models.tta.evaluation.demo import page_of_sounds

    print(page_of_sounds(config, folder, read_prompts(folder), read_seconds(folder)))


def compare_samplers(config: Config, folder: Path, _: int | None) -> None:
    from models.tta.evaluation import demo
    from models.tta.ldm.pipeline import load_pipeline
    from models.vocoders.load import load_vocoder
    from utils.run_folder import find_weights
    from utils.table import markdown_table

    prompts = read_prompts(folder)
    pipeline = load_pipeline(find_weights(None, config.log_dir, "AudioLDM"), "cpu")
    vocoder = load_vocoder("griffin_lim", config.preprocess.mel)
    samplers = pipeline.settings.noise_scheduler.samplers
    rows = demo.compare_samplers(config, pipeline, vocoder, prompts, samplers, STEPS)
    print(markdown_table(["steps", "seconds a sound", *samplers], list(rows)))


def make_page_of_edits(config: Config, folder: Path, num_steps: int | None) -> None:
    """Makes what stands beside the edits, the targets through the VAE and SDEdit, and the page."""
    import torch

    from models.tta.evaluation.demo_edits import page_of_edits
    from models.tta.evaluation.edit_rows import sdedit_rows, vae_row
    from models.tta.evaluation.edits import read_triplets
    from models.tta.ldm.pipeline import load_pipeline
    from models.vocoders.load import load_vocoder, newest_vocoder
    from utils.run_folder import find_weights

    here, mel = folder / "edits", config.preprocess.mel
    made = here / "made"
    triplets, _ = read_triplets(config.dataset[0], config, "test")
    weights, vae = (find_weights(None, config.log_dir, m) for m in ("AudioLDM", "AutoencoderKL"))
    pipeline = load_pipeline(weights, "cpu")
    sampling = pipeline.settings.sampling_with(num_steps=num_steps)
    vocoder = load_vocoder(newest_vocoder(config.log_dir, mel), mel)
    rows = vae_row(vae, vocoder, mel, triplets, made, torch.device("cpu"))
    rows |= sdedit_rows(pipeline, vocoder, sampling, triplets, made)
    print(page_of_edits(config, here, rows, read_seconds(here)))


if __name__ == "__main__":
    run_main(main)
