"""Generated sounds measured against references: sh egs/tta/evaluation/run_evaluate.sh

    run_evaluate.sh --generated DIR --reference DATASET|DIR [...]
    run_evaluate.sh compare A.json B.json

Writes evaluation.json, evaluation.md and index.html (to listen to the best and the worst). What was
heard once is kept by the content of the sounds; a run that was killed is gone on with by the same
command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import add_config_arguments, named_values, parse_arguments, run_main
from utils.errors import UserError


def main() -> None:
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
    else:
        evaluate(parse())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--generated", required=True, help="folder of sounds, receipts (NNNN.json) beside them"
    )
    parser.add_argument(
        "--reference",
        required=True,
        help="folder of sounds, with or without captions.csv, or a data set that was prepared",
    )
    parser.add_argument("--split", help="of the reference; default: test, else valid, else train")
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="one more folder of sounds that gets a row, such as the references through a vocoder",
    )
    parser.add_argument(
        "--protocol", default="arion", help="arion (default), audioldm_eval or av-benchmark"
    )
    parser.add_argument("--seconds", type=float, help="cut and pad every sound to this length")
    parser.add_argument("--backbones", help="such as mn04,clap; default: all of the protocol")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a backbone's published file, folder, or hub name",
    )
    parser.add_argument(
        "--weights_dir", default="ckpts/evaluation", help="published files; default: %(default)s"
    )
    parser.add_argument(
        "--cache_dir", default="ckpts/evaluation/cache", help="what was heard; default: %(default)s"
    )
    parser.add_argument("--output_dir", help="default: GENERATED/evaluation")
    parser.add_argument(
        "--bootstrap", type=int, default=50, help="draws for the errors; 0: none; default: 50"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    return parse_arguments(parser)


def evaluate(arguments: argparse.Namespace) -> None:
    from config.load import load_config
    from models.tta.evaluation.clips import read_folder, read_references
    from models.tta.evaluation.evaluate import Evaluation
    from models.tta.evaluation.features import find_ears
    from models.tta.evaluation.protocol import find_protocol
    from models.tta.evaluation.report import not_run_lines, text, write_report
    from utils.device import best_device

    names = arguments.backbones.split(",") if arguments.backbones else None
    protocol = find_protocol(arguments.protocol, arguments.seconds, names)
    chosen = named_values(arguments.weights, "--weights")
    weights_dir = Path(arguments.weights_dir)
    device = best_device(arguments.device)
    ears, not_run = find_ears(protocol.backbones, chosen, weights_dir, device)
    if not ears:
        missing = {
            b.name: {"file": b.file, "where": b.where, "folder": str(weights_dir)} for b in not_run
        }
        listed = "\n  ".join(not_run_lines({"not_run": missing}))
        raise UserError(f"no backbone's weights are at hand\n  {listed}")
    config = load_config(arguments.config, arguments.overrides)
    references, split, missing_files = read_references(arguments.reference, config, arguments.split)
    folders = named_values(arguments.control, "--control")
    result = Evaluation(
        read_folder(Path(arguments.generated)),
        references,
        split,
        missing_files,
        {name: read_folder(Path(folder)) for name, folder in folders.items()},
        protocol,
        ears,
        not_run,
        weights_dir,
        Path(arguments.cache_dir),
        arguments.bootstrap,
    ).run()
    page = write_report(Path(arguments.output_dir or f"{arguments.generated}/evaluation"), result)
    print(text(result))
    print(f"to listen: {page}")


def compare(arguments: list[str]) -> None:
    from models.tta.evaluation.report import compare

    parser = argparse.ArgumentParser(prog="evaluate.py compare", description="two results")
    parser.add_argument("one", type=Path, metavar="A.json")
    parser.add_argument("two", type=Path, metavar="B.json")
    both = parser.parse_args(arguments)
    print(compare(both.one, both.two))


if __name__ == "__main__":
    run_main(main)
