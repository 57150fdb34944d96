"""When drivers, workers and nodes were there, read from the journal by its driver's clock.

Every line of the journal bears the driver's time; `started` and `stopped` of a task are by its
worker's clock, which on another machine may differ. An order and its answer bound the difference
(as in NTP): a task cannot begin before it was sent, nor come back before it ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stormsweep.records import (
    Entry,
    NodeEvent,
    PlanCut,
    Proposed,
    RunPlanned,
    SearchEnded,
    SessionBegun,
    SessionEnded,
    StudyBegun,
    TaskDone,
    TaskPaused,
    Verified,
    WorkerEvent,
)
from stormsweep.results.journal import of_kind

#: Records that say nothing of a session, whenever they were written.
_APART = (StudyBegun, RunPlanned, Proposed, SearchEnded, PlanCut, Verified)


@dataclass(slots=True)
class Span:
    """A session of the driver.

    Attributes
    ----------
    begun : SessionBegun
        Its first record.
    start, end : float
        From when to when; one that was killed, or is at work, counts until its last record or, if
        that is later, until the end of a task of its that a later session found.
    outcome : str
        As in `SessionEnded`; ``killed`` without an end where another follows, else ``open``.
    driver_seconds : float
        Processor seconds of the driver; 0: not known.
    """

    begun: SessionBegun
    start: float
    end: float
    outcome: str = "open"
    driver_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Spell:
    """A worker process from when it could work until it was gone.

    Attributes
    ----------
    session, worker, host, pid : int, str, str, int
        Which.
    start, end : float
        From when to when; the end of its session where nothing else is on record.
    lost : bool
        Whether it was lost.
    """

    session: int
    worker: str
    host: str
    pid: int
    start: float
    end: float
    lost: bool

    @property
    def seconds(self) -> float:
        """How long it was there."""
        return max(0.0, self.end - self.start)


@dataclass(slots=True)
class Node:
    """A node that a session asked for.

    Attributes
    ----------
    session, node : int, str
        Which.
    asked, granted, ended : float
        Instants; NaN where there is none on record.
    seconds : float
        How long its scheduler says that we had it; 0: it does not say.
    """

    session: int
    node: str
    asked: float = float("nan")
    granted: float = float("nan")
    ended: float = float("nan")
    seconds: float = 0.0


def spans(entries: Sequence[Entry]) -> dict[int, Span]:
    """Return the sessions by number."""
    found: dict[int, Span] = {}
    last: Span | None = None
    stopped: dict[int, dict[str, float]] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, SessionBegun):
            if last is not None and last.outcome == "open":
                last.outcome = "killed"
            last = found[record.session] = Span(record, entry.time, entry.time)
            continue
        if isinstance(record, TaskDone | TaskPaused):
            latest = stopped.setdefault(record.session, {})
            latest[record.worker] = max(record.stopped, latest.get(record.worker, 0.0))
        if last is None or last.outcome != "open" or isinstance(record, _APART):
            continue
        last.end = max(last.end, entry.time)
        if isinstance(record, SessionEnded):
            last.outcome, last.driver_seconds = record.outcome, record.driver_seconds
    unended = {n: span for n, span in found.items() if span.outcome in ("killed", "open")}
    if unended:
        ahead, hosts = clocks(entries), hosts_of(entries)
        for number, span in unended.items():
            for worker, when in stopped.get(number, {}).items():
                clock = ahead.get((number, hosts.get((number, worker), "")), 0.0)
                span.end = max(span.end, when - clock)
    return found


def clocks(entries: Sequence[Entry]) -> dict[tuple[int, str], float]:
    """Return by how much the clocks of workers' machines are ahead of the driver's, in seconds.

    By session and machine, for machines other than the driver's. What tasks take to be sent and to
    come back bounds the difference from both sides; the middle is taken, so that the quicker the
    quickest message, the better it is known. Sessions of the same two machines count together.
    """
    hosts, driver, now = hosts_of(entries), dict[int, str](), 0
    most: dict[tuple[str, str], float] = {}
    least: dict[tuple[str, str], float] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, SessionBegun):
            driver[record.session], now = record.host, record.session
        elif isinstance(record, TaskDone | TaskPaused):
            pair = driver.get(record.session, ""), hosts.get((record.session, record.worker), "")
            most[pair] = min(most.get(pair, math.inf), record.started - record.submitted)
            if record.session == now:
                least[pair] = max(least.get(pair, -math.inf), record.stopped - entry.time)
    return {
        (session, host): (most[pair] + least.get(pair, most[pair])) / 2
        for (session, _), host in hosts.items()
        if (pair := (driver.get(session, ""), host)) in most and host != pair[0]
    }


def spells(entries: Sequence[Entry], sessions: dict[int, Span] | None = None) -> list[Spell]:
    """Return the spells of all workers, in the order in which they began.

    A worker that did a task and of which no record says that it became ready was there from the
    begin of its session.
    """
    sessions = spans(entries) if sessions is None else sessions
    found: list[Spell] = []
    there: dict[tuple[int, str], tuple[WorkerEvent, float]] = {}
    seen: set[tuple[int, str]] = set()
    tasks: set[tuple[int, str]] = set()

    def close(key: tuple[int, str], end: float, lost: bool) -> None:
        event, start = there.pop(key)
        found.append(Spell(*key, event.host, event.pid, start, max(start, end), lost))

    for entry in entries:
        record = entry.record
        if isinstance(record, TaskDone | TaskPaused):
            tasks.add((record.session, record.worker))
        if not isinstance(record, WorkerEvent):
            continue
        key = record.session, record.worker
        if key in there:
            close(key, entry.time, record.event == "lost")
        if record.event == "ready":
            there[key] = record, entry.time
            seen.add(key)
    for key in list(there):
        session = sessions.get(key[0])
        close(key, there[key][1] if session is None else session.end, lost=False)
    for session_number, worker in sorted(tasks - seen):
        if (session := sessions.get(session_number)) is not None:
            whole = session.start, session.end
            found.append(Spell(session_number, worker, "", 0, *whole, lost=False))
    return sorted(found, key=lambda spell: spell.start)


def nodes(entries: Sequence[Entry]) -> dict[tuple[int, str], Node]:
    """Return the nodes that were asked for, by session and number."""
    found: dict[tuple[int, str], Node] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, NodeEvent):
            key = record.session, record.node
            node = found.setdefault(key, Node(*key))
            # Of a node that its scheduler started twice, the first time counts.
            if record.event != "granted" or node.granted != node.granted:
                setattr(node, record.event, entry.time)
            node.seconds = max(node.seconds, record.seconds)
    for node in found.values():
        # Slurm counts whole seconds: what is granted at once seems to have been before it was asked
        # for.
        if node.granted < node.asked:
            node.granted = node.asked
    return found


def hosts_of(entries: Sequence[Entry]) -> dict[tuple[int, str], str]:
    """Return the machine of every worker, by session and name."""
    return {
        (record.session, record.worker): record.host
        for record in (entry.record for entry in entries)
        if isinstance(record, WorkerEvent)
    }


def processors_of(entries: Sequence[Entry]) -> dict[tuple[int, str], str]:
    """Return the kind of processor of every worker, by session and name.

    Where a journal does not say it, the name of the machine stands for it: one is as it is.
    """
    return {
        (event.session, event.worker): event.processor or event.host
        for event in of_kind(entries, WorkerEvent)
        if event.event == "ready"
    }


def sharing_of(entries: Sequence[Entry]) -> dict[tuple[int, str], int]:
    """Return how many workers the node of a worker had at once, by session and worker."""
    hosts: dict[tuple[int, str], str] = {}
    alive: dict[tuple[int, str], set[str]] = {}
    most: dict[tuple[int, str], int] = {}
    for event in of_kind(entries, WorkerEvent):
        node = (event.session, event.host or hosts.get((event.session, event.worker), ""))
        there = alive.setdefault(node, set())
        if event.event == "ready":
            hosts[event.session, event.worker] = node[1]
            there.add(event.worker)
            most[node] = max(most.get(node, 0), len(there))
        else:
            there.discard(event.worker)
    return {who: most[who[0], host] for who, host in hosts.items()}


def allotment_of(begun: SessionBegun) -> dict[str, Any]:
    """Return what a session was allotted, filled up for journals of early development versions."""
    local = {"nodes": 1, "workers_per_node": begun.workers} if begun.site == "local" else {}
    if local:
        local |= {"cores_per_node": begun.workers * begun.threads_per_worker}
    known = {"threads_per_worker": begun.threads_per_worker, "inside": False, "gpus_per_node": 0}
    return {**known, **local, **begun.allotment}
