"""What a study may be foretold on: this machine, and nodes of sites."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stormsweep.cluster import machine as this_machine
from stormsweep.cluster.partitions import Partition, clock, most_nodes
from stormsweep.config.sites import LOCAL, Found, Site
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import UserError
from stormsweep.scaling import advice
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.study.admission import partition_here
from stormsweep.study.layout import WORKER_GB, Room
from stormsweep.wording import counted

if TYPE_CHECKING:
    from stormsweep.scaling.beside import Around
    from stormsweep.study.foretelling import Circumstances
    from stormsweep.study.study import Study

#: Nodes to try at most, unless asked otherwise.
MOST_NODES = 64
#: Start-ups vary about as much as this; few were measured.
_VARIED = (0.85, 1.0, 1.15)


class Machines:
    """Machines in layouts that a study could have there, with what is known of both.

    Parameters
    ----------
    study : Study
        The study.
    runs : int
        How many it has to train.
    threads : set of int
        Numbers of threads a worker that were measured.
    around : Around
        What was measured of queues and start-ups.
    said : Circumstances
        What was not, and was said.
    """

    def __init__(
        self,
        study: Study,
        runs: int,
        threads: AbstractSet[int],
        around: Around,
        said: Circumstances,
    ) -> None:
        self._study, self._runs, self._threads = study, runs, threads
        self._around, self._said = around, said

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
                    f"--workers {count}" if workers else counted(count, "worker"),
                    f"--threads {own}" if threads else counted(own, "thread"),
                )
            )
            raise UserError(
                f"{given}: this machine has {counted(cores, 'core')}; name a site for more (--site)"
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
        return len(this_machine.gpus_of_jax()) if self._study.file.engine.use == "jax" else 0

    def _most_workers(self, threads: int) -> int:
        """Return how many workers of so many threads this machine has room for."""
        cores, taken = this_machine.cores(), self._study.file.site.memory_gb or WORKER_GB
        # One more than there are runs for says that nothing is left to share.
        runs = 2 * self._runs
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
        asked = self._study.file.site.walltime
        limits = [machine.walltime, longest, *([walltime_seconds(asked)] if asked else [])]
        machine = replace(machine, walltime=min(limits))
        return replace(machine, notes=tuple(self._notes(found, machine)))

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
                for own in sorted({one for one in {*self._threads, usual} if one <= cores}):
                    sizes = advice.counts(self._most_workers(own))
                    made.append([self.local(count, own) for count in sizes])
                continue
            partition = partition_here(found)
            limit = None if partition is None else partition.longest
            longest = math.inf if limit is None else float(limit)
            options: list[int | None] = [None]
            if found.site.cores_per_node and not found.site.gres:
                usual, cores = found.site.threads_per_worker, found.site.cores_per_node
                options += sorted(one for one in self._threads if one <= cores and one != usual)
            for threads in options:
                machine = self.on(found, nodes=1, threads=threads, longest=longest)
                # One more than there are runs for says that nothing is left to share.
                useful = math.ceil(self._runs / machine.workers_per_node)
                most = asked or min(MOST_NODES, max(2, 2 * useful))
                there = 0 if partition is None else _nodes_there(found.site, machine, partition)
                notes = [*machine.notes]
                if partition is not None:
                    free = self.on(found, nodes=1, threads=threads).walltime
                    notes += _lets(partition, there if there < most else 0, longest < free)
                if not there and asked is None:
                    notes.append(
                        f"how many nodes {found.name} has is not known here (--most-nodes): up to "
                        f"{MOST_NODES} are tried"
                    )
                machine = replace(machine, notes=tuple(notes))
                made.append(advice.sized(machine, min(most, there or most)))
        return made

    def _notes(self, found: Found, machine: Machine) -> Iterator[str]:
        """Say what nobody knows of a machine, and that the study lets jobs take less time."""
        asked, site = self._study.file.site.walltime, found.site.walltime
        if math.isnan(machine.cores_per_node):
            yield (
                f"nodes of {machine.name} are exclusive, and core-hours are not known without its "
                "cores_per_node in sites.toml"
            )
        if math.isinf(machine.walltime):
            yield (
                f"{found.name} has no walltime in sites.toml: what its partition lets jobs take, "
                "by default and at most, was not counted"
            )
        elif asked is None or walltime_seconds(asked) > machine.walltime:
            return
        elif site is None or walltime_seconds(asked) < walltime_seconds(site):
            allowed = "" if site is None else f", though {found.name} allows {site}"
            says = "as the study file says (site.walltime)"
            yield f"jobs are to take {asked} at most, {says}{allowed}"


def _lets(partition: Partition, nodes: int, time: bool) -> list[str]:
    """Say what a partition limits: whoever foretells a study of elsewhere sees one of its name."""
    parts = [f"have {nodes} node{'' if nodes == 1 else 's'}"] if nodes else []
    if time and partition.longest is not None:
        parts.append(f"take {clock(partition.longest)}")
    here = f"partition {partition.name!r} lets a job {' and '.join(parts)} at most here"
    return [here] if parts else []


def _nodes_there(site: Site, machine: Machine, partition: Partition) -> int:
    """Return how many of a partition's nodes a job in a layout may ask for."""
    layout = {
        "workers_per_node": machine.workers_per_node,
        "threads_per_worker": machine.threads_per_worker,
    }
    return most_nodes(site.model_copy(update=layout), partition)
