"""Turns sentences into sound: sh egs/tta/audioldm/run_inference.sh --text "A man is whistling"

Writes NNNN.wav, its mel picture NNNN.png and its receipt NNNN.json (all that is needed to make the
same sound again) for every sound, under numbers that are still free.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import Parser, at_least_1, run_main
from utils.errors import UserError

if TYPE_CHECKING:
    from models.tta.ldm.pipeline import PipelineSettings
    from models.tta.ldm.sampling import SamplingSettings
    from models.tta.ldm.source import Source
    from models.vocoders.load import Vocoder


def main() -> None:
    arguments = parse()
    make_sounds(arguments, read_prompts(arguments.text, arguments.text_file))


def parse() -> argparse.Namespace:
    parser = PromptParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--text", type=in_utf8, help="what to hear; where it begins with a dash, --text=-..."
    )
    what.add_argument("--text_file", type=expanduser, help="a file with a prompt on each line")
    parser.add_argument("--num_samples", type=at_least_1, default=1, help="sounds for each prompt")
    parser.add_argument(
        "--num_candidates",
        type=at_least_1,
        default=1,
        help="sounds made for each that is kept: the one that CLAP finds nearest to the text",
    )
    parser.add_argument(
        "--clap", type=expanduser, help="that CLAP; default: ckpts/evaluation/clap-htsat-unfused"
    )
    parser.add_argument("--seed", type=int, help="of the first sound, + 1 each; default: 0")
    parser.add_argument("--num_steps", type=int, help="sampling steps; default: the model's")
    parser.add_argument("--guidance_scale", type=float, help="1: none; default: the model's")
    parser.add_argument(
        "--guidance_mean",
        type=float,
        help="share of it that shifts levels, 0 to 1; default: the model's",
    )
    parser.add_argument(
        "--negative_text", type=in_utf8, help="what not to hear; default: the model's"
    )
    parser.add_argument("--duration", type=float, help="seconds; default: the training length")
    add_audio_arguments(parser)
    parser.add_argument("--sampler", help="ddim, dpm++, euler, pndm or unipc; default: the model's")
    parser.add_argument(
        "--vocoder",
        type=expanduser,
        help="griffin_lim, a vocoder's run, or a folder with HiFi-GAN weights; default: the"
        " model's, else the newest of its mel in --log_dir, else griffin_lim",
    )
    parser.add_argument(
        "--checkpoint_path", type=expanduser, help="stage-2 run; default: the newest in --log_dir"
    )
    add_lora_argument(parser)
    parser.add_argument(
        "--log_dir",
        type=expanduser,
        default="ckpts/tta",
        help="training's log_dir, where runs are looked for; default: %(default)s",
    )
    parser.add_argument(
        "--output_dir", type=expanduser, default="output", help="default: %(default)s"
    )
    parser.add_argument("--batch_size", type=at_least_1, default=8, help="sounds made at a time")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    return parser.parse_args()


def add_audio_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("to change a sound instead of making one")
    group.add_argument("--audio", type=in_utf8, help="its file; what to do with it is one of these")
    group.add_argument("--strength", type=float, help="turn it into the text: 0 not, 1 wholly")
    group.add_argument(
        "--region",
        type=float,
        nargs=2,
        action="append",
        metavar=("BEGIN", "END"),
        help="seconds to make anew; may be given again",
    )
    group.add_argument("--extend", type=float, help="seconds to make after its end")
    group.add_argument("--task", help="super_resolution: make anew what is above --cutoff")
    group.add_argument(
        "--cutoff", type=float, help="Hz; default: half of its rate, if below the model's"
    )
    group.add_argument(
        "--resample", type=int, help="times to go each part of the way (RePaint); default: 1"
    )


def add_lora_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lora",
        type=expanduser,
        action="append",
        default=[],
        metavar="RUN[:WEIGHT]",
        help="adapters to add, 1 times by default; may be given again. Without --checkpoint_path,"
        " to the model that they were trained on",
    )


def in_utf8(text: str) -> str:
    """An argument's type: a text that a receipt can hold."""
    if text.encode("utf-8", "replace").decode() != text:
        raise argparse.ArgumentTypeError(f"{text!r} must be text in UTF-8")
    return text


class PromptParser(Parser):
    def error(self, message: str) -> NoReturn:
        """Explains what argparse takes a text for that begins with a dash."""
        if "text: expected one argument" in message:
            message += '; where the text begins with a dash, write --text="-..."'
        super().error(message)


def read_prompts(text: str | None, text_file: str | None) -> list[str]:
    """The prompts, each not empty; blank lines of a file are left out."""
    if text is not None:
        prompts = [text.strip()]
    else:
        try:
            lines = Path(text_file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--text_file {text_file}: cannot be read as text: {error}") from None
        prompts = [line.strip() for line in lines if line.strip()]
    if not prompts or not all(prompts):
        raise UserError('there is no text; say what to hear: --text "A man is whistling"')
    return prompts


def make_sounds(arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Makes every sound and writes it; sound k has the seed `--seed` + k."""
    from models.tta.convert.published import find_model
    from models.tta.ldm.lora import base_of, find_adapters, hash_of
    from models.tta.ldm.outputs import Numbering
    from models.tta.ldm.pipeline import PipelineSettings, load_pipeline
    from models.tta.ldm.sampling import generate
    from utils.device import best_device
    from utils.progress import print_line, progress, write_line

    judge = None
    if arguments.num_candidates > 1:
        from models.tta.ldm.ranking import find_judge

        judge = find_judge(arguments.clap, best_device(arguments.device))
    adapters = find_adapters(arguments.lora, "AudioLDM")
    folder = find_model(base_of(adapters, arguments.checkpoint_path), arguments.log_dir)
    print(f"model: {folder}", file=sys.stderr)
    settings = PipelineSettings.read(folder)
    source = read_source(arguments, settings)
    sampling = sampling_of(arguments, settings, source)
    device = best_device(arguments.device)
    vocoder_name, vocoder = vocoder_of(arguments, settings, folder)
    vocoder = vocoder.to(device)
    pipeline = load_pipeline(folder, device, adapters=adapters)
    for fault in pipeline.text_encoder.faults_of(prompts):
        print(f"warning: {fault}", file=sys.stderr)

    candidates = arguments.num_candidates
    jobs = [prompt for prompt in prompts for _ in range(arguments.num_samples * candidates)]
    sounds = generate(pipeline, vocoder, jobs, sampling, arguments.batch_size, source)
    if judge is not None:
        sounds = judge.best(sounds, candidates, settings.mel.sample_rate)
    numbering = Numbering(Path(arguments.output_dir))
    made_by = {
        "vocoder": vocoder_name,
        "checkpoint": str(folder),
        "weights": hash_of(folder, "AudioLDM"),
        "device": str(device),
    }
    if adapters:
        made_by["lora"] = [adapter.receipt() for adapter in adapters]
    bar = progress(total=len(jobs) // candidates, title="generating", unit="sound")
    for sound in sounds:
        judged = {} if judge is None else judge.receipt()
        path = numbering.write(sound, sampling, made_by | judged, settings.mel.sample_rate)
        print_line(f"{path}  {json.dumps(sound.text, ensure_ascii=False)}")
        if sound.fault:
            write_line(f"warning: {path}: {sound.fault}")
        bar.update()
    bar.close()


def vocoder_of(
    arguments: argparse.Namespace, settings: PipelineSettings, folder: Path
) -> tuple[str, Vocoder]:
    """The vocoder that `--vocoder` names, else that of the model in `folder`, with its name."""
    from models.vocoders.load import GRIFFIN_LIM, load_vocoder, newest_vocoder

    name = arguments.vocoder or settings.vocoder_of(folder)
    if arguments.vocoder is None and name == GRIFFIN_LIM:
        name = newest_vocoder(arguments.log_dir, settings.mel)
    print(f"vocoder: {name}", file=sys.stderr)
    return name, load_vocoder(name, settings.mel)


def read_source(arguments: argparse.Namespace, settings: PipelineSettings) -> Source | None:
    """The sound of `--audio`; without, nothing may be said of one."""
    from models.tta.ldm.source import Source

    if arguments.audio is None:
        return None
    if arguments.duration is not None:
        raise UserError(f"--duration {arguments.duration:g}: a changed sound keeps its length")
    if all(getattr(arguments, name) is None for name in ("strength", "region", "extend", "task")):
        raise UserError(
            f"--audio {arguments.audio}: what to do with it? --strength 0.4 turns it into the text,"
            " --region 2.5 4 fills these seconds, --extend 5 goes on, --task super_resolution"
            " makes what is above --cutoff"
        )
    try:
        return Source.read(expanduser(arguments.audio), settings.mel.sample_rate)
    except UserError as error:
        raise UserError(f"--audio {error}") from None


def sampling_of(
    arguments: argparse.Namespace, settings: PipelineSettings, source: Source | None
) -> SamplingSettings:
    """The options' word, else the pipeline's."""
    names = [field.name for field in dataclasses.fields(settings.sampling)]
    given = {name: getattr(arguments, name) for name in names}
    if arguments.region:
        given["region"] = tuple(map(tuple, arguments.region))
    if source is not None:
        given["duration"] = source.seconds + (arguments.extend or 0)
        half = source.recording.sample_rate / 2
        if arguments.task and arguments.cutoff is None and half < settings.mel.fmax:
            given["cutoff"] = half
    try:
        return settings.sampling_with(**given)
    except UserError as error:
        raise UserError(f"--{error}") from None


if __name__ == "__main__":
    run_main(main)
