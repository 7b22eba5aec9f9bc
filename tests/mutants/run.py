"""Puts known faults into a copy of the project, one at a time, and shows which test sees each.

    python tests/mutants/run.py                        all of table.toml, some minutes
    python tests/mutants/run.py --only kl-dropped ...  some of them
    python tests/mutants/run.py --all                  what its own tests miss meets the whole suite

Prints a markdown table. The exit status is 1 where a mutant survives, and 2 where a text of the
table is not found exactly once or the tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
# The linter and the table's own test fail for every mutant, whatever it does.
NOT_EVIDENCE = ("--ignore=tests/mutants", "--ignore=tests/test_lint.py")
LONGEST = 1200  # seconds that the tests of a mutant may take
PASSED, FAILED = 0, 1  # pytest's exit status
KILLED = -signal.SIGKILL
# What costs seconds to import, for the sake of what it imports in its turn.
SLOW = ("bins.tta.train", "models.tta.autoencoder.training", "tests.golden", "tests.warm")
SCHEDULERS = ("DDPM", "DPMSolverMultistep", "PNDM", "UniPCMultistep")


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `text` (found exactly once) becomes `instead`; `tests` should see it."""

    id: str
    wrong: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def source(self, root: Path) -> str:
        """The file with the fault in it; ValueError where the text is not found exactly once."""
        content = (root / self.file).read_text(encoding="utf-8")
        if content.count(self.text) != 1:
            raise ValueError(
                f"{self.id}: found {content.count(self.text)} times in {self.file}: {self.text!r}"
            )
        return content.replace(self.text, self.instead)


@dataclass(frozen=True)
class Outcome:
    """pytest's status, what it wrote, and the seconds that it took."""

    status: int | None
    output: str
    seconds: float

    @property
    def by(self) -> str | None:
        """The first test that failed; None where all passed."""
        if self.status == PASSED:
            return None
        if self.status == KILLED:
            return "the time limit"
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", self.output, re.MULTILINE)
        if self.status != FAILED or failed is None:
            raise RuntimeError(f"pytest ended with {self.status}:\n{self.output}")
        return failed[1].rpartition("/")[2]  # the names of test files differ


def read_table() -> list[Mutant]:
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in table["mutant"]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="ID", help="these mutants")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--all", action="store_true", help="then the whole suite")
    arguments = parser.parse_args()
    table = read_table()
    unknown = set(arguments.only or ()) - {mutant.id for mutant in table}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    mutants = [m for m in table if not arguments.only or m.id in arguments.only]
    try:
        for mutant in mutants:
            mutant.source(ROOT)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    files = project_files()
    warm_up(files)
    every = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    print("| mutant | what is wrong | outcome | by | seconds |\n|---|---|---|---|---|", flush=True)
    survivors = []
    tasks = [(None, every), *((mutant, mutant.tests) for mutant in mutants)]
    for mutant, outcome in outcomes(tasks, files, arguments.jobs):
        if mutant is not None:
            show(mutant, outcome)
        elif outcome.by:
            print(f"{outcome.output}\nerror: the tests fail without any mutant", file=sys.stderr)
            return 2
        if mutant and outcome.by is None:
            survivors.append(mutant)
    if arguments.all and survivors:
        print("\nThose that survived, against the whole suite:\n")
        missed, survivors = survivors, []
        for mutant, outcome in outcomes([(m, ()) for m in missed], files, arguments.jobs):
            if outcome.by is None:
                survivors.append(mutant)
            show(mutant, outcome)
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} caught")
    return int(bool(survivors))


def show(mutant: Mutant, outcome: Outcome) -> None:
    caught = "SURVIVES" if outcome.by is None else "caught"
    row = (mutant.id, mutant.wrong, caught, outcome.by or "", f"{outcome.seconds:.0f}")
    print("|", " | ".join(row), "|", flush=True)


# ---------------------------------------------------------------- a copy, and pytest in it


def project_files() -> list[str]:
    """All files that git knows or would, as they are now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def warm_up(files: Sequence[str]) -> None:
    """Imports the libraries once for all mutants, and forgets the project's own modules."""
    # Before torch is imported, as tests/conftest.py has it.
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1", VIRTUAL_ENV=sys.prefix)
    sys.dont_write_bytecode = True
    path = sys.path[1:]
    sys.path.insert(0, str(ROOT))
    for name in (*SLOW, "pytest", "hypothesis"):
        importlib.import_module(name)
    for name in SCHEDULERS:
        getattr(importlib.import_module("diffusers"), f"{name}Scheduler")
    own = {str(ROOT / file) for file in files}
    folders = {name.split("/")[0] for name in files if "/" in name}
    for name, module in list(sys.modules.items()):
        known = getattr(module, "__file__", None) in own or name.split(".")[0] in folders
        if known and name != "__main__":
            del sys.modules[name]
    sys.path[:] = path


def outcomes(
    tasks: Sequence[tuple[Mutant | None, tuple[str, ...]]], files: Sequence[str], jobs: int
) -> Iterator[tuple[Mutant | None, Outcome]]:
    """What becomes of each mutant's tests, `jobs` at a time, as they end."""
    waiting, running = list(tasks), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, tests = waiting.pop(0)
            folder = tempfile.TemporaryDirectory(prefix="mutant-")
            process = multiprocessing.get_context("fork").Process(
                target=run_tests, args=(mutant, tests, files, Path(folder.name))
            )
            process.start()
            running[process.sentinel] = process, mutant, folder, time.monotonic()
        ended = connection.wait(list(running), timeout=1)
        for sentinel, (process, mutant, folder, began) in list(running.items()):
            seconds = time.monotonic() - began
            if sentinel not in ended and seconds < LONGEST:
                continue
            if sentinel not in ended:
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            del running[sentinel]
            output = (Path(folder.name) / "output").read_text(errors="replace")
            folder.cleanup()
            yield mutant, Outcome(process.exitcode, output, seconds)


def run_tests(
    mutant: Mutant | None, tests: tuple[str, ...], files: Sequence[str], folder: Path
) -> None:
    """In a process of its own: pytest in a copy with the mutant, its output in `folder`/output."""
    os.setsid()
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    copy = folder / "project"
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    if mutant is not None:
        (copy / mutant.file).write_text(mutant.source(copy), encoding="utf-8")
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    # The server that forks the tests' trainings (tests/warm.py) is forked as well, not started.
    multiprocessing.util.spawnv_passfds = fork_python
    importlib.import_module("tests.warm")
    multiprocessing.forkserver.ensure_running()
    import pytest

    options = ["-x", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider", *NOT_EVIDENCE]
    sys.exit(pytest.main([*options, f"--basetemp={folder}/pytest", *tests]))


def fork_python(_path: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """multiprocessing.util.spawnv_passfds for `python -c CODE`, in a fork of this process."""
    process = os.fork()
    if process == 0:
        kept = [0, 1, 2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX")]
        for before, after in itertools.pairwise(kept):
            os.closerange(before + 1, after)
        try:
            exec(arguments[-1], {})
        finally:
            os._exit(0)
    return process


if __name__ == "__main__":
    sys.exit(main())
