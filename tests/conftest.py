"""Options of the tests, and data that several of them share."""

from __future__ import annotations

import os

# Before torch is imported, here and in started processes.
os.environ["OMP_NUM_THREADS"] = "1"
# Killed processes leave semaphores behind, which is what is tested.
os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"

import hypothesis
import pytest

# The same examples at every run: what fails here fails everywhere. No deadline: machines are busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=3,
        help="how often each stage's training is killed in tests/bins/test_resume.py",
    )
