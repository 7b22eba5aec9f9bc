import logging
import math

import pytest
import torch

from utils import threads
from utils.threads import ThreadWatch, slowdown

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def log(caplog):
    log = logging.getLogger("test_threads")
    caplog.set_level(logging.WARNING, logger="test_threads")
    return log


def test_where_threads_wait_for_each_other_one_is_taken(two_threads, log, caplog, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "slowdown", lambda count: 3.2)
    ThreadWatch(log, CPU)
    assert torch.get_num_threads() == 1
    assert caplog.messages == [
        "the machine is busy: torch's 2 threads take 3.2 times as long as one; going on with one"
        " (to keep all: OMP_NUM_THREADS=2)"
    ]


def test_a_number_that_the_user_chose_is_kept(two_threads, log, caplog, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(threads, "slowdown", lambda count: 3.2)
    ThreadWatch(log, CPU)
    assert torch.get_num_threads() == 2
    assert "start it again with OMP_NUM_THREADS=1" in caplog.text


def test_steps_that_became_slow_are_looked_into_once(two_threads, log, caplog, monkeypatch):
    found = [1.0, 3.0]
    monkeypatch.setattr(threads, "slowdown", lambda count: found.pop(0))
    watch = ThreadWatch(log, CPU)
    for seconds in (1.0, 0.5, 0.9):
        watch.check(seconds)
    assert found == [3.0]
    for seconds in (1.1, 5.0, 0.1):
        watch.check(seconds)
    assert found == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda", 2)])
def test_one_thread_or_a_gpu_is_not_watched(two_threads, log, monkeypatch, device, count):
    """On a GPU it is not the threads that do a step's work, however busy the machine is."""
    monkeypatch.setattr(threads, "slowdown", None)
    torch.set_num_threads(count)
    watch = ThreadWatch(log, torch.device(device))
    for seconds in (1.0, 5.0):
        watch.check(seconds)
    assert torch.get_num_threads() == count


def test_measuring_keeps_the_number_of_threads(two_threads):
    ratio = slowdown(2)
    assert math.isfinite(ratio)
    assert ratio > 0
    assert torch.get_num_threads() == 2
