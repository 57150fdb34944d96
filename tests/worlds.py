"""Drivers, nodes and workers made up at random, whose truth is known: as inputs of tests.

A world writes the journal that its driver would have written, and keeps beside it where every
worker was at every time, by one true clock. What is computed from the journal must come to that.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

from stormsweep.records import (
    Entry,
    NodeEvent,
    Record,
    RunFailed,
    RunPlanned,
    SessionBegun,
    SessionEnded,
    TaskDone,
    TaskRetried,
    WorkerEvent,
)
from tests import journals

MILESTONES = (2, 4)
WALLTIME, CHARGED, GPUS, PRICE, GPU_PRICE = 4000, 8, 2, 0.25, 1.5
SPACE: dict[str, Any] = {"batch_size": [64, 128, 256], "epochs": list(MILESTONES)}


@dataclass
class Truth:
    """What really was, by worker (session and name), in seconds."""

    there: dict[tuple[int, str], list[tuple[float, float]]] = field(default_factory=dict)
    #: When it had something, and what was done in that time: busy or lost.
    had: dict[tuple[int, str], list[tuple[float, float, float, str]]] = field(default_factory=dict)
    #: When a run waited, by session.
    queued: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    #: Begin, last instant known, and whether it ended in order.
    sessions: dict[int, tuple[float, float, bool]] = field(default_factory=dict)
    nodes: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    asked_nodes: int = 0
    chains: dict[str, float] = field(default_factory=dict)
    driver: float = 0.0

    def parts(self, key: tuple[int, str]) -> dict[str, float]:
        """Say where a worker's time went, piece by piece between all instants that matter."""
        _, end, orderly = self.sessions[key[0]]
        had, queued = self.had.get(key, []), self.queued.get(key[0], [])
        last = max((stop for _, stop, _, _ in had), default=0.0)
        marks = sorted(
            {mark for span in [*self.there[key], *queued] for mark in span}
            | {mark for start, stop, _, _ in had for mark in (start, stop)}
        )
        found = dict.fromkeys(("busy", "lost", "travel", "waiting", "rest", "underway"), 0.0)
        for start, stop, seconds, kind in had:
            found[kind] += seconds
            found["travel"] += stop - start - seconds
        for a, b in itertools.pairwise(marks):
            middle = (a + b) / 2
            spells = [spell for spell in self.there[key] if spell[0] <= middle < spell[1]]
            if not spells or any(start <= middle < stop for start, stop, _, _ in had):
                continue
            if not orderly and spells[0][1] >= end and middle > last:
                found["underway"] += b - a
            elif any(start <= middle < stop for start, stop in queued):
                found["waiting"] += b - a
            else:
                found["rest"] += b - a
        return found


class World:
    """A study with its troubles.

    Parameters
    ----------
    seed : int
        Of everything that is left open.
    local : bool
        Whether the workers are on the driver's machine, else on nodes with clocks of their own.
    bundle : int
        How many runs are trained together at most.
    kills : int
        How many sessions are killed before the last one.
    trouble : float
        How likely an attempt is lost, or fails.
    """

    def __init__(self, seed: int, local: bool, bundle: int, kills: int, trouble: float) -> None:
        self.rng, self.local, self.bundle, self.trouble = (
            random.Random(seed),
            local,
            bundle,
            trouble,
        )
        self.truth, self.entries = Truth(), list[Entry]()
        self.workers = self.rng.randint(1, 4)
        self.runs = journals.plan([{"batch_size": b} for b in (64, 128, 256)], 2, list(MILESTONES))
        self.epoch = {run.run: 0 for run in self.runs}
        self.over: set[str] = set()
        self.found: list[tuple[TaskDone, float]] = []
        self.offsets = {f"n{n}": self.rng.uniform(-500, 500) for n in range(9)}
        now = journals.START
        self._write(now, journals.about(SPACE, 2))
        for run in self.runs:
            self._write(now, run)
        for session in range(1, kills + 2):
            now = self._session(session, now, killed=session <= kills) + self.rng.uniform(10, 9999)
        self.entries.sort(key=lambda entry: entry.time)

    def _write(self, when: float, record: Record) -> None:
        self.entries.append(Entry(when, record))

    def _plan(self, run: str) -> RunPlanned:
        return next(one for one in self.runs if one.run == run)

    def _session(self, number: int, start: float, killed: bool) -> float:
        rng, truth = self.rng, self.truth
        allotment: dict[str, Any] = {
            "scheduler": "local" if self.local else "slurm",
            "nodes": 1 if self.local else 0,
            "cores_per_node": 2 * self.workers if self.local else CHARGED,
            "gpus_per_node": 0 if self.local else GPUS,
            "workers_per_node": self.workers if self.local else 1,
            "threads_per_worker": 2,
        }
        if not self.local:
            allotment |= {"walltime_seconds": WALLTIME, "price_per_core_hour": PRICE}
            allotment |= {"price_per_gpu_hour": GPU_PRICE}
        opened = start + rng.uniform(1, 5)
        begun = SessionBegun(
            number,
            "driver",
            1,
            "local" if self.local else "far",
            self.workers,
            2,
            allotment,
            opened,
        )
        mine: list[Entry] = [Entry(start, begun)]
        free: list[tuple[float, str, str]] = []
        pid = 0
        for n in range(self.workers):
            node, name, host, ready = str(n + 1), str(n), "driver", start + rng.uniform(0.5, 30)
            if not self.local:
                host, granted = f"n{n}", start + rng.uniform(1, 60)
                name, ready = f"{host}-{node}-0", granted + rng.uniform(1, 20)
                mine.append(Entry(start + 0.1, NodeEvent(number, node, "asked")))
                mine.append(Entry(granted, NodeEvent(number, node, "granted")))
                truth.asked_nodes += 1
                truth.nodes[number, node] = granted, math.inf
            pid += 1
            mine.append(Entry(ready, WorkerEvent(number, name, "ready", host, pid)))
            truth.there.setdefault((number, name), []).append((ready, math.inf))
            heapq.heappush(free, (max(ready, opened), name, host))
        end = opened + rng.uniform(20, 120) if killed else math.inf
        waits = {run.run: opened for run in self.runs if run.run not in self.over}
        queued: list[tuple[float, float]] = []
        for done, _ in self.found:
            # The driver asks, and is answered from a checkpoint.
            mine.append(Entry(opened + 0.001, done))
            queued.append((waits[done.run], opened + 0.001))
            self._reached(done, opened + 0.001, waits)
        self.found = []
        while free and waits:
            now, name, host = heapq.heappop(free)
            if now < (first := min(waits.values())):
                heapq.heappush(free, (first, name, host))
                continue
            chosen = [run for run, since in waits.items() if since <= now]
            chosen = [run for run in chosen if self.epoch[run] == self.epoch[chosen[0]]]
            chosen = chosen[: rng.randint(1, self.bundle)]
            submitted = now + rng.uniform(0, 2)
            if submitted > end:
                continue
            since = {run: waits.pop(run) for run in chosen}
            queued += [(at, submitted) for at in since.values()]
            started = submitted + rng.uniform(0.001, 0.2)
            stopped = started + rng.uniform(1, 20)
            back = stopped + rng.uniform(0.001, 0.2)
            if stopped > end - 8:
                # The driver is stuck before it is killed.
                back += 10
            had = truth.had.setdefault((number, name), [])
            kind = rng.random()
            share = len(chosen)
            if kind < self.trouble:
                back = rng.uniform(submitted + 0.1, stopped)
            if back > end:
                if kind >= self.trouble and stopped < end:
                    # Its checkpoint is written, and its result on the way.
                    had.append((submitted, stopped, stopped - started, "busy"))
                    for run in chosen:
                        times = submitted, started, stopped
                        done = self._done(run, number, name, host, times, share)
                        self.found.append((done, stopped))
                continue
            if kind < self.trouble:
                had.append((submitted, back, back - submitted, "lost"))
                lost = (back - submitted) / share
                for run in chosen:
                    epochs = self.epoch[run], self._next(run)
                    if kind < self.trouble / 2:
                        mine.append(
                            Entry(back, TaskRetried(run, epochs[1], 2, "x", name, number, lost))
                        )
                        waits[run] = back
                    else:
                        failed = RunFailed(run, *epochs, "error", "x", name, number, "", lost)
                        mine.append(Entry(back, failed))
                        self.over.add(run)
                mine.append(
                    Entry(back, WorkerEvent(number, name, "lost", host, pid, "x", "killed"))
                )
                spells = truth.there[number, name]
                spells[-1] = spells[-1][0], back
                ready = back + rng.uniform(0.5, 30)
                if ready < end:
                    pid += 1
                    mine.append(Entry(ready, WorkerEvent(number, name, "ready", host, pid)))
                    spells.append((ready, math.inf))
                    heapq.heappush(free, (ready, name, host))
                continue
            had.append((submitted, back, stopped - started, "busy"))
            for run in chosen:
                done = self._done(run, number, name, host, (submitted, started, stopped), share)
                mine.append(Entry(back, done))
                self._reached(done, back, waits)
            heapq.heappush(free, (back, name, host))
        mine = [entry for entry in mine if entry.time <= end]
        last = max(entry.time for entry in mine)
        if not killed:
            last += rng.uniform(0, 3)
            driver = rng.uniform(0.1, 9)
            truth.driver += driver
            mine.append(Entry(last, SessionEnded(number, "done", driver)))
        last = max([last, *(stopped for _, stopped in self.found)])
        truth.sessions[number] = start, last, not killed
        queued += [(since, last) for since in waits.values()]
        truth.queued[number] = [(a, min(b, last)) for a, b in queued if a < min(b, last)]
        for key in [key for key in truth.there if key[0] == number]:
            spells = [(a, min(b, last)) for a, b in truth.there[key] if a <= end and a <= last]
            truth.there[key] = spells
            if not spells:
                del truth.there[key]
        for node_key, (granted, until) in list(truth.nodes.items()):
            if node_key[0] == number:
                truth.nodes[node_key] = granted, max(granted, min(until, last))
                if granted > end:
                    del truth.nodes[node_key]
        self.entries += mine
        return last

    def _next(self, run: str) -> int:
        return next(stop for stop in MILESTONES if stop > self.epoch[run])

    def _done(
        self,
        run: str,
        session: int,
        name: str,
        host: str,
        times: tuple[float, float, float],
        share: int,
    ) -> TaskDone:
        submitted, started, stopped = times
        self.truth.chains[run] = self.truth.chains.get(run, 0.0) + stopped - started
        plain = journals.task(self._plan(run), self.epoch[run], self._next(run))
        ahead = self.offsets.get(host, 0.0)
        return replace(
            plain,
            worker=name,
            session=session,
            submitted=submitted,
            started=started + ahead,
            stopped=stopped + ahead,
            phases={"train": 0.5 * (stopped - started) / share},
            threads=2,
            bundle=share,
        )

    def _reached(self, done: TaskDone, when: float, waits: dict[str, float]) -> None:
        self.epoch[done.run] = done.to_epoch
        if done.to_epoch == MILESTONES[-1]:
            waits.pop(done.run, None)
            self.over.add(done.run)
        else:
            waits[done.run] = when
