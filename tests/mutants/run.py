"""Puts known faults into a copy of the project, one at a time, and shows which test sees each.

    python tests/mutants/run.py                        all of table.toml, some minutes
    python tests/mutants/run.py --only kl-dropped ...  some of them
    python tests/mutants/run.py --all                  what its own tests miss meets the whole suite

Prints a markdown table. The exit status is 1 where a mutant survives, and 2 where a text of the
table is not found exactly once or the tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
# The linter and the table's own test fail for every mutant, whatever it does.
NOT_EVIDENCE = ("--ignore=tests/mutants", "--ignore=tests/test_lint.py")
LONGEST = 1200  # seconds that the tests of a mutant may take
FAILED, PASSED = 1, 0  # pytest's exit status


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
    status, output, _ = run_tests(None, sorted({test for m in mutants for test in m.tests}))
    if status != PASSED:
        print(f"{output}\nerror: the tests fail without any mutant", file=sys.stderr)
        return 2

    print("| mutant | what is wrong | outcome | by | seconds |\n|---|---|---|---|---|")
    survivors = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (by, seconds) in zip(
            mutants, pool.map(lambda m: meet(m, arguments.all), mutants), strict=True
        ):
            survivors += by is None
            outcome = "SURVIVES" if by is None else "caught"
            test = (by or "").rpartition("/")[2]  # test files' names differ
            row = (mutant.id, mutant.wrong, outcome, test, f"{seconds:.0f}")
            print("|", " | ".join(row), "|", flush=True)
    print(f"\n{len(mutants) - survivors} of {len(mutants)} caught")
    return int(survivors > 0)


def meet(mutant: Mutant, whole_suite: bool) -> tuple[str | None, float]:
    """The first test that fails under the mutant (None: it survives), and the seconds."""
    status, output, seconds = run_tests(mutant, list(mutant.tests))
    if status == PASSED and whole_suite:
        status, output, more = run_tests(mutant, [])
        seconds += more
    if status == PASSED:
        return None, seconds
    if status is None:
        return "the time limit", seconds
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    if status != FAILED or failed is None:
        raise RuntimeError(f"{mutant.id}: pytest ended with {status}:\n{output}")
    return failed[1], seconds


def run_tests(mutant: Mutant | None, tests: list[str]) -> tuple[int | None, str, float]:
    """pytest's status in a copy with the mutant (None: out of time), its output, the seconds."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "project"
        copy_project(copy)
        if mutant is not None:
            (copy / mutant.file).write_text(mutant.source(copy), encoding="utf-8")
        options = ["-x", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider", *NOT_EVIDENCE]
        # A byte-compiled file of the same second and size would be taken for the mutant's.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment["VIRTUAL_ENV"] = sys.prefix  # where the project's scripts find Python
        options.append(f"--basetemp={folder}/pytest")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=copy,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            return None, "", time.monotonic() - begin
    return done.returncode, done.stdout + done.stderr, time.monotonic() - begin


def copy_project(folder: Path) -> None:
    """All files that git knows or would, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
