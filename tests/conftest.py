"""Options of the tests, and data that several of them share."""

from __future__ import annotations

import os

# Before torch is imported, here and in started processes.
os.environ["OMP_NUM_THREADS"] = "1"
# Killed processes leave semaphores behind, which is what is tested.
os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"

import gc
import logging
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

# The same examples at every run: what fails here fails everywhere. No deadline: machines are busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


# Files with a test of 10 s and more.
SLOWEST = {
    "test_quickstart.py",
    "test_to_diffusers.py",
    "test_mel_folder.py",
    "test_own_vocoder.py",
    "test_fourth_model.py",
    "test_edits.py",
    "test_unet_compiled.py",
    "test_recognition.py",
    "test_processes.py",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=3,
        help="how often each stage's training is killed in tests/bins/test_resume.py",
    )
    parser.addoption(
        "--audiocaps",
        type=Path,
        help="a folder with AudioCaps' official train.csv, val.csv, test.csv, to test against",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Of several processes that test, one starts what programs are forked from, for all."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        from tests import warm

        warm.share()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that in the end no process waits for another's."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: looking for garbage in it took a twentieth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def random_numbers_as_before() -> None:
    """The same at every run, whatever was run before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def logs_as_before():
    """What a test's runs did to the log is undone, so that the next one hears each line once."""
    loggers = [logging.getLogger(), logging.getLogger("arion")]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in loggers]
    yield
    for log, handlers, level, propagate in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.fixture(scope="session")
def warm_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A VIRTUAL_ENV for shell scripts, with all that they need, whose Python starts at once."""
    from tests import tiny, warm

    with warm.python(tmp_path_factory.mktemp("python") / "env") as folder:
        for file in tiny.ROOT.glob("*requirements.txt"):  # set-up finds them installed
            (folder / f"arion-{file.name}").write_bytes(file.read_bytes())
        yield folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny data, configs of both stages, and runs/vae and runs/ldm, finished."""
    from tests import tiny, warm

    root = tmp_path_factory.mktemp("trained")
    tiny.write_data(root)
    for stage, name in ((1, "vae"), (2, "ldm")):
        config = tiny.write_config(root, stage, sample_interval=6)
        status = warm.run(root / "log", "--config", config, "--exp_name", name)
        assert status == 0, (root / "log").read_text()
    return root


@pytest.fixture(scope="session")
def edits(trained: Path) -> Path:
    """The same folder, with triplets and runs/audit, an editor that started from runs/ldm."""
    from tests import tiny, warm

    tiny.write_edits(trained)
    config = tiny.write_config(trained, 4, sample_interval=6)
    log = trained / "log"
    assert warm.run(log, "--config", config, "--exp_name", "audit") == 0, log.read_text()
    return trained
