"""wav + captions -> mel .npy + train.json, valid.json, test.json, for each data set of the config.

    python bins/tta/preprocess.py [--config F] [--num_workers N] [key.path=value ...]
    python bins/tta/preprocess.py --check_vocoder PATH [--config F] [key.path=value ...]

A second run does only what is missing or stale; a run that was killed is gone on with by the same
command. Under a launcher with several processes (accelerate, torchrun) they share the clips out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from config.load import load_config
from config.schema import Config
from preprocessors.audiocaps import csv_files, read_audiocaps
from preprocessors.folder import SoundFolder
from preprocessors.own_sounds import CAPTIONS_FILE, read_own_sounds
from preprocessors.ready import (
    REPORT_FILE,
    find_sound,
    own_hashes_in_use,
    read_ready,
    text_hash,
)
from preprocessors.report import build_report, table, write_report
from preprocessors.source import Source
from preprocessors.splits import compose
from processors.clips import Clip
from processors.mel_folder import MelFolder
from processors.metadata import dataset_dir, metadata_text, split_path, write_text
from utils.cli import add_config_arguments, parse_arguments, run_main
from utils.errors import UserError
from utils.ranks import Ranks, find_ranks

# What numpy's linear algebra may be built on reads these when it is first imported.
THREAD_SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
VOCODER_CLIPS = 8  # of each data set, to try a vocoder on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_config_arguments(parser, "egs/tta/autoencoderkl/exp_config.json")
    parser.add_argument(
        "--num_workers", type=_positive, default=_usable_cores(), help="default: %(default)s"
    )
    parser.add_argument(
        "--check_vocoder",
        metavar="PATH",
        help="only try a vocoder (a HiFi-GAN's folder, or griffin_lim) on some clips",
    )
    arguments = parse_arguments(parser)
    config = load_config(arguments.config, arguments.overrides)
    if arguments.check_vocoder is not None:
        for dataset in config.dataset:
            try_vocoder(config, dataset, arguments.check_vocoder)
        return
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))  # for the workers: one thread each
    ranks = find_ranks()
    for dataset in config.dataset:
        preprocess(config, dataset, arguments.num_workers, ranks)


def preprocess(config: Config, dataset: str, num_workers: int, ranks: Ranks) -> None:
    """Prepares one data set; raises UserError where none of its clips can be used."""
    from tqdm import tqdm

    folder = open_folder(config, dataset)
    ready = read_ready(config, dataset)
    source = read_source(folder, dataset, ready)
    clips = list_clips(folder, source, ready)

    mel_dir = dataset_dir(config, dataset) / "mel"
    mels = MelFolder(mel_dir, folder.root, config.preprocess.mel, ranks.number)
    if ranks.first:
        mels.begin()
    ranks.wait()
    mine = clips[ranks.number :: ranks.count]
    to_do = mels.to_do(mine)
    progress = tqdm(
        desc=dataset,
        unit="clip",
        total=len(mine),
        initial=len(mine) - len(to_do),
        disable=not ranks.first,
    )
    with progress:
        for count in mels.make(to_do, num_workers):
            progress.update(count)
    ranks.wait()
    if ranks.first:
        for clip, outcome in zip(clips, mels.finish(clips), strict=True):
            source.note(clip, outcome)
        source.without_caption = folder.count_beside(clip.file for clip in clips)
        write_results(config, dataset, source, ready)


def try_vocoder(config: Config, dataset: str, name: str) -> None:
    """Prints how well clips of a data set come back from their mels, and writes them to hear."""
    from models.vocoders.check import check_vocoder

    folder = open_folder(config, dataset)
    ready = read_ready(config, dataset)
    clips = list_clips(folder, read_source(folder, dataset, ready), ready)
    count = min(VOCODER_CLIPS, len(clips))
    some = [clips[place * len(clips) // count] for place in range(count)]
    out = Path(config.preprocess.processed_dir) / "vocoder_check" / dataset
    sounds = [folder.path(clip.file) for clip in some]
    print(check_vocoder(name, sounds, config.preprocess.mel, out))


def open_folder(config: Config, dataset: str) -> SoundFolder:
    """The folder with the data set's sounds."""
    prepared = dataset_dir(config, dataset)
    sounds = Path(config.dataset_path.get(dataset, prepared))
    if not sounds.is_dir():
        beside = prepared.parent.iterdir() if prepared.parent.is_dir() else ()
        known = ", ".join(sorted(path.name for path in beside if path.is_dir())) or "none"
        raise UserError(
            f"data set {dataset!r}: there is no folder {sounds}; data sets in {prepared.parent}:"
            f" {known}; sounds elsewhere are named by dataset_path.{dataset}=FOLDER"
        )
    return SoundFolder(sounds, apart="mel" if sounds.resolve() == prepared.resolve() else None)


def read_source(folder: SoundFolder, dataset: str, ready: dict[str, list[dict]]) -> Source:
    """The records that are still wanted beside the splits that the user wrote."""
    if folder.path(CAPTIONS_FILE).exists():
        source = read_own_sounds(folder, dataset)
    elif csv_files(folder):
        source = read_audiocaps(folder, dataset)
    elif ready:
        source = Source(origin={})
    else:
        raise UserError(
            f"data set {dataset!r}: {folder.root} holds no {CAPTIONS_FILE} (file,caption), no"
            " AudioCaps CSVs (train.csv, val.csv, test.csv), and there is no train.json"
        )
    source.records = [(split, record) for split, record in source.records if split not in ready]
    return source


def list_clips(folder: SoundFolder, source: Source, ready: dict[str, list[dict]]) -> list[Clip]:
    """The sound file of every Uid; Uids without one are noted as skipped."""
    records = [(s, r) for s, split_records in ready.items() for r in split_records]
    splits = {record["Uid"]: split for split, record in [*source.records, *records]}
    clips = []
    for uid in sorted(splits):
        file = source.files.get(uid) or find_sound(folder, uid, splits[uid])
        if file is None:
            source.skipped.add("missing", uid)
        elif folder.is_outside(file):
            source.skipped.add("outside the folder", uid)
        else:
            clips.append(Clip(uid, file, *folder.size_and_time(file)))
    return clips


def write_results(
    config: Config,
    dataset: str,
    source: Source,
    ready: dict[str, list[dict]],
) -> None:
    """Writes the metadata of the splits that are not the user's, and the report; prints it."""
    settings, here = config.preprocess, dataset_dir(config, dataset)
    splits, leaks = compose(
        source.records, ready, source.kept, config.train.random_seed, settings.valid_fraction
    )
    ours = {split: metadata_text(splits[split]) for split in splits if split not in ready}
    report = build_report(dataset, source, [*ready], splits, leaks, settings.mel)
    # Hashes come first: killed between the two, the next run still knows its own files.
    report["written"] = sorted(
        {text_hash(text) for text in ours.values()} | own_hashes_in_use(config, dataset)
    )
    write_report(here, report)
    if not source.kept:
        reasons = ", ".join(f"{entry['count']} {name}" for name, entry in report["skipped"].items())
        raise UserError(
            f"data set {dataset!r}: none of its clips can be used ({reasons}); names in"
            f" {here / REPORT_FILE}"
        )
    for split, text in ours.items():
        write_text(split_path(config, dataset, split), text)
    print(table(report, here / REPORT_FILE))


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    run_main(main)
