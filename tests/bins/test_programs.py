"""The programs as a user starts them: by their paths, in a Python of their own, from anywhere."""

import subprocess
import sys

import pytest

from tests import tiny

PROGRAMS = sorted((tiny.ROOT / "bins/tta").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_help_from_another_folder(tmp_path, program):
    done = subprocess.run(
        [sys.executable, program, "--help"],
        cwd=tmp_path,
        env={**tiny.environment(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {program.name}")
    assert not list(tmp_path.iterdir())
