"""A data set's folder of mels, made in several processes, redoing only what is missing or stale.

    <mel_dir>/<Uid>.npy            float32 [n_mel, frames of the whole clip]
    <mel_dir>/../pcm/<Uid>.npy     int16 [samples], where the resampled sounds are kept
    <mel_dir>/mel_config.json      the settings that all mels there were made with
    <mel_dir>/index.jsonl          what each mel was made from; without its line, it is made anew

A run that is killed at any moment leaves whole mels and the lines of those that were finished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path

from config.schema import MelConfig
from processors.clips import Clip, Outcome, Task, pcm_dir
from processors.mel import settings_differ, settings_path, write_mel_settings
from utils.errors import UserError
from utils.files import remove_unfinished, write_text
from utils.memory import keep_memory
from utils.progress import progress

CHUNK_CLIPS, CHUNK_BYTES = 16, 4 << 20  # one task of a worker holds at most so much
INDEX_FILE = "index.jsonl"
LINE_KEYS = {field.name for field in dataclasses.fields(Outcome)} | {"made_from"}


class MelFolder:
    """<processed_dir>/<Dataset>/mel, its index, and how its mels are made."""

    def __init__(
        self, mel_dir: Path, sounds: Path, mel: MelConfig, keep_wavs: bool = False
    ) -> None:
        self.mel_dir, self.sounds, self.mel, self.keep_wavs = mel_dir, sounds, mel, keep_wavs

    def make(self, clips: list[Clip], num_workers: int, name: str) -> list[Outcome]:
        """Makes the mels that are missing or stale; what became of each clip.

        Until the end, a folder that had mels of other settings has no settings file: it is refused.
        `name` stands before the progress bar. The caller holds the folder (`one_writer`).
        """
        index = self._clear()
        to_do = [clip for clip in clips if not self._is_done(clip, index.get(clip.uid))]
        done = len(clips) - len(to_do)
        by_uid = {clip.uid: clip for clip in to_do}
        with (
            open(self.mel_dir / INDEX_FILE, "a", encoding="utf-8") as file,
            progress(title=name, unit="clip", total=len(clips), initial=done) as bar,
        ):
            for outcomes in run_tasks(self._tasks(to_do), num_workers):
                for outcome in outcomes:
                    made_from = self._made_from(by_uid[outcome.uid])
                    line = {**dataclasses.asdict(outcome), "made_from": made_from}
                    file.write(json.dumps(line) + "\n")
                file.flush()
                bar.update(len(outcomes))
        if to_do:
            index = None  # or there would be two at once, the largest things here
            index = self._tidy_index()
        write_mel_settings(self.mel_dir.parent, self.mel)
        return [_outcome(index[clip.uid]) for clip in clips]

    def _clear(self) -> dict[str, dict]:
        """Removes what a killed run left, and all mels of other settings; returns the index."""
        self.mel_dir.mkdir(parents=True, exist_ok=True)
        index = self._tidy_index()
        remove_unfinished(self.mel_dir)
        remove_unfinished(pcm_dir(self.mel_dir))
        if settings_differ(self.mel_dir.parent, self.mel):
            mine = self.mel.fingerprint
            fresh = {uid for uid, line in index.items() if line["made_from"][-1] == mine}
            for path in self.mel_dir.rglob("*.npy"):
                if path.relative_to(self.mel_dir).as_posix().removesuffix(".npy") not in fresh:
                    path.unlink()
            settings_path(self.mel_dir.parent).unlink()
        return index

    def _tidy_index(self) -> dict[str, dict]:
        """Writes the index with one line for each Uid, the latest; Uid -> line."""
        file, index = self.mel_dir / INDEX_FILE, read_index(self.mel_dir)
        write_text(file, "".join(json.dumps(index[uid]) + "\n" for uid in sorted(index)))
        return index

    def _is_done(self, clip: Clip, line: dict | None) -> bool:
        if line is None or line["fault"] or line["made_from"] != self._made_from(clip):
            return False
        name = f"{clip.uid}.npy"
        bytes_of = {self.mel_dir / name: 4 * self.mel.n_mel * line["frames"]}
        if self.keep_wavs:
            samples = round(line["seconds"] * self.mel.sample_rate)
            bytes_of[pcm_dir(self.mel_dir) / name] = 2 * samples
        try:  # 128: numpy's header
            return all(os.stat(path).st_size == 128 + n for path, n in bytes_of.items())
        except OSError:
            return False

    def _made_from(self, clip: Clip) -> list:
        return [clip.file, clip.size, clip.mtime_ns, self.mel.fingerprint]

    def _tasks(self, clips: list[Clip]) -> list[Task]:
        chunks: list[list[Clip]] = []
        for clip in clips:
            full = sum(c.size for c in chunks[-1]) >= CHUNK_BYTES if chunks else True
            if full or len(chunks[-1]) == CHUNK_CLIPS:
                chunks.append([])
            chunks[-1].append(clip)
        return [
            Task(chunk, self.mel_dir, self.sounds, self.mel, self.keep_wavs) for chunk in chunks
        ]


def read_index(mel_dir: Path) -> dict[str, dict]:
    """Uid -> its latest line in a folder's index; empty where there is none."""
    return {line["uid"]: line for line in read_lines(mel_dir / INDEX_FILE, LINE_KEYS)}


def read_lines(file: Path, keys: Set[str]) -> Iterator[dict]:
    """The lines of a .jsonl file that hold an object of these keys."""
    if not file.is_file():
        return
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the run was killed while it wrote this line
        if isinstance(line, dict) and line.keys() == keys:
            yield {sys.intern(key): value for key, value in line.items()}  # not a copy of each key


def _outcome(line: dict) -> Outcome:
    known = {field.name: line[field.name] for field in dataclasses.fields(Outcome)}
    return Outcome(**{**known, "remarks": tuple(line["remarks"])})


def run_tasks(tasks: Iterable, num_workers: int) -> Iterator:
    """What `run` of each task gives, as they are finished, in `num_workers` processes."""
    # One worker is a process as well, so that the outcome cannot depend on how many there are.
    pool = ProcessPoolExecutor(num_workers, _context(), initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(task.run) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, probably for lack of memory; what was made so far is kept: run"
            f" the same command with fewer workers than --num_workers {num_workers}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """Fresh interpreters; where the system can, forked from one that has imported torch for all."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["torchaudio.functional"])
    return context


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a parent that was killed takes its workers along.

    Kept memory spares a worker a fifth of its time: each clip's arrays are as large as the last's.
    """
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    torch.set_num_threads(1)  # there is a worker for each core

    def follow_parent() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
