"""A study foretold from its own journal: how long it takes in a layout, and what to ask for."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stormsweep.cluster import machine as this_machine
from stormsweep.cluster.partitions import Partition, most_nodes
from stormsweep.config.sites import LOCAL, Found, Site
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import StudyFileError, UserError, typed
from stormsweep.records import Entry, SessionBegun, TaskDone
from stormsweep.results import facts
from stormsweep.results.journal import of_kind
from stormsweep.results.progress import Progress
from stormsweep.scaling import advice, runtime
from stormsweep.scaling.beside import around, durations, parameters_of
from stormsweep.scaling.foretold import Foretold, foretell
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.scaling.simulated import Simulated
from stormsweep.scaling.simulated_journal import journal
from stormsweep.scaling.simulation import simulate
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import structure
from stormsweep.study.environment import sessions_of
from stormsweep.study.layout import WORKER_GB, Room
from stormsweep.study.places import find, partition_here
from stormsweep.study.remaining import blind_search

if TYPE_CHECKING:
    from stormsweep.study.study import Study
    from stormsweep.work import Run

#: Nodes to try at most, unless asked otherwise.
MOST_NODES = 64
#: How sure a fit is at best, since no machine is quite the same twice; and where nothing could be
#: left out of it.
_LEAST_DOUBT, _DOUBT = 0.02, 0.1
#: A standard deviation over the median of normal errors' sizes.
_SIGMA = 1.4826
#: What comes to that on another site.
_ELSEWHERE = 0.05
#: Start-ups vary about as much as this; few were measured.
_VARIED = (0.85, 1.0, 1.15)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is not known from a journal, and can be said.

    Attributes
    ----------
    failures_per_hour : float
        How often a worker is lost in an hour, through no fault of its run.
    wait : Wait or None
        In the queue; None: as measured on the site, or none.
    speed : float
        How fast the site's cores are, over those that the journal is of.
    """

    failures_per_hour: float = 0.0
    wait: Wait | None = None
    speed: float = 1.0


class Outlook:
    """What a study's journal says of what the study takes elsewhere.

    Parameters
    ----------
    study : Study
        The study.
    whole : bool
        Foretell all of the study, also where some of it is on record. One that is finished is
        foretold whole in any case: as if it were run anew.
    circumstances : Circumstances
        What the journal does not say.

    Raises
    ------
    UserError
        If the journal has no finished run.
    """

    def __init__(
        self, study: Study, whole: bool = False, circumstances: Circumstances | None = None
    ) -> None:
        self._study, self._said = study, circumstances or Circumstances()
        self._entries = _entries(study)
        found = study.remaining()
        self.rest = found.left(retry_failed=False) and not whole
        self.plan = found.ahead() if self.rest else study.plan()
        #: Whether a strategy says what is trained, from the first trial on.
        self._asks = self.plan.expected and not self.rest
        self._before = found.progress if self.rest else Progress()
        self._patches = facts.epoch_patches(self._entries, self.plan.folds)
        table = runtime.observations(self._entries, sessions_of(study.directory))
        self.runtime = runtime.fit(table)
        fitted = set(table.loc[table["kind"] == self.runtime.kind, "session"])
        begun = of_kind(self._entries, SessionBegun)
        self._sites = {one.site for one in begun if one.session in fitted}
        self._common = uncertainty(table)
        self._around = around(self._entries)
        self._parameters = parameters_of(self._entries)
        #: Sites of which nobody said how many nodes there are.
        self._uncounted: set[str] = set()
        #: Sites that machines were made of, with the longest time of a job there.
        self._longest: dict[str, tuple[Found, float]] = {}

    def foretell(self, machine: Machine, repeats: int | None = None) -> Foretold:
        """Simulate the study on a machine, again and again."""
        known = self._known(machine)
        seed = self._study.file.study.seed
        return foretell(self.plan, self._patches, known, machine, seed, repeats, **self._state())

    def simulate(self, machine: Machine) -> Simulated:
        """Simulate the study once, with all that every worker does."""
        seed = (self._study.file.study.seed, 0)
        known = self._known(machine)
        return simulate(self.plan, self._patches, known, machine, seed, trace=True, **self._state())

    def journal(self, machine: Machine) -> list[Entry]:
        """Return the journal that the study would have, simulated once; it has no scores."""
        about, known = facts.study(self._entries), self._known(machine)
        return journal(about, self.plan, self._patches, known, machine, self.simulate(machine))

    def _known(self, machine: Machine) -> Any:
        return durations(
            self.plan,
            self._patches,
            self.runtime,
            self._around,
            threads=machine.threads_per_worker,
            workers=machine.workers_per_node,
            parameters=self._parameters,
            bundle=self._bundle(machine),
            common=self._doubt(machine),
            speed=self._said.speed,
        )

    def _bundle(self, machine: Machine) -> int:
        """Return how many runs are trained together, about: those alike, shared among workers."""
        bundling = Bundling(self._study.file.engine)
        if bundling.structure is None:
            return 1
        alike = Counter(bundling.structure(run) for run in self.plan.runs)
        share = math.ceil(len(self.plan.runs) / machine.workers)
        return max(1, min(bundling.most, share, round(statistics.median(alike.values()))))

    def _doubt(self, machine: Machine) -> float:
        """Return how sure the fit is on a machine."""
        layout = self.runtime.doubt(
            workers=machine.workers_per_node, threads=machine.threads_per_worker
        )
        site = 0.0 if machine.name in self._sites else _ELSEWHERE
        return math.hypot(self._common, layout, site)

    def _state(self) -> dict[str, Any]:
        engine = self._study.file.engine
        return {
            "reached": self._before.reached,
            "paused": self._before.paused,
            "closed": list(self._before.failed),
            "bundling": lambda: Bundling(engine),
            "search": (lambda: blind_search(self._study.file)) if self._asks else None,
        }

    @property
    def threads(self) -> set[int]:
        """Numbers of threads a worker that the journal has tasks of."""
        by_session = {
            one.session: one.threads_per_worker for one in of_kind(self._entries, SessionBegun)
        }
        done = of_kind(self._entries, TaskDone)
        return {task.threads or by_session.get(task.session, 1) for task in done}

    def local(self, workers: int | None, threads: int | None) -> Machine:
        """Return this machine in a layout; what is not given is as in the study file.

        Raises
        ------
        UserError
            If it has fewer cores, or fewer of the GPUs that the study trains on.
        """
        usual = self._study.without_trial().file.site.layout
        count, own = workers or usual[0], threads or usual[1]
        cores = this_machine.cores()
        if count * own > max(cores, usual[0] * usual[1] if not (workers or threads) else 0):
            given = " x ".join(
                word
                for word in (
                    f"--workers {count}" if workers else f"{count} workers",
                    f"--threads {own}" if threads else f"{own} thread{'' if own == 1 else 's'}",
                )
            )
            raise UserError(
                f"{given}: this machine has {cores} core{'' if cores == 1 else 's'}; "
                "name a site for more (--site)"
            )
        gpus = self._gpus
        if workers and gpus and workers > gpus:
            raise UserError(
                f"--workers: given {workers}; each has a GPU to itself, and this machine has {gpus}"
            )
        return Machine.local(count, own, gpus_per_node=min(gpus, count), **self._shared(LOCAL))

    @cached_property
    def _gpus(self) -> int:
        """GPUs of this machine, if the study trains on GPUs."""
        return len(this_machine.gpus()) if self._study.file.engine.use == "jax" else 0

    def _most_workers(self, threads: int) -> int:
        """Return how many workers of so many threads this machine has room for."""
        cores, taken = this_machine.cores(), self._study.file.site.memory_gb or WORKER_GB
        # One more than there are runs for says that nothing is left to share.
        runs = 2 * len(self.plan.runs)
        room = Room(this_machine.host(), cores, this_machine.memory_gb(), taken, runs)
        return min(room.workers(threads), self._gpus or cores)

    def on(
        self,
        found: Found,
        nodes: int | None = None,
        workers: int | None = None,
        threads: int | None = None,
        longest: float = math.inf,
    ) -> Machine:
        """Return nodes of a site; what is not given is as in sites.toml.

        A job may take what the site lets it, or less where the study file says so.

        Parameters
        ----------
        found : Found
            The site.
        nodes, workers, threads : int, optional
            The layout.
        longest : float
            Seconds that the partition lets jobs take, as far as that is known.

        Raises
        ------
        UserError
            If a node does not have the cores, or the workers do not fill nodes.
        """
        site = found.site
        per_node, own = site.workers_per_node, threads or site.threads_per_worker
        cores = site.cores_per_node or site.cores
        if own > cores:
            raise UserError(f"--threads: given {own}; a node of {found.name} has {cores} cores")
        if threads is not None and threads != site.threads_per_worker:
            per_node = max(1, cores // own)
            if gpus := site.gpus:
                # A GPU is shared by no more workers than the site says.
                per_node = min(per_node, max(gpus, site.workers_per_node))
        if workers is not None and nodes is None:
            if workers <= per_node:
                nodes, per_node = 1, workers
            elif workers % per_node:
                near = per_node * max(1, round(workers / per_node))
                raise UserError(
                    f"--workers: given {workers}; nodes of {found.name} have {per_node} workers "
                    f"each, so that it must be a multiple; the nearest is {near}"
                )
            else:
                nodes = workers // per_node
        elif workers is not None:
            raise UserError(f"--workers: is for one node of {found.name}, or give --nodes alone")
        layout = site.model_copy(update={"workers_per_node": per_node, "threads_per_worker": own})
        shared = self._shared(found.name) | {"wait": self._wait_on(found.name)}
        machine = Machine.from_site(found.name, layout, nodes=nodes, **shared)
        own_limit = self._study.file.site.walltime
        limits = [machine.walltime, longest, *([walltime_seconds(own_limit)] if own_limit else [])]
        self._longest[found.name] = found, min(limits)
        return replace(machine, walltime=min(limits))

    def _wait_on(self, name: str) -> Wait:
        if self._said.wait is not None:
            return self._said.wait
        return self._around.waits.get(name, Wait())

    def _shared(self, name: str) -> dict[str, Any]:
        # Where nobody started on the site, what others took is better than nothing.
        starts = self._around.starts.get(name, self._around.start_up)
        return {
            "start_up": tuple(factor * seconds for seconds in starts for factor in _VARIED),
            "failures_per_worker_hour": self._said.failures_per_hour,
        }

    def families(self, founds: Sequence[Found], asked: int | None) -> list[list[Machine]]:
        """Return candidates for advice: for each site and threads a worker, small to large."""
        made: list[list[Machine]] = []
        for found in founds:
            if found.name == LOCAL:
                cores = this_machine.cores()
                usual = self._study.without_trial().file.site.layout[1]
                for own in sorted({one for one in {*self.threads, usual} if one <= cores}):
                    sizes = advice.counts(self._most_workers(own))
                    made.append([self.local(count, own) for count in sizes])
                continue
            partition = partition_here(found.site)
            limit = None if partition is None else partition.longest
            longest = math.inf if limit is None else float(limit)
            options: list[int | None] = [None]
            if found.site.cores_per_node and not found.site.gres:
                usual, cores = found.site.threads_per_worker, found.site.cores_per_node
                options += sorted(one for one in self.threads if one <= cores and one != usual)
            for threads in options:
                machine = self.on(found, nodes=1, threads=threads, longest=longest)
                # One more than there are runs for says that nothing is left to share.
                useful = math.ceil(len(self.plan.runs) / machine.workers_per_node)
                most = asked or min(MOST_NODES, max(2, 2 * useful))
                there = 0 if partition is None else nodes_there(found.site, machine, partition)
                if not there and asked is None:
                    self._uncounted.add(found.name)
                made.append(advice.sized(machine, min(most, there or most)))
        return made

    def beyond(self, machine: Machine) -> list[str]:
        """Return in what a machine is outside what was measured, one line each."""
        sizes = [run.hyperparameters["batch_size"] for run in self.plan.runs]
        notes = self.runtime.beyond(
            batch_size=sizes,
            parameters=[
                self._parameters[kind]
                for kind in {structure(run) for run in self.plan.runs}
                if kind in self._parameters
            ],
            threads=machine.threads_per_worker,
            workers=machine.workers_per_node,
        )
        trained = {_model_of(r) for r in self.plan.runs if structure(r) in self._parameters}
        if new := {_model_of(run) for run in self.plan.runs} - trained:
            notes.append(
                f"{len(new)} of the space's models {'was' if len(new) == 1 else 'were'} never "
                "trained: as many parameters as the others have are taken"
            )
        if machine.name not in self._sites and self._said.speed == 1.0:
            notes.append(
                f"the timings are of {' and '.join(sorted(self._sites))}: whether cores of "
                f"{machine.name} are as fast is not known (--speed)"
            )
        if machine.name != LOCAL and machine.wait.median <= 0:
            notes.append("waiting in the queue is not counted (--queue-wait)")
        if math.isnan(machine.cores_per_node):
            notes.append(
                f"nodes of {machine.name} are exclusive, and core-hours are not known without its "
                "cores_per_node in sites.toml"
            )
        if machine.name in self._uncounted:
            notes.append(
                f"how many nodes {machine.name} has is not known here (--most-nodes): up to "
                f"{MOST_NODES} are tried"
            )
        if machine.name in self._longest:
            notes += self._time_of_jobs(*self._longest[machine.name])
        return notes

    def _time_of_jobs(self, found: Found, longest: float) -> Iterator[str]:
        """Say what is not as the site has it, or not known, of how long jobs may take."""
        own, site = self._study.file.site.walltime, found.site.walltime
        if math.isinf(longest):
            yield (
                f"{found.name} has no walltime in sites.toml: what its partition lets jobs take, "
                "by default and at most, was not counted"
            )
        elif own is not None and (site is None or walltime_seconds(own) < walltime_seconds(site)):
            allowed = "" if site is None else f", though {found.name} allows {site}"
            yield f"jobs are to take {own} at most, as the study file says (site.walltime){allowed}"


def nodes_there(site: Site, machine: Machine, partition: Partition) -> int:
    """Return how many of a partition's nodes a job in a layout may ask for."""
    layout = {
        "workers_per_node": machine.workers_per_node,
        "threads_per_worker": machine.threads_per_worker,
    }
    return most_nodes(site.model_copy(update=layout), partition)


def _model_of(run: Run) -> str:
    """Return what tells a run's model from others."""
    beside = ("learning_rate", "batch_size")
    return repr(sorted(item for item in run.hyperparameters.items() if item[0] not in beside))


def _entries(study: Study) -> list[Entry]:
    """Return the study's journal.

    Raises
    ------
    UserError
        If nothing is on record that one could reckon with.
    JournalError
        If the journal is damaged.
    """
    # Only a journal that is not there yet asks for a pilot: one that is damaged says so.
    entries = study.entries() if study.journal_path.exists() else []
    if not of_kind(entries, TaskDone):
        raise UserError(
            f"{study.directory}: the journal has no finished run to reckon with; run a pilot "
            f"first: {typed('advise', study.path, '--pilot', 5)}"
        )
    return entries


def uncertainty(table: Any) -> float:
    """Return how sure a fit is, as a standard deviation: from errors on runs it has not seen."""
    try:
        return max(_LEAST_DOUBT, _SIGMA * runtime.check(table).median)
    except UserError:
        # Too few runs to leave any out.
        return _DOUBT


def choose_site(study: Study, name: str | None) -> Found:
    """Return a site by name; none: the study's own.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    asked = "site.use" if name is None else "--site"
    return find(name or study.file.site.use, study.path, study.directory, asked)


def in_layout(
    study: Study,
    outlook: Outlook,
    site: str | None,
    workers: int | None,
    nodes: int | None,
    threads: int | None,
) -> Machine:
    """Return the machine that options of `simulate` name."""
    found = choose_site(study, site)
    if found.name == LOCAL:
        if nodes is not None:
            raise UserError("--nodes: is for sites of a cluster; on this machine use --workers")
        return outlook.local(workers, threads)
    if nodes is None and workers is None:
        nodes = study.file.site.nodes
    return outlook.on(found, nodes, workers, threads)


def advise(
    study: Study,
    outlook: Outlook,
    sites: Sequence[str],
    deadline: float | None = None,
    budget: advice.Budget | None = None,
    repeats: int | None = None,
    most_nodes: int | None = None,
) -> advice.Advice:
    """Compare layouts on sites; see `stormsweep.scaling.advice.advise`."""
    founds = [choose_site(study, name) for name in dict.fromkeys(sites)] or [
        choose_site(study, None)
    ]
    if budget is not None and budget.unit == advice.MONEY:
        for found in founds:
            if found.name == LOCAL:
                raise UserError(
                    "--budget: this machine has no prices; give the budget in hours, such as "
                    "3core-h"
                )
            machine = Machine.from_site(found.name, found.site)
            # Where it is the cores that are not known, that is said instead.
            if not machine.priced and not math.isnan(machine.cores_per_node):
                raise StudyFileError(
                    f"{found.key('price_per_core_hour')}: is not set, so that a budget in money "
                    "says nothing; set it, or give the budget in core-h"
                )
    return advice.advise(
        outlook.families(founds, most_nodes),
        lambda machine: outlook.foretell(machine, repeats),
        deadline=deadline,
        budget=budget,
    )
