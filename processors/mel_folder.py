"""A data set's folder of mels, made in several processes, redoing only what is missing or stale.

    <mel_dir>/<Uid>.npy            float32 [n_mel, frames of the whole clip]
    <mel_dir>/../pcm/<Uid>.npy     int16 [samples], where the resampled sounds are kept
    <mel_dir>/mel_config.json      the settings that all mels there were made with
    <mel_dir>/index.jsonl          what each mel was made from; without its line, it is made anew
    <mel_dir>/journal.jsonl        the same, as a run goes on

A run that is killed at any moment leaves whole mels and the lines of those that were finished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

from config.schema import MelConfig
from processors.clips import Clip, Outcome, Task, pcm_dir
from processors.mel import settings_differ, settings_path, write_mel_settings
from utils.errors import UserError
from utils.files import remove_unfinished, write_text
from utils.memory import keep_memory

CHUNK_CLIPS, CHUNK_BYTES = 16, 4 << 20  # one task of a worker holds at most so much
INDEX_FILE, JOURNAL_FILE = "index.jsonl", "journal.jsonl"
LINE_KEYS = {field.name for field in dataclasses.fields(Outcome)} | {"made_from"}
# What linear algebra may be built on reads these when a worker first imports it.
THREAD_SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


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
        from tqdm import tqdm

        self._clear()
        index = self._read_index()
        to_do = [clip for clip in clips if not self._is_done(clip, index.get(clip.uid))]
        done = len(clips) - len(to_do)
        by_uid = {clip.uid: clip for clip in to_do}
        with (
            open(self.mel_dir / JOURNAL_FILE, "a", encoding="utf-8") as journal,
            tqdm(desc=name, unit="clip", total=len(clips), initial=done) as progress,
        ):
            for outcomes in _run_tasks(self._tasks(to_do), num_workers):
                for outcome in outcomes:
                    journal.write(self._line(by_uid[outcome.uid], outcome))
                journal.flush()
                progress.update(len(outcomes))
        index = self._merge_journal()
        write_mel_settings(self.mel_dir.parent, self.mel)
        return [_outcome(index[clip.uid]) for clip in clips]

    def _clear(self) -> None:
        """Removes what a killed run left, and all mels if they were made with other settings."""
        self.mel_dir.mkdir(parents=True, exist_ok=True)
        index = self._merge_journal()
        remove_unfinished(self.mel_dir)
        remove_unfinished(pcm_dir(self.mel_dir))
        if not settings_differ(self.mel_dir.parent, self.mel):
            return
        fresh = {uid for uid, line in index.items() if self._is_fresh(line)}
        for path in self.mel_dir.rglob("*.npy"):
            if path.relative_to(self.mel_dir).as_posix().removesuffix(".npy") not in fresh:
                path.unlink()
        settings_path(self.mel_dir.parent).unlink()

    def _merge_journal(self) -> dict[str, dict]:
        """Writes the journal's lines into the index; the index."""
        index = self._read_index()
        text = "".join(json.dumps(index[uid]) + "\n" for uid in sorted(index))
        write_text(self.mel_dir / INDEX_FILE, text)
        (self.mel_dir / JOURNAL_FILE).unlink(missing_ok=True)
        return index

    def _read_index(self) -> dict[str, dict]:
        files = [self.mel_dir / INDEX_FILE, self.mel_dir / JOURNAL_FILE]
        lines = (line for file in files if file.is_file() for line in _lines(file))
        return {line["uid"]: line for line in lines}

    def _is_fresh(self, line: dict) -> bool:
        return line["made_from"][-1] == self.mel.fingerprint

    def _is_done(self, clip: Clip, line: dict | None) -> bool:
        if line is None or line["fault"] or line["made_from"] != self._made_from(clip):
            return False
        return self._is_whole(line)

    def _made_from(self, clip: Clip) -> list:
        return [clip.file, clip.size, clip.mtime_ns, self.mel.fingerprint]

    def _line(self, clip: Clip, outcome: Outcome) -> str:
        line = {**dataclasses.asdict(outcome), "made_from": self._made_from(clip)}
        return json.dumps(line) + "\n"

    def _is_whole(self, line: dict) -> bool:
        name = f"{line['uid']}.npy"
        bytes_of = {self.mel_dir / name: 4 * self.mel.n_mel * line["frames"]}
        if self.keep_wavs:
            samples = round(line["seconds"] * self.mel.sample_rate)
            bytes_of[pcm_dir(self.mel_dir) / name] = 2 * samples
        try:  # 128: numpy's header
            return all(os.stat(path).st_size == 128 + n for path, n in bytes_of.items())
        except OSError:
            return False

    def _tasks(self, clips: list[Clip]) -> Iterator[Task]:
        chunk: list[Clip] = []
        for clip in clips:
            chunk.append(clip)
            if len(chunk) == CHUNK_CLIPS or sum(c.size for c in chunk) >= CHUNK_BYTES:
                yield Task(chunk, self.mel_dir, self.sounds, self.mel, self.keep_wavs)
                chunk = []
        if chunk:
            yield Task(chunk, self.mel_dir, self.sounds, self.mel, self.keep_wavs)


def _lines(file: Path) -> Iterator[dict]:
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the run was killed while it wrote this line
        if isinstance(line, dict) and line.keys() == LINE_KEYS:
            yield line


def _outcome(line: dict) -> Outcome:
    known = {field.name: line[field.name] for field in dataclasses.fields(Outcome)}
    return Outcome(**{**known, "remarks": tuple(line["remarks"])})


def _run_tasks(tasks: Iterable[Task], num_workers: int) -> Iterator[list[Outcome]]:
    # spawn: fresh interpreters. One worker is a process as well, so that the outcome cannot depend
    # on how many there are.
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))  # workers inherit it: one a core
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_start_worker)
    pending: set = set()
    try:
        for task in tasks:
            pending.add(pool.submit(task.run))
            if len(pending) >= 3 * num_workers:  # enough to keep all busy, without piling up
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, probably for lack of memory; all mels so far are kept: run the"
            f" same command with fewer workers than --num_workers {num_workers}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a parent that was killed takes its workers along.

    Kept memory spares a worker a fifth of its time: each clip's arrays are as large as the last's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()

    def follow_parent() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
