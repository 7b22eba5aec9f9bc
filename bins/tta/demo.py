"""Makes the quickstart's data: sounds with captions, and prompts that ask for such sounds.

    <output_dir>/data/Demo/{wav/,captions.csv}   what the models are trained on
    <output_dir>/prompts.txt                     a prompt on each line, for run_inference.sh
    <output_dir>/prompts.json                    the same, with the kind of sound that each asks for

Sounds that are there already are not made again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import new_parser, parse_arguments, run_main
from utils.errors import UserError

SEED = 0


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--output_dir", default="quickstart", help="default: %(default)s")
    parser.add_argument("--clips_per_kind", type=int, default=80, help="default: %(default)s")
    parser.add_argument("--prompts_per_kind", type=int, default=10, help="default: %(default)s")
    arguments = parse_arguments(parser)
    if not 10 <= arguments.clips_per_kind <= 1000:
        raise UserError(f"--clips_per_kind {arguments.clips_per_kind} must be from 10 to 1000")
    if not 1 <= arguments.prompts_per_kind <= 10:
        raise UserError(f"--prompts_per_kind {arguments.prompts_per_kind} must be from 1 to 10")
    make(Path(arguments.output_dir), arguments.clips_per_kind, arguments.prompts_per_kind)


def make(folder: Path, clips_per_kind: int, prompts_per_kind: int) -> None:
    from config.load import load_config
    from preprocessors.demo import demo_clips, demo_prompts, make_demo

    config = load_config("egs/tta/quickstart/autoencoderkl.json")
    clips = demo_clips(SEED, clips_per_kind)
    if not (folder / "data" / "Demo" / "captions.csv").exists():  # written last
        make_demo(folder / "data" / "Demo", clips, config.preprocess.sample_rate, SEED)
    prompts = demo_prompts(clips, prompts_per_kind)
    texts = "".join(prompt["prompt"] + "\n" for prompt in prompts)
    (folder / "prompts.txt").write_text(texts, encoding="utf-8")
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
