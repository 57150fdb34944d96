"""Every time that a worker was given a run: when it could have been, was, and what came of it.

All instants are by the driver's clock. How long a worker was at it is a difference of its own
clock alone; what is left of the time between order and answer went on the way, in both directions
together. So no instant of one machine is compared with one of another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stormsweep.records import (
    Entry,
    RunFailed,
    SessionBegun,
    TaskDone,
    TaskPaused,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.results import facts
from stormsweep.results.spans import Span, clocks, spans, spells

Floats = NDArray[np.float64]
Stretch = TaskDone | TaskPaused
#: Seconds by which an instant may be off that is told as a length of time.
_ROUNDING = 0.01


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run, or its part of a bundle, given to a worker.

    Attributes
    ----------
    session, worker, run : int, str, str
        Which.
    queued : float
        When it could have been given out: the queue opened, or the run's last attempt ended. NaN
        where that is not on record.
    submitted, returned : float
        When it was sent, and when its result or the news of its loss came.
    bundle : int
        How many were sent together.
    busy, lost : float
        Its shares of the seconds that the worker worked on it, and that were for nothing.
    stretch : TaskDone, TaskPaused or None
        What came of it; None: it was lost, or it failed.
    found : bool
        Whether the result was found in a checkpoint later on: when it came back is not known, and
        `returned` is when it was done, by the worker's clock set to the driver's as far as that is
        known.
    """

    session: int
    worker: str
    run: str
    queued: float
    submitted: float
    returned: float
    bundle: int
    busy: float
    lost: float
    stretch: Stretch | None
    found: bool

    @property
    def travel(self) -> float:
        """Its share of the seconds that order and answer took on the way."""
        if self.stretch is None:
            return 0.0
        return max(0.0, (self.returned - self.submitted) / self.bundle - self.busy)


@dataclass(frozen=True, slots=True)
class Work:
    """The attempts of a study, and when there was work that nobody had.

    Attributes
    ----------
    sessions : dict of int to Span
        The sessions.
    attempts : list of Attempt
        In the order in which they ended.
    waiting : list of (int, float, float)
        Session, from when, to when: each time that a run waited for a worker.
    """

    sessions: dict[int, Span]
    attempts: list[Attempt]
    waiting: list[tuple[int, float, float]]


def work(entries: Sequence[Entry]) -> Work:
    """Return the attempts of a study.

    Work that was lost with a driver that was killed is not on record, and in no attempt.
    """
    reader = _Reader(entries)
    chosen = {id(stretch) for stretch in facts.stretches(entries)}
    for entry in entries:
        match entry.record:
            case SessionBegun() as begun:
                reader.begin(begun.session)
            case WorkerEvent(event="ready") as who:
                reader.since[who.session, who.worker] = entry.time, entry.time
            case TaskDone() | TaskPaused() as stretch if id(stretch) in chosen:
                reader.take(stretch, entry.time)
            case RunFailed() | TaskRetried() as loss:
                reader.lose(loss, entry.time)
            case _:
                pass
    reader.close()
    waiting = [(session, since, until) for session, since, until in reader.waiting if until > since]
    return Work(reader.sessions, reader.attempts, waiting)


class _Reader:
    """Goes through a journal."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.sessions = spans(entries)
        self.attempts: list[Attempt] = []
        self.waiting: list[tuple[int, float, float]] = []
        #: When each worker got and gave back what it had last, as far as that is on record.
        self.since: dict[tuple[int, str], tuple[float, float]] = {}
        self._entries, self._ahead = entries, clocks(entries)
        there = spells(entries, self.sessions)
        self._hosts = {(spell.session, spell.worker): spell.host for spell in there}
        plans = facts.planned_runs(entries)
        self._last = {run: max(plan.milestones) for run, plan in plans.items()}
        self._together = Counter(
            (entry.time, entry.record.worker)
            for entry in entries
            if isinstance(entry.record, TaskDone | TaskPaused | RunFailed | TaskRetried)
        )
        self._touched = _touched(entries)
        self._now = 0
        #: Since when each run waits in the present session, and the runs that are over.
        self._free: dict[str, float] = {}
        self._over: set[str] = set()
        self._lost: dict[tuple[int, str, str], list[int]] = {}

    def begin(self, session: int) -> None:
        """Begin a session: all runs wait that are not over, or are tried again."""
        self.close()
        self._now, opened = session, _opened(self._entries, self.sessions[session])
        again = {run for number, run in self._touched if number == session}
        self._free = {run: opened for run in self._last if run not in self._over or run in again}
        self._over -= self._free.keys()

    def close(self) -> None:
        """End a session, with the runs that wait then."""
        if self._now in self.sessions:
            end = self.sessions[self._now].end
            self.waiting += [(self._now, since, end) for since in self._free.values()]
        self._free = {}

    def take(self, done: Stretch, when: float) -> None:
        """Take in what was trained."""
        key = done.session, done.worker, done.run
        # One that was given to this worker before its loss, or by another driver.
        before = [
            n
            for n in self._lost.get(key, ())
            if self.attempts[n].submitted - _ROUNDING <= done.submitted < self.attempts[n].returned
        ]
        found = done.session != self._now or bool(before)
        clock = self._ahead.get((done.session, self._hosts.get(key[:2], "")), 0.0)
        attempt = Attempt(
            *key,
            queued=math.nan if found else self._since(done.run, done.submitted),
            submitted=done.submitted,
            returned=done.stopped - clock if found else max(when, done.submitted),
            bundle=done.bundle,
            busy=done.seconds,
            lost=0.0,
            stretch=done,
            found=found,
        )
        if found:
            self._found(attempt, before)
        else:
            self.since[key[:2]] = done.submitted, when
        over = isinstance(done, TaskDone) and done.to_epoch >= self._last.get(done.run, 0)
        self._ended(attempt, when, over)

    def lose(self, loss: RunFailed | TaskRetried, when: float) -> None:
        """Take in what was for nothing."""
        key = loss.session, loss.worker, loss.run
        bundle = self._together[when, loss.worker]
        submitted = when - loss.seconds * bundle
        if not loss.seconds:
            # Journals of early development versions do not say: it had it since it was idle.
            start, end = self.since.get(key[:2], (when, when))
            submitted = end if end < when else start
        self.since[key[:2]] = submitted, when
        attempt = Attempt(
            *key,
            queued=self._since(loss.run, submitted),
            submitted=submitted,
            returned=when,
            bundle=bundle,
            busy=0.0,
            lost=(when - submitted) / bundle,
            stretch=None,
            found=False,
        )
        self._lost.setdefault(key, []).append(len(self.attempts))
        self._ended(attempt, when, isinstance(loss, RunFailed))

    def _since(self, run: str, submitted: float) -> float:
        return min(self._free.get(run, math.nan), submitted)

    def _ended(self, attempt: Attempt, when: float, over: bool) -> None:
        self.attempts.append(attempt)
        run = attempt.run
        if run in self._free:
            until = when if attempt.found else min(attempt.submitted, when)
            self.waiting.append((self._now, self._free[run], until))
        if over:
            self._free.pop(run, None)
            self._over.add(run)
        else:
            self._free[run] = when

    def _found(self, attempt: Attempt, before: Sequence[int]) -> None:
        """Take what was found again out of what counted as lost."""
        left = attempt.busy + attempt.travel
        for number in before[::-1]:
            known = self.attempts[number]
            part = min(known.lost, left)
            left -= part
            self.attempts[number] = replace(known, lost=known.lost - part)


def seconds_with_work(waiting: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Return instants, and the seconds until each of them in which at least one run waited.

    Between two of them the seconds grow linearly, or not at all: ``numpy.interp`` reads them.
    """
    if not waiting:
        return np.zeros(1), np.zeros(1)
    starts, ends = np.array(waiting, dtype=float).T
    times = np.concatenate([starts, ends])
    steps = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    order = np.argsort(times, kind="stable")
    times, counts = times[order], np.cumsum(steps[order])
    grown = np.concatenate([[0.0], np.cumsum(np.diff(times) * (counts[:-1] > 0))])
    return times, grown


def _touched(entries: Sequence[Entry]) -> set[tuple[int, str]]:
    """Return which runs were worked on in which session."""
    found: set[tuple[int, str]] = set()
    now = 0
    for entry in entries:
        if isinstance(entry.record, SessionBegun):
            now = entry.record.session
        elif isinstance(entry.record, TaskDone | TaskPaused | RunFailed | TaskRetried):
            found.add((now, entry.record.run))
    return found


def _opened(entries: Sequence[Entry], span: Span) -> float:
    """Return when the queue of a session opened."""
    if span.begun.opened:
        return span.begun.opened
    sent = (
        entry.record.submitted
        for entry in entries
        if isinstance(entry.record, TaskDone | TaskPaused)
        and entry.record.session == span.begun.session
    )
    return max(span.start, min(sent, default=span.end))
