"""Edits a sound by a sentence:

    sh egs/tta/audit/run_edit.sh --audio street.wav --text "Drop the sound of the dog barking"

Writes NNNN.wav (rate, channels and bits are the sound's own), NNNN.png (before, after and the
difference) and the receipt NNNN.json for every edit, under numbers that are still free.
"""

from __future__ import annotations

import argparse
import json
import sys
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bins.tta.inference import PromptParser, add_lora_argument, in_utf8, vocoder_of
from utils.cli import at_least_1, run_main
from utils.errors import UserError

if TYPE_CHECKING:
    from models.tta.editing.jobs import Job
    from models.tta.editing.pipeline import EditorSettings, EditSettings
    from models.tta.editing.source import SoundToEdit

# What belongs to one edit, and is in the list where there is one.
OF_AN_EDIT = ("text", "task", "region", "cutoff")


def main() -> None:
    arguments = parse()
    edit(arguments, jobs_of(arguments))


def parse() -> argparse.Namespace:
    parser = PromptParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--audio", type=in_utf8, help="the sound's file: any format, rate, channels")
    what.add_argument(
        "--list",
        type=expanduser,
        help="a CSV with audio,text[,name,task,begin,end,cutoff], or the test.json of triplets;"
        " outputs that have a name and are there already are not made again",
    )
    parser.add_argument("--text", type=in_utf8, help="the instruction")
    parser.add_argument(
        "--task",
        help="add, drop, replace, inpaint or super_resolution; default: what the text asks for",
    )
    parser.add_argument(
        "--region",
        type=float,
        nargs=2,
        action="append",
        metavar=("BEGIN", "END"),
        help="seconds outside which nothing changes; the gap to inpaint; may be given again",
    )
    parser.add_argument(
        "--cutoff",
        type=float,
        help="Hz, below which super-resolution keeps the sound; default: half of a low rate",
    )
    parser.add_argument(
        "--changed_over",
        type=float,
        metavar="DB",
        help="without a region: where the edit changes less, every sample stays as it is; 0: no"
        " part is left out; default: 2",
    )
    parser.add_argument(
        "--anew",
        action="store_true",
        help="make what is edited by VAE and vocoder alone, instead of in the sound's own spectrum",
    )
    parser.add_argument("--num_samples", type=at_least_1, default=1, help="of each edit")
    parser.add_argument("--seed", type=int, help="of an edit's first sample, + 1 each; default: 0")
    parser.add_argument("--num_steps", type=int, help="sampling steps; default: the model's")
    parser.add_argument("--sampler", help="ddim, dpm++, euler, pndm or unipc; default: the model's")
    parser.add_argument("--text_guidance", type=float, help="1: none; default: the model's")
    parser.add_argument(
        "--guidance_mean", type=float, help="share of it that shifts levels; default: the model's"
    )
    parser.add_argument(
        "--source_guidance", type=float, help="1: none, more keeps more; default: the model's"
    )
    parser.add_argument("--vocoder", type=expanduser, help="as of run_inference.sh")
    parser.add_argument(
        "--checkpoint_path", type=expanduser, help="an editor's run; default: the newest"
    )
    add_lora_argument(parser)
    parser.add_argument(
        "--log_dir", type=expanduser, default="ckpts/tta", help="of the runs; default: %(default)s"
    )
    parser.add_argument(
        "--output_dir", type=expanduser, default="output", help="default: %(default)s"
    )
    parser.add_argument("--batch_size", type=at_least_1, default=8, help="samples made at a time")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    return parser.parse_args()


def jobs_of(arguments: argparse.Namespace) -> list[Job]:
    """The edits that are asked for, each with a text."""
    from models.tta.editing.jobs import Job, read_jobs

    given = [name for name in OF_AN_EDIT if getattr(arguments, name) is not None]
    if arguments.list is not None:
        if given:
            raise UserError(f"--{given[0]}: stands in the list, for each edit")
        return read_jobs(Path(arguments.list))
    if not (arguments.text or "").strip():
        raise UserError('there is no text; say what to do: --text "Drop the sound of the dog"')
    region = tuple(map(tuple, arguments.region)) if arguments.region else None
    audio, text = expanduser(arguments.audio), arguments.text.strip()
    return [Job(audio, text, arguments.task, region, arguments.cutoff)]


def edit(arguments: argparse.Namespace, jobs: list[Job]) -> None:
    """Makes every edit and writes it. What a list holds that cannot be edited is named and left."""
    from models.tta.editing.pipeline import Editor, EditorSettings, told_by
    from models.tta.ldm.lora import base_of, find_adapters, hash_of
    from models.tta.ldm.outputs import Numbering
    from models.tta.ldm.pipeline import load_pipeline
    from models.tta.ldm.sampling import generate
    from utils.device import best_device
    from utils.progress import print_line, progress, write_line
    from utils.run_folder import find_weights

    adapters = find_adapters(arguments.lora, "AUDIT")
    base = base_of(adapters, arguments.checkpoint_path)
    folder = find_weights(base, arguments.log_dir, "AUDIT")
    print(f"model: {folder}", file=sys.stderr)
    settings, device = EditorSettings.read(folder), best_device(arguments.device)
    if arguments.list is None:
        prepared(jobs[0], arguments, settings, folder)  # its faults, before anything is loaded
    vocoder_name, vocoder = vocoder_of(arguments, settings, folder)
    editor, vocoder = load_pipeline(folder, device, Editor, adapters), vocoder.to(device)
    numbering, faults = Numbering(Path(arguments.output_dir)), 0
    made_by = {
        "vocoder": vocoder_name,
        "checkpoint": str(folder),
        "weights": hash_of(folder, "AUDIT"),
        "device": str(device),
    }
    if adapters:
        made_by["lora"] = [adapter.receipt() for adapter in adapters]
    told = {"weights": made_by["weights"], "vocoder": vocoder_name, "anew": arguments.anew}
    told["num_steps"] = arguments.num_steps or settings.sampling.num_steps

    def is_done(job: Job) -> bool:
        names = names_of(job, arguments.num_samples)
        return all(numbering.has(name, {**told, "text": job.text}, told_by) for name in names)

    to_do = [job for job in jobs if not is_done(job)]
    for fault in editor.text_encoder.faults_of([job.text for job in to_do]):
        print(f"warning: {fault}", file=sys.stderr)
    for job in progress(to_do, title="editing", unit="edit"):
        try:
            source, sampling = prepared(job, arguments, settings, folder)
        except UserError as error:
            if arguments.list is None:
                raise
            write_line(f"left out: {error}")
            faults += 1
            continue
        texts = [job.text] * arguments.num_samples
        sounds = generate(editor, vocoder, texts, sampling, arguments.batch_size, source)
        for name, sound in zip(names_of(job, arguments.num_samples), sounds, strict=True):
            path = numbering.write(sound, sampling, made_by, settings.mel.sample_rate, name)
            print_line(f"{path}  {json.dumps(sound.text, ensure_ascii=False)}")
            if sound.kept == 1:
                write_line(f"warning: {path}: nothing was changed")
            if sound.fault:
                write_line(f"warning: {path}: {sound.fault}")
    if faults:
        raise UserError(f"{arguments.list}: {faults} of {len(jobs)} edits left out, see above")


def names_of(job: Job, count: int) -> list[str | None]:
    """The names of an edit's sounds: its own, then with _1, _2, ...; None: they are numbered."""
    counted = [f"{job.name}_{number}" for number in range(1, count)]
    return [job.name, *counted] if job.name else [None] * count


def prepared(
    job: Job, arguments: argparse.Namespace, settings: EditorSettings, folder: Path
) -> tuple[SoundToEdit, EditSettings]:
    """The sound of an edit, and its settings; UserError where it cannot be."""
    from models.tta.editing.instructions import WAYS, check_task, task_of, way_of
    from models.tta.editing.source import SoundToEdit

    task = job.task or task_of(job.text)
    told = job.task not in (None, "keep")  # of what is to be kept, its text asks for a change
    way = WAYS.get(task) if told else way_of(job.text)
    check_task(task, settings.tasks, folder)
    try:
        source = SoundToEdit.read_for(job.audio, settings.mel)
    except UserError as error:
        raise UserError(f"--audio {error}") from None
    changes = {
        **{n: getattr(arguments, n) for n in ("seed", "num_steps", "sampler", "guidance_mean")},
        "guidance_scale": arguments.text_guidance,
        "source_guidance": arguments.source_guidance,
        "changed_over": arguments.changed_over,
        "anew": arguments.anew,
        "only": None if arguments.anew else way,
        "region": job.region,
        "cutoff": job.cutoff,
    }
    if arguments.list is not None and (job.region or task == "super_resolution"):
        del changes["changed_over"]  # is for the others of the list
    try:
        return source, source.settings_for(settings, job.audio, task, **changes)
    except UserError as error:
        raise UserError(f"--{error}".replace("--guidance_scale", "--text_guidance")) from None


if __name__ == "__main__":
    run_main(main)
