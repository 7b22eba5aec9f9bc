"""Prepared data sets to one of triplets, value by value:

sources -> plan -> pairs of wavs -> mels -> records of each split -> report

    <processed_dir>/<Dataset>/wav/<pair>_in.wav, <pair>_out.wav    16-bit mono, all of one length
    <processed_dir>/<Dataset>/mel/<pair>_in.npy, ...
    <processed_dir>/<Dataset>/pairs.jsonl    what each pair was made from, and what became of it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from config.schema import EditsExperiment
from preprocessors.edits.mix import MixTask, Pair, ends_of
from preprocessors.edits.plan import Plan, counts_of, draw_plan, name_of
from preprocessors.edits.records import record_of
from preprocessors.edits.report import edits_report, edits_table
from preprocessors.edits.sources import read_sources
from preprocessors.prepare import written_before
from preprocessors.records import Skip
from processors import mel_folder
from processors.clips import Clip
from processors.edits import sounds_of
from processors.metadata import (
    MADE_OF,
    REPORT_FILE,
    SPLITS,
    dataset_dir,
    made_of,
    metadata_text,
    read_records,
    split_path,
)
from utils.checkpoint import file_hash
from utils.commands import PAIRS_FILE
from utils.errors import UserError
from utils.files import one_writer, remove_unfinished, write_text
from utils.progress import progress

LINE_KEYS = {field.name for field in dataclasses.fields(Pair)} | {"made_from"}
# In a folder without pairs.jsonl, these are somebody else's.
OF_OTHERS = ("wav", "captions.csv", "train.csv", "train.json", "preprocess_report.json")
CHUNK = 8  # pairs that a worker is given at a time
WAV_HEADER = 44  # bytes
FAVOUR = ("test", "valid", "train")  # where one of two equal pairs stays


def prepare_edits(config: EditsExperiment, num_workers: int) -> str:
    """Makes the data set of triplets; returns its report for the terminal.

    Raises UserError where a source is not prepared, or where the folder holds other sounds.
    """
    here = dataset_dir(config, config.dataset[0])
    if not (here / PAIRS_FILE).is_file() and any((here / name).exists() for name in OF_OTHERS):
        raise UserError(
            f"{here}: holds something else than triplets; name the data set that is made by"
            " dataset=NAME"
        )
    beds, events, skipped = read_sources(config)
    plan = draw_plan(config, beds, events)
    with one_writer(here / "mel"):
        pairs = make_pairs(config, here, plan, num_workers)
        records, unused = compose(config, plan, pairs)
        faults = make_mels(config, here, records, num_workers)
        for split, made in records.items():
            gone = {r["Uid"]: faults.get(r["Input"]) or faults.get(r["Output"]) for r in made}
            unused += [Skip(fault, uid) for uid, fault in gone.items() if fault]
            records[split] = [record for record in made if not gone[record["Uid"]]]
        report = edits_report(config, records, beds, events, skipped, unused)
        _write(config, records, report)
    return edits_table(report, here / REPORT_FILE)


def _write(config: EditsExperiment, records: dict[str, list[dict]], report: dict) -> None:
    """Writes report and records; a train.json that the user wrote, or edited, stays."""
    dataset = config.dataset[0]
    paths = {split: split_path(config, dataset, split) for split in SPLITS}
    ours, theirs = written_before(config, dataset), _theirs(config).keys()
    texts = {split: metadata_text(records[split]) for split in SPLITS}
    hashes = {hashlib.sha256(text.encode()).hexdigest() for text in texts.values()}
    sources = dict.fromkeys([*config.edits.beds, *config.edits.events])
    tables = [split_path(config, source, split) for source in sources for split in SPLITS]
    report[MADE_OF] = made_of(dataset_dir(config, dataset), tables)
    report |= {"written_by_you": sorted(theirs), "written": sorted(hashes | ours)}
    text = json.dumps(report, ensure_ascii=False, indent=1)
    # The hashes come first: stopped between the two, the next run knows both as ours.
    write_text(dataset_dir(config, dataset) / REPORT_FILE, text + "\n")
    for split in sorted(paths.keys() - theirs):
        write_text(paths[split], texts[split])


def _theirs(config: EditsExperiment) -> dict[str, Path]:
    """Those of train.json, valid.json and test.json that the user wrote or edited, by split."""
    dataset = config.dataset[0]
    paths = {split: split_path(config, dataset, split) for split in SPLITS}
    ours = written_before(config, dataset)
    return {s: path for s, path in paths.items() if path.exists() and file_hash(path) not in ours}


def _check_theirs(config: EditsExperiment, here: Path, made_from: dict[str, str]) -> None:
    """Raises UserError where the user's records name pairs that would become other sounds."""
    latest = {line["name"]: line for line in mel_folder.read_lines(here / PAIRS_FILE, LINE_KEYS)}
    for path in _theirs(config).values():
        records = read_records(path, config.dataset[0])
        named = {sound.rpartition("_")[0] for record in records for sound in sounds_of(record)}
        stale = [n for n in latest if n in named and latest[n]["made_from"] != made_from.get(n)]
        if stale:
            raise UserError(
                f"{path}: is written by you, and {len(stale)} of its pairs, such as {stale[0]},"
                " would now be made of other sounds; go back to what they were made of, or remove"
                " that file to have it made anew"
            )


def make_pairs(
    config: EditsExperiment, here: Path, plan: Plan, num_workers: int
) -> dict[str, Pair]:
    """Makes the pairs of wavs that are missing or stale; name -> what became of it."""
    rate, settings = config.preprocess.sample_rate, config.preprocess
    samples = settings.segment_frames * settings.hop_size
    task = MixTask({}, here / "wav", rate, samples, round(config.edits.event_seconds * rate))
    made_from = {name: _made_from(task, scenes) for name, scenes in plan.items()}
    _check_theirs(config, here, made_from)
    lines = _tidy_lines(here / PAIRS_FILE, made_from)
    task.wav_dir.mkdir(exist_ok=True)
    remove_unfinished(task.wav_dir)
    known = {
        name
        for name, line in lines.items()
        if line["fault"] or _files_are_there(task, name, plan[name][0].kind)
    }
    to_do = [name for name in plan if name not in known]
    tasks = [
        dataclasses.replace(task, plan={name: plan[name] for name in to_do[start : start + CHUNK]})
        for start in range(0, len(to_do), CHUNK)
    ]
    with (
        open(here / PAIRS_FILE, "a", encoding="utf-8") as file,
        progress(
            title=f"{config.dataset[0]}: mixing", unit="pair", total=len(plan), initial=len(known)
        ) as bar,
    ):
        for pairs in mel_folder.run_tasks(tasks, num_workers):
            for pair in pairs:
                line = {**dataclasses.asdict(pair), "made_from": made_from[pair.name]}
                file.write(json.dumps(line) + "\n")
            file.flush()
            bar.update(len(pairs))
    lines = _tidy_lines(here / PAIRS_FILE, made_from)
    _remove_others(here, {f"{name}_{end}" for name in plan for end in ends_of(plan[name][0].kind)})
    fields = [field.name for field in dataclasses.fields(Pair)]
    return {name: Pair(**{field: lines[name][field] for field in fields}) for name in plan}


def _made_from(task: MixTask, scenes: tuple) -> str:
    """Changes with all that decides a pair's samples."""
    text = repr((task.rate, task.samples, task.event_samples, scenes))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _tidy_lines(file: Path, made_from: dict[str, str]) -> dict[str, dict]:
    """Writes the file with the latest line of each pair that is up to date; name -> line."""
    latest = {line["name"]: line for line in mel_folder.read_lines(file, LINE_KEYS)}
    lines = {
        name: latest[name]
        for name in sorted(latest)
        if latest[name]["made_from"] == made_from.get(name)
    }
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines.values()))
    return lines


def _files_are_there(task: MixTask, name: str, kind: str) -> bool:
    paths = [task.wav_dir / f"{name}_{end}.wav" for end in ends_of(kind)]
    try:
        return all(os.stat(path).st_size == WAV_HEADER + 2 * task.samples for path in paths)
    except OSError:
        return False


def _remove_others(here: Path, wanted: set[str]) -> None:
    """Removes the sounds of pairs that an earlier run made and that are not wanted any more."""
    for folder, suffix in (("wav", "wav"), ("mel", "npy")):
        for path in (here / folder).glob(f"*.{suffix}"):
            if path.stem not in wanted:
                path.unlink()


def compose(
    config: EditsExperiment, plan: Plan, pairs: dict[str, Pair]
) -> tuple[dict[str, list[dict]], list[Skip]]:
    """The records of each split, and the triplets that came to nothing.

    Of two triplets whose files are equal, byte by byte, one stays.
    """
    records: dict[str, list[dict]] = {}
    unused, known = [], set()
    for split in FAVOUR:
        records[split] = []
        for task, number in _triplets(config, split):
            pair = pairs[name_of(split, "mix" if task in ("add", "drop") else task, number)]
            scene, name = plan[pair.name][pair.choice], name_of(split, task, number)
            files = (task == "drop", *pair.hashes)
            if pair.fault:
                unused.append(Skip(pair.fault, name))
            elif files in known:
                unused.append(Skip("the very pair of another triplet", name))
            else:
                known.add(files)
                dataset = config.dataset[0]
                record = record_of(dataset, split, task, number, scene, pair)
                records[split].append(record)
    return records, unused


def _triplets(config: EditsExperiment, split: str) -> Iterator[tuple[str, int]]:
    counts = counts_of(config.edits)[split]
    return ((task, number) for task, count in counts.items() for number in range(count))


def make_mels(
    config: EditsExperiment, here: Path, records: dict[str, list[dict]], num_workers: int
) -> dict[str, str]:
    """Makes the mels of all sounds that records name; sound -> why it has none."""
    sounds = {r[end] for made in records.values() for r in made for end in ("Input", "Output")}
    clips = []
    for sound in sorted(sounds):
        status = os.stat(here / "wav" / f"{sound}.wav")
        clips.append(Clip(sound, f"wav/{sound}.wav", status.st_size, status.st_mtime_ns))
    mels = mel_folder.MelFolder(here / "mel", here, config.preprocess.mel)
    outcomes = mels.make(clips, num_workers, f"{config.dataset[0]}: mels")
    return {outcome.uid: outcome.fault for outcome in outcomes if outcome.fault}
