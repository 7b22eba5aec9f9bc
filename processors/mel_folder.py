"""A data set's folder of mels, made in several processes, redoing only what is missing or stale.

    <mel_dir>/<Uid>.npy            float32 [n_mel, frames of the whole clip]
    <mel_dir>/mel_config.json      the settings that all mels there were made with
    <mel_dir>/index.jsonl          what each mel was made from; without its line, it is made anew
    <mel_dir>/index.<rank>.jsonl   the same, as a run goes on

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
from processors.clips import Clip, Outcome, Task
from processors.mel import settings_differ, settings_path, write_mel_settings
from utils.errors import UserError
from utils.memory import keep_memory

CHUNK_CLIPS, CHUNK_BYTES = 16, 4 << 20  # one task of a worker holds at most so much
INDEX_FILE = "index.jsonl"
LINE_KEYS = {field.name for field in dataclasses.fields(Outcome)} | {"made_from"}


class MelFolder:
    """<processed_dir>/<Dataset>/mel, its index, and how its mels are made.

    Several ranks may work at once, each on clips of its own and with a journal of its own; `begin`
    and `finish` are for the first rank, while no other is at work.
    """

    def __init__(self, mel_dir: Path, sounds: Path, mel: MelConfig, rank: int = 0) -> None:
        self.mel_dir, self.sounds, self.mel = mel_dir, sounds, mel
        self.journal = mel_dir / f"index.{rank}.jsonl"

    def begin(self) -> None:
        """Clears what a killed run left, and all mels if they were made with other settings.

        Until `finish`, a folder with mels of other settings has no settings file: it is refused.
        """
        try:
            self.mel_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.mel_dir}: cannot be made: {error.strerror}") from None
        self._merge_journals()
        for unfinished in self.mel_dir.glob(".*.part"):
            unfinished.unlink()
        if not settings_differ(self.mel_dir.parent, self.mel):
            return
        fresh = {uid for uid, line in self._read_index().items() if self._is_fresh(line)}
        for path in self.mel_dir.rglob("*.npy"):
            if path.relative_to(self.mel_dir).as_posix().removesuffix(".npy") not in fresh:
                path.unlink()
        settings_path(self.mel_dir.parent).unlink()

    def to_do(self, clips: list[Clip]) -> list[Clip]:
        """The clips that have no mel, or one of another file, or could not be used last time."""
        index = self._read_index()
        return [clip for clip in clips if not self._is_done(clip, index.get(clip.uid))]

    def make(self, clips: list[Clip], num_workers: int) -> Iterator[int]:
        """Makes the mels of `clips`; yields how many more are done, as they are done."""
        by_uid = {clip.uid: clip for clip in clips}
        with open(self.journal, "a", encoding="utf-8") as journal:
            for outcomes in _run_tasks(self._tasks(clips), num_workers):
                for outcome in outcomes:
                    journal.write(self._line(by_uid[outcome.uid], outcome))
                journal.flush()
                yield len(outcomes)

    def finish(self, clips: list[Clip]) -> list[Outcome]:
        """What became of each clip; notes the settings beside the mels."""
        self._merge_journals()
        index = self._read_index()
        write_mel_settings(self.mel_dir.parent, self.mel)
        return [_outcome(index[clip.uid]) for clip in clips]

    def _merge_journals(self) -> None:
        index = self._read_index()
        temporary = self.mel_dir / "index.tmp"
        text = "".join(json.dumps(index[uid]) + "\n" for uid in sorted(index))
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.mel_dir / INDEX_FILE)
        for journal in self.mel_dir.glob("index.*.jsonl"):
            journal.unlink()

    def _read_index(self) -> dict[str, dict]:
        files = [self.mel_dir / INDEX_FILE, *self.mel_dir.glob("index.*.jsonl")]
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
        try:
            size = os.stat(self.mel_dir / f"{line['uid']}.npy").st_size
        except OSError:
            return False
        return size == 128 + 4 * self.mel.n_mel * line["frames"]  # 128: numpy's header

    def _tasks(self, clips: list[Clip]) -> Iterator[Task]:
        chunk: list[Clip] = []
        for clip in clips:
            chunk.append(clip)
            if len(chunk) == CHUNK_CLIPS or sum(c.size for c in chunk) >= CHUNK_BYTES:
                yield Task(chunk, self.mel_dir, self.sounds, self.mel)
                chunk = []
        if chunk:
            yield Task(chunk, self.mel_dir, self.sounds, self.mel)


def _lines(file: Path) -> Iterator[dict]:
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the run was killed while it wrote this line
        if isinstance(line, dict) and line.keys() == LINE_KEYS:
            yield line


def _outcome(line: dict) -> Outcome:
    return Outcome(**{field.name: line[field.name] for field in dataclasses.fields(Outcome)})


def _run_tasks(tasks: Iterable[Task], num_workers: int) -> Iterator[list[Outcome]]:
    # spawn: fresh interpreters, which import neither torch nor librosa. One worker is a process as
    # well, so that the outcome cannot depend on how many there are.
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
