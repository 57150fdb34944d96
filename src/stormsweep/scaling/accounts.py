"""The account of a study: what was asked, given and used, and what came of it, in one look.

From the journal alone; docs/explanation/timings.md says how each number is computed.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from stormsweep.records import Entry, TaskDone, TaskPaused, node_of
from stormsweep.results import facts
from stormsweep.results.spans import Node, Span, Spell, allotment_of, nodes, spells
from stormsweep.results.views import view
from stormsweep.scaling.attempts import work
from stormsweep.scaling.machine import price_of
from stormsweep.scaling.timings import WorkerTimes, times_of
from stormsweep.search.plan import program
from stormsweep.work import Run


@dataclass(frozen=True, slots=True)
class Account:
    """What a study took, and what came of it. Seconds, unless they are hours.

    Attributes
    ----------
    wall_seconds : float
        Sum over the sessions; pauses between them are left out.
    held_seconds : float
        Worker-seconds that were held: workers times the length of the session on one machine, those
        of its nodes from when they were granted until they ended elsewhere.
    worker_seconds : float
        Worker-seconds available: from ready until gone.
    busy_seconds, train_seconds : float
        In tasks on record, and of that in training.
    lost_seconds, travel_seconds, waiting_seconds, rest_seconds, underway_seconds : float
        What else the available worker-seconds were spent on; with `busy_seconds` they are all. Work
        that was for nothing; orders and answers on the way; nothing to do although a run waited;
        nothing to do because none did; since the last answer where the driver was killed or is at
        work, of which nothing is on record.
    repeated_seconds : float
        Of `busy_seconds`: opening data and compiling that one worker would have done once.
    utilisation : float
        `busy_seconds` of `worker_seconds` without `underway_seconds`; NaN where there are none.
    load_balance : float
        Mean over workers of what they were busy, of the most; 1 is even. A worker that came when
        another had gone takes its place, and counts with it as one.
    parallel_efficiency : float
        `busy_seconds` without `repeated_seconds`, of `held_seconds`: what one worker would need at
        the same pace, of what was held. NaN where nothing was.
    overhead_seconds : float
        Processor seconds of the driver; NaN where no session has them on record.
    longest_chain_seconds, longest_chain_run : float, str
        The run whose tasks took longest, one after another: no number of workers is faster.
    core_hours_asked, core_hours_granted, core_hours_used : float
        Cores charged times walltime of what was asked for; times how long it was given; threads
        times the seconds in tasks. NaN where the walltime, or the number of cores, is not known.
    gpu_hours_asked, gpu_hours_granted, gpu_hours_used : float
        The same of GPUs.
    cost : float or None
        What was granted at the site's prices; None where no session has a price, or one has a price
        for a part of what it is charged for.
    price_basis : str
        What the cost is computed from, or why there is none, in one line.
    """

    wall_seconds: float
    held_seconds: float
    worker_seconds: float
    busy_seconds: float
    train_seconds: float
    lost_seconds: float
    travel_seconds: float
    waiting_seconds: float
    rest_seconds: float
    underway_seconds: float
    repeated_seconds: float
    utilisation: float
    load_balance: float
    parallel_efficiency: float
    overhead_seconds: float
    longest_chain_seconds: float
    longest_chain_run: str
    core_hours_asked: float
    core_hours_granted: float
    core_hours_used: float
    gpu_hours_asked: float
    gpu_hours_granted: float
    gpu_hours_used: float
    cost: float | None
    price_basis: str


@dataclass(frozen=True, slots=True)
class Allotted:
    """What one session asked of its site, and was given.

    Attributes
    ----------
    session, site : int, str
        Which, and where.
    asked_seconds, granted_seconds : float
        Node-seconds; those asked are NaN where no walltime is known.
    workers, cores, gpus : float
        Of a node; the cores that are charged, NaN where they are not known.
    core_price, gpu_price : float or None
        Of an hour.
    """

    session: int
    site: str
    asked_seconds: float
    granted_seconds: float
    workers: float
    cores: float
    gpus: float
    core_price: float | None
    gpu_price: float | None

    @property
    def cost(self) -> float | None:
        """What was granted, at the site's prices; None where anything charged has none."""
        hours = self.granted_seconds / 3600
        return price_of(
            hours * self.cores,
            hours * self.gpus,
            self.core_price,
            self.gpu_price,
            gpus=self.gpus > 0,
        )


@view
def account(entries: Sequence[Entry]) -> Account:
    """Return the account of a study, finished or not, from its journal alone."""
    done = work(entries)
    there = spells(entries, done.sessions)
    times = times_of(done, there)
    sums = {part: math.fsum(one.parts[part] for one in times) for part in _PARTS}
    # Of workers that no record names too: what is on record was done.
    busy = math.fsum(one.busy for one in done.attempts)
    available = math.fsum(one.seconds for one in times)
    asked = nodes(entries)
    allotted = [_allotted(span, asked, there) for _, span in sorted(done.sessions.items())]
    threads = {n: span.begun.threads_per_worker for n, span in done.sessions.items()}
    per_worker = {one.session: one.gpus / max(1.0, one.workers) for one in allotted}
    stretches = facts.stretches(entries)
    held = math.fsum(one.granted_seconds * one.workers for one in allotted)
    any_batch = {n for n, span in done.sessions.items() if span.begun.any_batch}
    repeated = _repeated(entries, stretches, any_batch)
    settled = available - sums["underway"]
    driver = [span.driver_seconds for span in done.sessions.values() if span.driver_seconds]
    chain, run = _longest_chain(stretches)
    cost, basis = _cost(allotted)
    return Account(
        wall_seconds=math.fsum(span.seconds for span in done.sessions.values()),
        held_seconds=held,
        worker_seconds=available,
        busy_seconds=busy,
        train_seconds=math.fsum(one.phases.get("train", 0.0) for one in stretches),
        lost_seconds=sums["lost"],
        travel_seconds=sums["travel"],
        waiting_seconds=sums["waiting"],
        rest_seconds=sums["rest"],
        underway_seconds=sums["underway"],
        repeated_seconds=repeated,
        utilisation=busy / settled if settled > 0 else math.nan,
        load_balance=_load_balance(times),
        parallel_efficiency=(busy - repeated) / held if held > 0 else math.nan,
        overhead_seconds=math.fsum(driver) if driver else math.nan,
        longest_chain_seconds=chain,
        longest_chain_run=run,
        core_hours_asked=_hours(one.asked_seconds * one.cores for one in allotted),
        core_hours_granted=_hours(one.granted_seconds * one.cores for one in allotted),
        core_hours_used=_hours(
            one.seconds * (one.threads or threads.get(one.session, 1)) for one in stretches
        ),
        gpu_hours_asked=_hours(_times(one.asked_seconds, one.gpus) for one in allotted),
        gpu_hours_granted=_hours(one.granted_seconds * one.gpus for one in allotted),
        gpu_hours_used=_hours(one.seconds * per_worker.get(one.session, 0.0) for one in stretches),
        cost=cost,
        price_basis=basis,
    )


_PARTS = ("lost", "travel", "waiting", "rest", "underway")


def _hours(seconds: Iterable[float]) -> float:
    return sum(seconds) / 3600


def _times(seconds: float, count: float) -> float:
    """Multiply; none of something is none, for however long."""
    return seconds * count if count else 0.0


def _allotted(span: Span, asked: dict[tuple[int, str], Node], there: Sequence[Spell]) -> Allotted:
    """Return what a session asked for and was given."""
    begun, given = span.begun, allotment_of(span.begun)
    own = [node for (session, _), node in asked.items() if session == begun.session]
    walltime = float(given.get("walltime_seconds") or math.nan)
    inside = bool(given["inside"])
    if inside:
        seconds = span.seconds + float(given.get("held_seconds", 0.0))
        count = int(given["nodes"])
        granted = count * (min(seconds, walltime) if walltime == walltime else seconds)
        wanted = count * walltime
    elif own:
        ready = _first_ready(begun.session, there)
        granted = math.fsum(_held(node, span, walltime, ready.get(node.node)) for node in own)
        wanted = len(own) * walltime
    elif begun.site == "local":
        granted = wanted = span.seconds
    else:
        granted = wanted = 0.0
    workers = given.get("workers_per_node") or _workers_seen(begun.session, there)
    cores = given.get("cores_per_node")
    if cores is None and not begun.allotment:
        cores = workers * begun.threads_per_worker
    return Allotted(
        session=begun.session,
        site=begun.site,
        asked_seconds=wanted,
        granted_seconds=granted,
        workers=float(workers),
        cores=math.nan if cores is None else float(cores),
        gpus=float(given["gpus_per_node"]),
        core_price=given.get("price_per_core_hour"),
        gpu_price=given.get("price_per_gpu_hour"),
    )


def _held(node: Node, span: Span, walltime: float, ready: float | None) -> float:
    """Return how long a node was ours: as its scheduler says, or as the driver saw it."""
    seconds = node.seconds
    if not seconds:
        since = node.granted if node.granted == node.granted else ready
        until = node.ended if node.ended == node.ended else span.end
        seconds = 0.0 if since is None else max(0.0, until - since)
    # The end of a job is seen late, up to half a minute.
    return min(seconds, walltime) if walltime == walltime else seconds


def _first_ready(session: int, there: Sequence[Spell]) -> dict[str, float]:
    found: dict[str, float] = {}
    for spell in there:
        if spell.session == session:
            found.setdefault(node_of(spell.worker), spell.start)
    return found


def _workers_seen(session: int, there: Sequence[Spell]) -> int:
    """Return how many workers a node had, for journals of early development versions."""
    names = {spell.worker for spell in there if spell.session == session}
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[node_of(name)] += 1
    return max(counts.values(), default=1)


def _cost(allotted: Sequence[Allotted]) -> tuple[float | None, str]:
    priced = [one for one in allotted if one.cost is not None]
    # A part of what was charged is no cost, and would look like one.
    partly = [one for one in allotted if one.cost is None and one.core_price is not None]
    if any(one.gpus and one.gpu_price is None for one in partly):
        return None, "GPUs have no price: give the site its price_per_gpu_hour (0: they are free)"
    if partly:
        return None, "how many cores a node has is not known: give the site its cores_per_node"
    if not priced:
        return None, "the site has no price (price_per_core_hour, price_per_gpu_hour)"
    prices = {(one.core_price, one.gpu_price) for one in priced}
    words = []
    for core, gpu in sorted(prices, key=str):
        parts = [f"{core:g} a core-hour"] if core is not None else []
        parts += [f"{gpu:g} a GPU-hour"] if gpu is not None else []
        words.append(" and ".join(parts))
    basis = f"what was granted, at {'; '.join(words)}"
    free = sorted({one.site for one in allotted if one.cost is None})
    if free:
        basis += f"; sessions on {', '.join(free)} have no price and count nothing"
    return sum(one.cost or 0.0 for one in priced), basis


def _longest_chain(stretches: Sequence[TaskDone | TaskPaused]) -> tuple[float, str]:
    """Return the longest run: a bundle is as long for each of its runs as for all."""
    chains: dict[str, float] = defaultdict(float)
    for one in stretches:
        chains[one.run] += one.stopped - one.started
    run = max(chains, key=lambda name: chains[name], default="")
    return chains.get(run, 0.0), run


def _load_balance(times: Sequence[WorkerTimes]) -> float:
    """Return the mean of what workers were busy, of the most, sessions weighted by the most."""
    mean = most = 0.0
    for session in {one.session for one in times}:
        own = sorted(
            (one for one in times if one.session == session), key=lambda one: one.spells[0].start
        )
        #: Until when each place is taken, and what its workers were busy.
        places: list[tuple[float, float]] = []
        for one in own:
            end, busy_here = one.spells[-1].end, one.parts["busy"]
            if places and places[0][0] <= one.spells[0].start:
                heapq.heapreplace(places, (end, places[0][1] + busy_here))
            else:
                heapq.heappush(places, (end, busy_here))
        busy = [seconds for _, seconds in places]
        mean, most = mean + math.fsum(busy) / len(busy), most + max(busy)
    return mean / most if most > 0 else math.nan


def _repeated(
    entries: Sequence[Entry], stretches: Sequence[TaskDone | TaskPaused], any_batch: Container[int]
) -> float:
    """Return the seconds of opening and compiling that one worker would not have repeated.

    It opens the data once, and compiles each program once; the longest of each counts as that. In
    some sessions a program takes batches of any size.
    """
    runs = {
        run: Run(run, plan.hyperparameters, plan.fold, ())
        for run, plan in facts.planned_runs(entries).items()
    }

    @functools.cache
    def needed(run: str, any_batch: bool) -> str:
        return program(runs[run], any_batch) if run in runs else run

    compiling: dict[str, dict[tuple[int, str, float], float]] = defaultdict(
        lambda: defaultdict(float)
    )
    first: dict[tuple[int, str], tuple[float, float]] = {}
    for one in stretches:
        # The runs of a bundle share the seconds of one program.
        at = one.session, one.worker, one.started
        compiling[needed(one.run, one.session in any_batch)][at] += one.phases.get("compile", 0.0)
        opened = one.started, one.phases.get("open", 0.0) * one.bundle
        first[at[:2]] = min(opened, first.get(at[:2], (math.inf, 0.0)))
    programs = [list(own.values()) for own in compiling.values()]
    opening = [seconds for _, seconds in first.values()]
    again = [sum(own) - max(own) for own in [*programs, opening] if own]
    return math.fsum(again)
