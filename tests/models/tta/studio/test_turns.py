"""Whose turn it is in the studio: fair, cancelled at once, and nobody is waited for in vain."""

from __future__ import annotations

import threading
import time

import pytest

from models.tta.studio import turns as turns_module
from models.tta.studio.turns import Turns
from utils.errors import UserError


class Gate:
    """Work that notes its name and lasts until the gate is open."""

    def __init__(self) -> None:
        self.open, self.order = threading.Event(), []

    def work(self, name: str):
        def run(job) -> str:
            self.order.append(name)
            while not self.open.wait(0.002):
                job.on_step(1, 2)
            job.on_step(2, 2)
            return name

        return run


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def wait(condition) -> None:
    deadline = time.monotonic() + 60  # machines are busy
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be within a minute"
        time.sleep(0.005)


def ended(jobs) -> bool:
    return all(job.ended for job in jobs)


def test_sessions_take_turns_one_sound_at_a_time(gate):
    turns = Turns()
    jobs = turns.submit("greedy", [gate.work(f"g{i}") for i in range(4)])
    wait(lambda: jobs[0].look() == "working")
    jobs += turns.submit("b", [gate.work("b0"), gate.work("b1")])
    jobs += turns.submit("c", [gate.work("c0")])
    assert [turns.before(job) for job in jobs] == [0, 3, 5, 6, 1, 4, 2]
    gate.open.set()
    wait(lambda: ended(jobs))
    assert gate.order == ["g0", "b0", "c0", "g1", "b1", "g2", "g3"]
    assert [job.result for job in jobs] == ["g0", "g1", "g2", "g3", "b0", "b1", "c0"]


def test_who_had_a_turn_does_not_overtake_who_had_none(gate):
    turns = Turns()
    jobs = turns.submit("quick", [gate.work("quick0")])
    wait(lambda: jobs[0].look() == "working")
    jobs += turns.submit("quick", [gate.work("quick1")])
    jobs += turns.submit("patient", [gate.work("patient0"), gate.work("patient1")])
    gate.open.set()
    wait(lambda: ended(jobs))
    assert gate.order == ["quick0", "patient0", "quick1", "patient1"]


def test_cancelled_jobs_end_and_those_of_others_go_on(gate):
    turns = Turns()
    mine = turns.submit("me", [gate.work("m0"), gate.work("m1")])
    theirs = turns.submit("they", [gate.work("t0")])
    wait(lambda: mine[0].look() == "working")
    turns.cancel("me")
    assert [job.look() for job in mine] == ["cancelled", "cancelled"]
    wait(lambda: theirs[0].look() == "working")  # though the gate is closed: m0 stopped in a step
    gate.open.set()
    wait(lambda: ended(theirs))
    assert theirs[0].result == "t0"
    assert gate.order == ["m0", "t0"]
    assert mine[0].result is None


def test_a_client_that_is_gone_frees_its_place(gate, monkeypatch):
    monkeypatch.setattr(turns_module, "ABANDONED", 0.1)
    turns = Turns()
    gone = turns.submit("gone", [gate.work("g0"), gate.work("g1")])
    here = turns.submit("here", [gate.work("h0")])
    wait(lambda: here[0].look() == "working")
    wait(lambda: here[0].look() and ended(gone))
    assert [job.state for job in gone] == ["cancelled", "cancelled"]
    assert here[0].state == "working"


def test_what_goes_wrong_is_told_and_the_next_has_its_turn(caplog):
    def refuse(job):
        raise UserError("no such model")

    def break_down(job):
        raise ZeroDivisionError("secret detail")

    turns = Turns()
    jobs = turns.submit("me", [refuse, break_down, lambda job: "made"])
    wait(lambda: ended(jobs))
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert jobs[0].fault == "no such model"
    assert "secret detail" not in jobs[1].fault
    assert "secret detail" in caplog.text  # for who runs the server
    assert jobs[2].result == "made"


def test_too_many_are_refused(gate, monkeypatch):
    monkeypatch.setattr(turns_module, "MOST_OF_ONE", 3)
    monkeypatch.setattr(turns_module, "MOST_WAITING", 5)
    turns = Turns()
    at_work = turns.submit("first", [gate.work("f")])
    wait(lambda: at_work[0].look() == "working")
    turns.submit("a", [gate.work("a")] * 3)
    with pytest.raises(UserError, match="you have 3 sounds waiting; at most 3"):
        turns.submit("a", [gate.work("a")])
    with pytest.raises(UserError, match="3 sounds are waiting; try again"):
        turns.submit("b", [gate.work("b")] * 3)
    turns.cancel("a")
    turns.submit("b", [gate.work("b")] * 3)


def test_time_left_is_told_from_the_pace_of_the_steps(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(turns_module.time, "monotonic", lambda: clock[0])
    job = turns_module.Job("me", lambda job: None)
    assert job.seconds_left is None
    for step in (1, 2, 3):
        clock[0] += 2.0
        job.on_step(step, 10)
    assert job.seconds_left == pytest.approx(14.0)
