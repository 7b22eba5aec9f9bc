"""Turns sentences into sound: sh egs/tta/audioldm/run_inference.sh --text "A man is whistling"

Writes NNNN.wav, its mel picture NNNN.png and its receipt NNNN.json (all that is needed to make the
same sound again) for every sound, under numbers that are still free.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import run_main
from utils.errors import UserError


def main() -> None:
    arguments = parse()
    prompts = read_prompts(arguments.text, arguments.text_file)
    check(arguments, prompts)
    generate(arguments, prompts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="what to hear")
    what.add_argument("--text_file", help="a file with a prompt on each line")
    parser.add_argument("--num_samples", type=int, default=1, help="sounds for each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the first sound, + 1 each")
    parser.add_argument("--num_steps", type=int, help="sampling steps; default: the config's")
    parser.add_argument("--guidance_scale", type=float, help="1: none; default: the config's")
    parser.add_argument("--negative_text", default="", help="what not to hear")
    parser.add_argument("--duration", type=float, help="seconds; default: the training length")
    parser.add_argument("--sampler", choices=("ddim", "dpm++", "pndm", "unipc"))
    parser.add_argument("--vocoder", help="griffin_lim, or a folder with HiFi-GAN weights")
    parser.add_argument("--checkpoint_path", help="stage-2 run; default: the newest")
    parser.add_argument("--log_dir", default="ckpts/tta", help="where runs are looked for")
    parser.add_argument("--output_dir", default="output", help="default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=8, help="sounds made at a time")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    return parser.parse_args()


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


def check(arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Ranges, before any work."""
    for text in (*prompts, arguments.negative_text):
        if text.encode("utf-8", "replace").decode() != text:
            raise UserError(f"{text!r} must be text in UTF-8")
    for name, low in (("num_samples", 1), ("num_steps", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < low:
            raise UserError(f"--{name} {value} must be at least {low}")
    if arguments.seed >= 2**62:
        raise UserError(f"--seed {arguments.seed} must be less than 2^62")
    guidance, duration = arguments.guidance_scale, arguments.duration
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 1):
        raise UserError(f"--guidance_scale {guidance} must be at least 1 (1 switches it off)")
    if duration is not None and not (math.isfinite(duration) and 0 < duration <= 600):
        raise UserError(f"--duration {duration} must be more than 0 and at most 600 seconds")


def generate(arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Makes every sound and writes it; sound k has the seed `--seed` + k."""
    from tqdm import tqdm

    from models.tta.ldm.outputs import Numbering
    from models.tta.ldm.pipeline import load_pipeline
    from models.vocoders.load import load_vocoder
    from utils.checkpoint import file_hash
    from utils.device import best_device
    from utils.run_folder import find_weights

    folder = find_weights(arguments.checkpoint_path, arguments.log_dir, "AudioLDM")
    device = best_device(arguments.device)
    pipeline = load_pipeline(folder, device)
    settings = sampling_settings(arguments, pipeline.config)
    vocoder = load_vocoder(settings["vocoder"], pipeline.mel).to(device)
    frames = settings.pop("frames")
    warn_of_long_prompts(prompts, pipeline)

    jobs = [prompt for prompt in prompts for _ in range(arguments.num_samples)]
    numbering = Numbering(Path(arguments.output_dir))
    made_by = {
        "checkpoint": str(folder),
        "weights": file_hash(folder / "unet.safetensors")[:12],
        "device": str(device),
    }
    progress = tqdm(total=len(jobs), desc="generating", unit="sound")
    for first in range(0, len(jobs), arguments.batch_size):
        texts = jobs[first : first + arguments.batch_size]
        seeds = [arguments.seed + first + place for place in range(len(texts))]
        mels = pipeline(
            texts,
            seeds,
            negative=settings["negative_text"],
            num_steps=settings["num_steps"],
            guidance_scale=settings["guidance_scale"],
            sampler=settings["sampler"],
            frames=frames,
        )
        wavs = vocoder(mels)[:, : round(settings["duration"] * pipeline.mel.sample_rate)]
        for text, seed, mel, wav in zip(texts, seeds, mels.cpu(), wavs.cpu(), strict=True):
            receipt = {"text": text, "seed": seed, **settings, **made_by}
            path = numbering.write(wav.numpy(), mel.numpy(), pipeline.mel.sample_rate, receipt)
            progress.write(f"{path}  {json.dumps(text, ensure_ascii=False)}")
        progress.update(len(texts))
    progress.close()


def sampling_settings(arguments: argparse.Namespace, config) -> dict:
    """What a receipt holds besides text and seed: the command line's word, else the config's."""
    from config.model_schema import fault_of_steps

    defaults, mel = config.inference, config.preprocess.mel
    chosen = {
        name: getattr(defaults, name)
        if getattr(arguments, name) is None
        else getattr(arguments, name)
        for name in ("sampler", "num_steps", "guidance_scale", "vocoder")
    }
    steps, schedule = chosen["num_steps"], config.model.noise_scheduler.num_train_timesteps
    if fault := fault_of_steps(chosen["sampler"], steps, schedule):
        raise UserError(f"--num_steps {steps} {fault}")
    frames = config.preprocess.segment_frames
    duration = arguments.duration or frames / mel.frames_per_second
    if arguments.duration:
        frames = max(1, math.ceil(duration * mel.frames_per_second))
    return {
        "negative_text": arguments.negative_text,
        "duration": duration,
        "frames": frames,
        **chosen,
    }


def warn_of_long_prompts(prompts: list[str], pipeline) -> None:
    """Says where the text encoder does not see the end of a prompt."""
    for prompt in prompts:
        if pipeline.text_encoder.is_cut(prompt):
            limit = pipeline.text_encoder.max_tokens
            print(f"warning: cut to {limit} tokens: {prompt[:60]!r}...", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
