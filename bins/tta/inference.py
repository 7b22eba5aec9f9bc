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

from utils.cli import at_least_1, run_main
from utils.errors import UserError

if TYPE_CHECKING:
    from models.tta.ldm.pipeline import PipelineSettings
    from models.tta.ldm.sampling import SamplingSettings


def main() -> None:
    arguments = parse()
    make_sounds(arguments, read_prompts(arguments.text, arguments.text_file))


def parse() -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
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
        "--negative_text", type=in_utf8, help="what not to hear; default: the model's"
    )
    parser.add_argument("--duration", type=float, help="seconds; default: the training length")
    parser.add_argument("--sampler", help="ddim, dpm++, pndm or unipc; default: the model's")
    parser.add_argument(
        "--vocoder",
        type=expanduser,
        help="griffin_lim, a vocoder's run, or a folder with HiFi-GAN weights; default: the"
        " model's, else the newest of its mel in --log_dir, else griffin_lim",
    )
    parser.add_argument(
        "--checkpoint_path", type=expanduser, help="stage-2 run; default: the newest in --log_dir"
    )
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


def in_utf8(text: str) -> str:
    """An argument's type: a text that a receipt can hold."""
    if text.encode("utf-8", "replace").decode() != text:
        raise argparse.ArgumentTypeError(f"{text!r} must be text in UTF-8")
    return text


class Parser(argparse.ArgumentParser):
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
    from tqdm import tqdm

    from models.tta.convert.published import find_model
    from models.tta.ldm.outputs import Numbering
    from models.tta.ldm.pipeline import PipelineSettings, load_pipeline
    from models.tta.ldm.sampling import generate
    from models.vocoders.load import GRIFFIN_LIM, load_vocoder, newest_vocoder
    from utils.checkpoint import file_hash
    from utils.device import best_device

    judge = None
    if arguments.num_candidates > 1:
        from models.tta.ldm.ranking import find_judge

        judge = find_judge(arguments.clap, best_device(arguments.device))
    folder = find_model(arguments.checkpoint_path, arguments.log_dir)
    settings = PipelineSettings.read(folder)
    sampling = sampling_of(arguments, settings)
    device = best_device(arguments.device)
    vocoder_name = arguments.vocoder or settings.vocoder_of(folder)
    if arguments.vocoder is None and vocoder_name == GRIFFIN_LIM:
        vocoder_name = newest_vocoder(arguments.log_dir, settings.mel)
    print(f"vocoder: {vocoder_name}", file=sys.stderr)
    vocoder = load_vocoder(vocoder_name, settings.mel).to(device)
    pipeline = load_pipeline(folder, device)
    for prompt in prompts:
        for fault in pipeline.text_encoder.faults_of(prompt):
            print(f"warning: {fault}", file=sys.stderr)

    numbering = Numbering(Path(arguments.output_dir))
    made_by = {
        "vocoder": vocoder_name,
        "checkpoint": str(folder),
        "weights": file_hash(folder / "unet.safetensors")[:12],
        "device": str(device),
    }
    candidates = arguments.num_candidates
    jobs = [prompt for prompt in prompts for _ in range(arguments.num_samples * candidates)]
    progress = tqdm(total=len(jobs) // candidates, desc="generating", unit="sound")
    sounds = generate(pipeline, vocoder, jobs, sampling, arguments.batch_size)
    if judge is not None:
        sounds = judge.best(sounds, candidates, settings.mel.sample_rate)
    for sound in sounds:
        judged = {} if judge is None else judge.receipt()
        path = numbering.write(sound, sampling, made_by | judged, settings.mel.sample_rate)
        progress.write(f"{path}  {json.dumps(sound.text, ensure_ascii=False)}")
        if sound.is_quiet:
            print(f"warning: {path}: {sound.level:.0f} dB, hardly to be heard", file=sys.stderr)
        progress.update()
    progress.close()


def sampling_of(arguments: argparse.Namespace, settings: PipelineSettings) -> SamplingSettings:
    """The options' word, else the pipeline's."""
    names = [field.name for field in dataclasses.fields(settings.sampling)]
    try:
        return settings.sampling_with(**{name: getattr(arguments, name) for name in names})
    except UserError as error:
        raise UserError(f"--{error}") from None


if __name__ == "__main__":
    run_main(main)
