"""Whose turn it is: one worker, many who wait, and nobody who waits for ever."""

from __future__ import annotations

import collections
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from utils.errors import UserError

ABANDONED = 20.0  # seconds without anyone asking how a job does: its client is gone
MOST_WAITING = 200  # jobs, over all sessions
MOST_OF_ONE = 32  # jobs of one session
REMEMBERED = 1000  # sessions whose last turn is known
NOT_WORKED = "this did not work, for a reason that the server's terminal shows"
log = logging.getLogger("arion")


class Cancelled(Exception):
    """Ends a job from within, between two steps."""


class Job:
    """A piece of work of one session: `work` is called with the job, and calls its `on_step`."""

    def __init__(self, session: str, work: Callable[[Job], object]) -> None:
        self.session, self._work = session, work
        self.state = "waiting"  # then working, then done, failed or cancelled
        self.step = self.steps = 0
        self._first_step: float | None = None  # time.monotonic() of its end
        self.result: object = None
        self.fault = ""  # what the user is told where it failed
        self._seen = time.monotonic()

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def seconds_left(self) -> float | None:
        """From the pace of the steps after the first, which warms up; None before there are any."""
        if self.step < 2:
            return None
        return (time.monotonic() - self._first_step) / (self.step - 1) * (self.steps - self.step)

    def look(self) -> str:
        """The state, for one who waits; a job at which nobody looks any more is dropped."""
        self._seen = time.monotonic()
        return self.state

    def cancel(self) -> None:
        if not self.ended:
            self.state = "cancelled"

    def on_step(self, step: int, steps: int) -> None:
        """Notes the progress. Raises Cancelled where nobody wants the result."""
        self.drop_if_abandoned()
        if self.state == "cancelled":
            raise Cancelled
        self.step, self.steps = step, steps
        self._first_step = self._first_step or time.monotonic()

    def drop_if_abandoned(self) -> None:
        if time.monotonic() - self._seen > ABANDONED:
            self.cancel()

    def run(self) -> None:
        """Works; whatever goes wrong is noted in `fault` and `state`, never raised."""
        if self.state != "waiting":
            return
        self.state = "working"
        try:
            self.result = self._work(self)
            self._end("done")
        except Cancelled:
            self.state = "cancelled"
        except UserError as error:
            self.fault = str(error)
            self._end("failed")
        except Exception:
            log.exception("a job of the studio failed")
            self.fault = NOT_WORKED
            self._end("failed")

    def _end(self, state: str) -> None:
        self.state = "cancelled" if self.state == "cancelled" else state


class Turns:
    """Runs jobs one at a time, the sessions in turns: that whose last turn is longest ago is next.

    So one who asks for eight sounds does not keep others waiting for more than one of them.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Job]] = []  # with their numbers, in order
        self._last_turn: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._at_work: list[Job] = []  # one at most
        self._number = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="studio worker", daemon=True).start()

    def submit(self, session: str, works: Sequence[Callable[[Job], object]]) -> list[Job]:
        """A job for each work. Raises UserError where too many wait already."""
        with self._changed:
            self._drop()
            own = sum(job.session == session for _, job in self._waiting)
            if own + len(works) > MOST_OF_ONE:
                raise UserError(f"you have {own} sounds waiting; at most {MOST_OF_ONE} can")
            if len(self._waiting) + len(works) > MOST_WAITING:
                raise UserError(f"{len(self._waiting)} sounds are waiting; try again in a while")
            jobs = [Job(session, work) for work in works]
            self._waiting += [(next(self._number), job) for job in jobs]
            self._changed.notify()
        return jobs

    def cancel(self, session: str) -> None:
        """Cancels all that the session waits for, what is being made included."""
        with self._changed:
            for job in [job for _, job in self._waiting] + self._at_work:
                if job.session == session:
                    job.cancel()
            self._drop()

    @property
    def busy(self) -> bool:
        """Whether anyone waits, or has a turn."""
        with self._changed:
            return bool(self._waiting or self._at_work)

    def before(self, job: Job) -> int:
        """How many jobs have their turn before this one, with the one at work."""
        with self._changed:
            waiting = [other for _, other in self._in_order()]
            return len(self._at_work) + waiting.index(job) if job in waiting else 0

    def _in_order(self) -> list[tuple[int, Job]]:
        """Every session's first job, then every session's second, ...; in a round, whose last turn
        is longest ago comes first."""
        rounds: collections.Counter[str] = collections.Counter()
        keyed = []
        for number, job in self._waiting:
            key = (rounds[job.session], self._last_turn.get(job.session, -1), number)
            rounds[job.session] += 1
            keyed.append((key, (number, job)))
        return [entry for _, entry in sorted(keyed, key=lambda pair: pair[0])]

    def _drop(self) -> None:
        for _, job in self._waiting:
            job.drop_if_abandoned()
        self._waiting = [entry for entry in self._waiting if not entry[1].ended]

    def _next(self) -> Job:
        with self._changed:
            while True:
                self._drop()
                if self._waiting:
                    break
                self._changed.wait()
            entry = self._in_order()[0]
            self._waiting.remove(entry)
            session = entry[1].session
            self._last_turn[session] = next(self._number)
            self._last_turn.move_to_end(session)
            if len(self._last_turn) > REMEMBERED:
                self._last_turn.popitem(last=False)
            self._at_work = [entry[1]]
            return entry[1]

    def _work(self) -> None:
        while True:
            self._next().run()
            with self._changed:
                self._at_work = []  # and with it what the job holds
