"""Timings of every task and every worker, from the journal alone.

For a task when it waited, went out, was worked on and came back; for a worker when it was asked
for, given, ready, busy, idle and gone.

Instants are by the driver's clock, but for ``started`` and ``stopped`` of a task, which are by its
worker's. See docs/explanation/timings.md for what each number means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stormsweep.records import Entry, TaskDone, node_of
from stormsweep.results import facts, frames
from stormsweep.results.spans import (
    Span,
    Spell,
    allotment_of,
    clocks,
    nodes,
    spells,
)
from stormsweep.results.views import view
from stormsweep.scaling.attempts import Attempt, Floats, Work, seconds_with_work, work

#: Outcomes of sessions at whose end the driver waited for what its workers were at.
ORDERLY = ("done", "failed", "walltime")
#: Where the time of a worker goes; together they are the time that it was there.
PARTS = ("busy", "lost", "travel", "waiting", "rest", "underway")


@view
def tasks(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a task that was done or paused, with when it waited and came back.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        - ``run``, ``fold``, and one column for each hyperparameter but ``epochs``: which run.
        - ``from_epoch``, ``to_epoch``: what was trained at one go; after a pause ``from_epoch`` is
          where it went on.
        - ``session``, ``worker``, ``threads``, ``cores``: who did it, with how many threads, and
          the processors that it was pinned to, such as ``0-3``; empty: none.
        - ``submitted``, ``started``, ``stopped``: instants, by the driver's clock: when it was
          sent, when the worker began and when it ended.
        - ``waited``: seconds from ``submitted`` to ``started``.
        - ``seconds``: the time that it took its worker; of a bundle its share.
        - ``open_seconds``, ``build_seconds``, ``compile_seconds``, ``train_seconds``,
          ``score_seconds``, ``checkpoint_seconds``: what these were spent on.
        - ``patches``, ``updates``: cases trained on, copies counted, and optimizer steps.
        - ``patches_per_second``: speed of the worker while training.
        - ``memory_mb``: peak memory of the worker process so far.
        - ``parameters``: trainable parameters of the model.
        - ``bundle``: how many runs were trained together from ``started`` to ``stopped``.
        - ``paused``: whether the row ends with a pause instead of a milestone.
        - ``queued``, ``returned``: when it could have been given out and when its result came back,
          by the driver's clock; the second is NaN where a later session or worker found the result
          in a checkpoint.
        - ``queued_seconds``: from ``queued`` until it was sent.
        - ``sending_seconds``, ``returning_seconds``: on the way to the worker and back; of a bundle
          its share. Between two machines they are told apart by an estimate of how far the clocks
          differ, which does not change their sum.
    """
    done = work(entries)
    ahead = clocks(entries)
    hosts = {(one.session, one.worker): one.host for one in spells(entries, done.sessions)}
    rows = []
    for attempt in done.attempts:
        if (stretch := attempt.stretch) is None:
            continue
        clock = ahead.get((attempt.session, hosts.get((attempt.session, attempt.worker), "")), 0.0)
        sent = max(0.0, (stretch.started - clock - attempt.submitted) / attempt.bundle)
        rows.append(
            (
                attempt.queued,
                math.nan if attempt.found else attempt.returned,
                attempt.submitted - attempt.queued,
                math.nan if attempt.found else min(sent, attempt.travel),
                math.nan if attempt.found else attempt.travel - min(sent, attempt.travel),
            )
        )
    names = ["queued", "returned", "queued_seconds", "sending_seconds", "returning_seconds"]
    more = pd.DataFrame(rows, columns=names, dtype="float64")
    return pd.concat([frames.tasks(entries), more], axis=1)


@view
def workers(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a worker and session: when it was there, and where its time went.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        - ``session``, ``worker``, ``host``, ``node``: which worker, and where it ran.
        - ``asked``, ``granted``, ``ready``, ``gone``: instants. The scheduler granted it; on this
          machine the first two are the begin of the session.
        - ``available_seconds``: from ``ready`` to ``gone``, without the time between its spells,
          if it was lost and came back. The next six add up to it.
        - ``busy_seconds``: in tasks on record.
        - ``lost_seconds``: on work that was for nothing.
        - ``travel_seconds``: while orders and answers were on the way.
        - ``waiting_seconds``: with nothing to do although a run waited.
        - ``rest_seconds``: with nothing to do because no run waited.
        - ``underway_seconds``: since the last answer, where the driver was killed or is at work:
          what was done then is not on record.
        - ``idle_seconds``: travel, waiting and rest.
        - ``tasks``: tasks that it did.
        - ``cores``, ``gpus``: its threads, and its GPUs, a share where workers share one.
    """
    done = work(entries)
    asked = nodes(entries)
    rows = []
    for own in times_of(done, spells(entries, done.sessions)):
        first, last, span = own.spells[0], own.spells[-1], done.sessions.get(own.session)
        given = {} if span is None else allotment_of(span.begun)
        node = asked.get((own.session, node_of(own.worker)))
        begun = first.start if span is None else span.start
        came = (begun, begun) if node is None else (node.asked, node.granted)
        parts = [own.parts[part] for part in PARTS]
        rows.append(
            (
                *(own.session, own.worker, first.host, "" if node is None else node.node, *came),
                *(first.start, last.end, own.seconds, *parts),
                sum(own.parts[part] for part in ("travel", "waiting", "rest")),
                *(own.tasks, given.get("threads_per_worker", 1)),
                given.get("gpus_per_node", 0) / max(1, given.get("workers_per_node", 1)),
            )
        )
    columns = ["session", "worker", "host", "node", "asked", "granted", "ready", "gone"]
    columns += ["available_seconds", *(f"{part}_seconds" for part in PARTS), "idle_seconds"]
    columns += ["tasks", "cores", "gpus"]
    whole = dict.fromkeys(["session", "tasks", "cores"], "int64")
    reals = dict.fromkeys([*columns[4:-3], "gpus"], "float64")
    texts = dict.fromkeys(["worker", "host", "node"], "str")
    return pd.DataFrame(rows, columns=columns).astype(whole | reals | texts)


@view
def worker_time(entries: Sequence[Entry]) -> pd.DataFrame:
    """Say where the workers' time went, from the begin of their session until they were gone.

    Returns
    -------
    DataFrame
        One row a ``session`` and ``worker``, and the seconds of: ``start`` (until ready), the
        phases of the tasks, ``other`` (in tasks, but in no phase), ``lost``, ``travel``,
        ``waiting``, ``idle`` (nothing to do, because no run waited), ``underway``.
    """
    times, table = workers(entries), frames.workers(entries)
    phases = [f"{phase}_seconds" for phase in facts.PHASES]
    result = times[["session", "worker"]].copy()
    own = times[["session", "worker"]].merge(table, how="left", on=["session", "worker"])
    result["start"] = own["startup_seconds"]
    for phase, column in zip(facts.PHASES, phases, strict=True):
        result[phase] = own[column]
    result["other"] = (times["busy_seconds"] - own[phases].sum(axis=1)).clip(lower=0.0)
    for part in ("lost", "travel", "waiting"):
        result[part] = times[f"{part}_seconds"]
    result["idle"] = times["rest_seconds"]
    result["underway"] = times["underway_seconds"]
    return result


@dataclass(frozen=True, slots=True)
class WorkerTimes:
    """A worker in a session: its spells, and where its time went.

    Attributes
    ----------
    session, worker : int, str
        Which.
    spells : list of Spell
        When it was there.
    tasks : int
        Tasks that it did.
    parts : dict of str to float
        Seconds of each of `PARTS`; their sum is that of the spells.
    """

    session: int
    worker: str
    spells: list[Spell]
    tasks: int
    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        """How long it was there."""
        return math.fsum(spell.seconds for spell in self.spells)


def times_of(done: Work, there: Sequence[Spell]) -> list[WorkerTimes]:
    """Return where the time of each worker went, in the order in which they came."""
    grouped: dict[tuple[int, str], tuple[list[Spell], list[Attempt]]] = {}
    for spell in there:
        grouped.setdefault((spell.session, spell.worker), ([], []))[0].append(spell)
    for attempt in done.attempts:
        if (own := grouped.get((attempt.session, attempt.worker))) is not None:
            own[1].append(attempt)
    queued: dict[int, list[tuple[float, float]]] = {}
    for session, since, until in done.waiting:
        queued.setdefault(session, []).append((since, until))
    clock = {session: seconds_with_work(times) for session, times in queued.items()}
    nothing = seconds_with_work(())
    return [
        WorkerTimes(
            *key,
            own,
            sum(isinstance(one.stretch, TaskDone) for one in attempts),
            _parts(own, attempts, done.sessions.get(key[0]), clock.get(key[0], nothing)),
        )
        for key, (own, attempts) in grouped.items()
    ]


def _parts(
    own: Sequence[Spell],
    attempts: Sequence[Attempt],
    span: Span | None,
    queued: tuple[Floats, Floats],
) -> dict[str, float]:
    """Return where the time of one worker went."""
    parts = dict.fromkeys(PARTS, 0.0)
    parts["busy"] = math.fsum(one.busy for one in attempts)
    parts["lost"] = math.fsum(one.lost for one in attempts)
    parts["travel"] = math.fsum(one.travel for one in attempts)
    # Of a bundle there is one attempt a run, over the same time.
    at_it = _united((one.submitted, one.returned) for one in attempts)
    idle = [(spell.start, spell.end) for spell in own]
    if span is not None and span.outcome not in ORDERLY:
        last = max((end for _, end in at_it), default=0.0)
        since = [max(start, last) for start, end in idle if end >= span.end]
        idle = [
            (start, min(end, max(start, last)) if end >= span.end else end) for start, end in idle
        ]
        parts["underway"] = sum(max(0.0, span.end - start) for start in since)
    free = _without(idle, at_it)
    if free:
        ends = np.interp(np.array(free).ravel(), *queued).reshape(-1, 2)
        parts["waiting"] = float((ends[:, 1] - ends[:, 0]).sum())
        parts["rest"] = math.fsum(end - start for start, end in free) - parts["waiting"]
    return parts


def _united(times: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return lengths of time in order, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(times):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _without(
    times: Sequence[tuple[float, float]], taken: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Return what is left of lengths of time; both are in order."""
    left: list[tuple[float, float]] = []
    n = 0
    for start, end in times:
        while n < len(taken) and taken[n][1] <= start:
            n += 1
        at, now = n, start
        while at < len(taken) and taken[at][0] < end:
            if taken[at][0] > now:
                left.append((now, taken[at][0]))
            now = max(now, taken[at][1])
            at += 1
        if end > now:
            left.append((now, end))
    return left
