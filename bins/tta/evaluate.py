"""Generated sounds measured against references: sh egs/tta/evaluation/run_evaluate.sh

    run_evaluate.sh --generated DIR --reference DATASET|DIR [...]
    run_evaluate.sh --checkpoint_path RUN --reference DATASET|DIR [...]
    run_evaluate.sh --edits DIR --triplets DATASET [--vae RUN] [--sdedit RUN] [...]
    run_evaluate.sh compare A.json B.json

Writes evaluation.json, evaluation.md and index.html (to listen to the best and the worst). What was
heard once is kept by the content of the sounds; a run that was killed is gone on with by the same
command. With --checkpoint_path, the sounds are made first: one for each reference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import (
    add_config_arguments,
    at_least_1,
    named_values,
    new_parser,
    parse_arguments,
    run_main,
)
from utils.errors import UserError

if TYPE_CHECKING:
    from config.schema import Config
    from models.tta.evaluation.clips import Clip
    from models.tta.evaluation.edits import Triplet
    from models.tta.ldm.pipeline import Pipeline, PipelineSettings
    from models.tta.ldm.sampling import SamplingSettings
    from models.vocoders.load import Vocoder

SAMPLING = ("sampler", "num_steps", "guidance_scale", "guidance_mean", "duration", "seed")


def main() -> None:
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
        return
    arguments = parse()
    if arguments.edits is not None:
        evaluate_edits(arguments)
    else:
        evaluate(arguments)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--generated",
        help="folder of sounds, receipts (NNNN.json) beside them; with --checkpoint_path, where"
        " they are put; default: output/RUN_REFERENCE_SPLIT",
    )
    parser.add_argument(
        "--edits", help="folder of edited sounds, <Uid of the triplet>.wav; with --triplets"
    )
    parser.add_argument(
        "--triplets", help="the edits' data set, as the editor's preprocessing made it"
    )
    parser.add_argument(
        "--reference",
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
    _add_models(parser)
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    arguments = parse_arguments(parser)
    what = arguments.generated, arguments.checkpoint_path
    if arguments.edits is None and (arguments.reference is None or what == (None, None)):
        parser.error(
            "--reference, and --generated DIR or --checkpoint_path RUN, say what to evaluate; or"
            " --edits and --triplets"
        )
    if (arguments.edits is None) != (arguments.triplets is None):
        parser.error("--edits DIR and --triplets DATASET go together")
    return arguments


def _add_models(parser: argparse.ArgumentParser) -> None:
    """Options of models whose sounds are evaluated, or stand beside them."""
    beside = parser.add_argument_group("rows beside edits")
    beside.add_argument("--vae", help="stage-1 run: the targets through it and the vocoder")
    beside.add_argument("--sdedit", help="stage-2 run: SDEdit by it at three strengths")
    make = parser.add_argument_group("to make sounds first, or SDEdit's")
    make.add_argument("--checkpoint_path", help="stage-2 run, of which they are made")
    make.add_argument("--vocoder", help="default: as for inference")
    make.add_argument("--sampler", help="default: the model's")
    make.add_argument("--num_steps", type=int, help="default: the model's")
    make.add_argument("--guidance_scale", type=float, help="default: the model's")
    make.add_argument("--guidance_mean", type=float, help="default: the model's")
    make.add_argument("--duration", type=float, help="seconds; default: the training length")
    make.add_argument("--seed", type=int, help="of the first reference's, + 1 each; default: 0")
    make.add_argument("--batch_size", type=at_least_1, default=8, help="sounds made at a time")


def evaluate(arguments: argparse.Namespace) -> None:
    from config.load import load_config
    from models.tta.evaluation.clips import read_folder, read_references
    from models.tta.evaluation.evaluate import Evaluation

    hearing = ears_of(arguments)
    config = load_config(arguments.config, arguments.overrides)
    references, split, missing = read_references(arguments.reference, config, arguments.split)
    if arguments.checkpoint_path is not None:
        make_sounds(arguments, config.log_dir, references, split)
    folders = named_values(arguments.control, "--control")
    controls = {name: read_folder(Path(folder)) for name, folder in folders.items()}
    generated = read_folder(Path(arguments.generated))
    evaluation = Evaluation(generated, references, split, missing, controls, **hearing)
    report(evaluation.run(), arguments.output_dir or f"{arguments.generated}/evaluation")


def ears_of(arguments: argparse.Namespace) -> dict:
    """What an Evaluation needs to know of how sounds are heard; UserError where none can be."""
    from models.tta.evaluation.features import find_ears
    from models.tta.evaluation.protocol import find_protocol
    from models.tta.evaluation.report import not_run_lines
    from utils.device import best_device

    names = arguments.backbones.split(",") if arguments.backbones else None
    protocol = find_protocol(arguments.protocol, arguments.seconds, names)
    chosen = named_values(arguments.weights, "--weights")
    weights_dir, device = Path(arguments.weights_dir), best_device(arguments.device)
    ears, not_run = find_ears(protocol.backbones, chosen, weights_dir, device)
    if not ears:
        missing = {
            b.name: {"file": b.file, "where": b.where, "folder": str(weights_dir)} for b in not_run
        }
        listed = "\n  ".join(not_run_lines({"not_run": missing}))
        raise UserError(f"no backbone's weights are at hand\n  {listed}")
    return {
        "protocol": protocol,
        "ears": ears,
        "not_run": not_run,
        "weights_dir": weights_dir,
        "cache": Path(arguments.cache_dir),
        "replicates": arguments.bootstrap,
    }


def report(result: dict, folder: str) -> None:
    from models.tta.evaluation.report import text, write_report

    page = write_report(Path(folder), result)
    print(text(result))
    print(f"to listen: {page}")


def evaluate_edits(arguments: argparse.Namespace) -> None:
    """Edited sounds beside their targets, the sources, and what is made to compare with."""
    from config.load import load_config
    from models.tta.evaluation import edits
    from models.tta.evaluation.evaluate import Evaluation

    hearing = ears_of(arguments)
    config = load_config(arguments.config, arguments.overrides)
    triplets, split = edits.read_triplets(arguments.triplets, config, arguments.split)
    out = arguments.output_dir or f"{arguments.edits}/evaluation"
    folders = {
        **rows_to_make(arguments, config, triplets, Path(out) / "made"),
        **named_values(arguments.control, "--control"),
    }
    controls = {edits.IDENTITY: edits.sources_of(triplets)}
    controls |= {name: edits.clips_of(triplets, Path(folder)) for name, folder in folders.items()}
    edited = edits.clips_of(triplets, Path(arguments.edits))
    evaluation = Evaluation(edited, edits.targets_of(triplets), split, [], controls, **hearing)
    result = evaluation.run()
    rate = config.preprocess.sample_rate
    result["edits"] = edits.edit_table(evaluation, triplets, rate)
    result["note"] = f"{result['note']} {edits.NOTE}"
    report(result, out)


def rows_to_make(
    arguments: argparse.Namespace, config: Config, triplets: Sequence[Triplet], made: Path
) -> dict[str, Path]:
    """Makes the sounds of the rows that --vae and --sdedit ask for; their folders by row."""
    from models.tta.evaluation.edit_rows import sdedit_rows, vae_row
    from models.vocoders.load import load_vocoder, newest_vocoder
    from utils.device import best_device
    from utils.run_folder import find_weights

    rows, mel = {}, config.preprocess.mel
    if arguments.vae is not None:
        folder = find_weights(arguments.vae, config.log_dir, "AutoencoderKL")
        name = arguments.vocoder or newest_vocoder(config.log_dir, mel)
        print(f"VAE: {folder}, vocoder: {name}", file=sys.stderr)
        device = best_device(arguments.device)
        vocoder = load_vocoder(name, mel).to(device)
        rows |= vae_row(folder, vocoder, mel, triplets, made, device)
    if arguments.sdedit is not None:
        pipeline, vocoder, _ = text_to_audio(arguments, arguments.sdedit, config.log_dir)
        sampling = sampling_of(arguments, pipeline.settings)
        rows |= sdedit_rows(pipeline, vocoder, sampling, triplets, made)
    return rows


def make_sounds(
    arguments: argparse.Namespace, log_dir: str, references: Sequence[Clip], split: str
) -> None:
    """Makes what is not there yet of a sound for each reference; sets arguments.generated."""
    from models.tta.evaluation.generation import generate_missing, run_name
    from utils.run_folder import find_weights

    pipeline, vocoder, made_by = text_to_audio(arguments, arguments.checkpoint_path, log_dir)
    sampling = sampling_of(arguments, pipeline.settings)
    if arguments.generated is None:
        run = run_name(find_weights(arguments.checkpoint_path, log_dir, "AudioLDM"))
        reference = Path(arguments.reference).resolve().name
        arguments.generated = f"output/{run}_{reference}_{split}"
    folder, batch_size = Path(arguments.generated), arguments.batch_size
    prompts = [clip.captions[0] for clip in references if clip.captions]
    for fault in pipeline.text_encoder.faults_of(prompts):
        print(f"warning: {fault}", file=sys.stderr)
    generate_missing(folder, references, pipeline, vocoder, sampling, made_by, batch_size)


def text_to_audio(
    arguments: argparse.Namespace, run: str, log_dir: str
) -> tuple[Pipeline, Vocoder, dict[str, str]]:
    """A run's model, its vocoder as for inference, and what a receipt tells of both."""
    from models.tta.ldm.pipeline import PipelineSettings, load_pipeline
    from models.tta.ldm.text_encoder import weights_fingerprint
    from models.vocoders.load import GRIFFIN_LIM, load_vocoder, newest_vocoder
    from utils.checkpoint import file_hash
    from utils.device import best_device
    from utils.run_folder import WEIGHTS, find_weights

    folder, device = find_weights(run, log_dir, "AudioLDM"), best_device(arguments.device)
    print(f"model: {folder}", file=sys.stderr)
    settings = PipelineSettings.read(folder)
    sampling_of(arguments, settings)  # before anything large is read
    name = arguments.vocoder or settings.vocoder_of(folder)
    if arguments.vocoder is None and name == GRIFFIN_LIM:
        name = newest_vocoder(log_dir, settings.mel)
    print(f"vocoder: {name}", file=sys.stderr)
    vocoder = load_vocoder(name, settings.mel).to(device)
    made_by = {
        "vocoder": name,
        "weights": file_hash(folder / WEIGHTS["AudioLDM"])[:12],
        "vae_weights": file_hash(folder / "vae" / WEIGHTS["AutoencoderKL"])[:12],
        "vocoder_weights": weights_fingerprint(vocoder),
    }
    return load_pipeline(folder, device), vocoder, made_by


def sampling_of(arguments: argparse.Namespace, settings: PipelineSettings) -> SamplingSettings:
    """The options' word, else the pipeline's."""
    try:
        return settings.sampling_with(**{name: getattr(arguments, name) for name in SAMPLING})
    except UserError as error:
        raise UserError(f"--{error}") from None


def compare(arguments: list[str]) -> None:
    from models.tta.evaluation.report import compare

    parser = argparse.ArgumentParser(prog="evaluate.py compare", description="two results")
    parser.add_argument("one", type=Path, metavar="A.json")
    parser.add_argument("two", type=Path, metavar="B.json")
    both = parser.parse_args(arguments)
    print(compare(both.one, both.two))


if __name__ == "__main__":
    run_main(main)
