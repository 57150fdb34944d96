"""Who works on a study: the layout of its workers, and the workers themselves."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from stormsweep.cluster import machine
from stormsweep.cluster.pool import END_SECONDS
from stormsweep.config.study import StudyFile, cases_of
from stormsweep.config.walltimes import ending, walltime_seconds
from stormsweep.records import Record
from stormsweep.search.plan import Plan
from stormsweep.study.layout import (
    MEMORY_SHARE,
    WORKER_GB,
    Layout,
    Room,
    candidates,
    crowded,
    decided,
    on_devices,
)

if TYPE_CHECKING:
    from stormsweep.cluster.keeper import Launcher
    from stormsweep.cluster.launchers import JobLauncher
    from stormsweep.cluster.node_order import NodeOrder
    from stormsweep.cluster.pool import Pool
    from stormsweep.config.sites import Site
    from stormsweep.data.prepared import PreparedData
    from stormsweep.study.places import Place
    from stormsweep.study.trial import Hired
    from stormsweep.study.watching import Watcher


#: What workers that train on TensorFlow are forked with.
_IMPORTED = (
    "stormsweep.training.imported",
    "stormsweep.training.program",
    "stormsweep.training.building",
    "stormsweep.training.structure",
    "stormsweep.training.packing",
    "stormsweep.study.setup",
    "stormsweep.study.worker",
)


class Staff:
    """The workers of a study.

    Parameters
    ----------
    file : StudyFile
        The study.
    directory : Path
        Its directory.
    plan : Plan
        Its runs.
    earlier : sequence of record
        Its journal so far.
    place : Place, optional
        A site; none: this machine.
    """

    def __init__(
        self,
        file: StudyFile,
        directory: Path,
        plan: Plan,
        earlier: Sequence[Record],
        place: Place | None = None,
    ) -> None:
        self._file, self._directory, self._plan = file, directory, plan
        self._earlier, self._place = earlier, place
        self._gpus = machine.gpus_of_jax() if file.engine.use == "jax" else []
        # A GPU's libraries do not bear being forked once they have begun.
        self._imported = _IMPORTED if file.engine.use == "tensorflow" else ()
        self._room = Room(
            machine.host(),
            machine.cores(),
            machine.memory_gb(),
            file.site.memory_gb or WORKER_GB,
            len(plan.runs),
        )

    def layout(self) -> Layout | None:
        """Return the layout of the next session; None where a trial must find it."""
        site = self._file.site
        if self._place is not None:
            return Layout(self._place.workers, self._place.found.site.threads_per_worker)
        if self._file.engine.use == "jax":
            return on_devices(site, self._room.cores, len(self._gpus), self._earlier)
        return decided(site, self._room, self._earlier)

    def allotment(self, layout: Layout, began: float, prepared: float) -> dict[str, Any]:
        """Return what is asked of the site; see `SessionBegun.allotment`.

        Parameters
        ----------
        layout : Layout
            Of the workers.
        began : float
            When the session began.
        prepared : float
            Seconds that the data took before.
        """
        place = self._place
        if place is None:
            told: dict[str, Any] = {
                "scheduler": "local",
                "nodes": 1,
                "cores_per_node": layout.workers * layout.threads,
                "gpus_per_node": min(len(self._gpus), layout.workers),
                "walltime_seconds": None,
                "workers_per_node": layout.workers,
            }
        else:
            site, (least, most) = place.found.site, place.nodes
            told = {
                "scheduler": site.scheduler,
                "nodes": most if least == most else 0,
                "cores_per_node": site.charged_cores,
                "gpus_per_node": site.gpus,
                "walltime_seconds": site.walltime and walltime_seconds(site.walltime),
                "workers_per_node": min(layout.workers, site.workers_per_node),
                "price_per_core_hour": site.price_per_core_hour,
                "price_per_gpu_hour": site.price_per_gpu_hour,
            }
            if place.inside:
                # The job's shell became this process, so that the job is as old as this is.
                age = began - psutil.Process().create_time()
                told |= {"inside": True, "held_seconds": round(max(0.0, age), 3)}
                told["prepared_seconds"] = round(prepared, 3)
                told["queued_seconds"] = place.queued_seconds
        told["threads_per_worker"] = layout.threads
        return {name: value for name, value in told.items() if value is not None}

    def without_trial(self) -> Layout:
        """Return the layout of the next session; one thread a worker where it is open."""
        return self.layout() or candidates(self._room)[0]

    def prepare(self) -> None:
        """Begin to import what workers need, while the driver looks at the data."""
        from stormsweep.cluster.forked import prepare_workers

        if self._place is None:
            prepare_workers(self._imported)

    def hire(
        self,
        watcher: Watcher,
        data: PreparedData,
        turned: Path | None,
        patches_per_epoch: Sequence[int],
        open_: contextlib.ExitStack,
    ) -> Hired:
        """Start workers in the layout of the study; find it first where that is left open.

        Parameters
        ----------
        watcher : Watcher
            Shown what goes on.
        data : PreparedData
            The prepared arrays.
        turned : Path or None
            Folder of the patches turned ahead of training.
        patches_per_epoch : sequence of int
            Patches of the balanced training fold, for each fold.
        open_ : ExitStack
            Closes the workers.
        """
        from stormsweep.study.trial import Crew, Hired, find_layout

        layout = self.layout()
        if layout is not None:
            if self._place is None:
                note = crowded(layout, self._room.cores)
            else:
                note = self._place.unused(self._file.engine.use)
            if note or layout.why:
                watcher.note(note or f"{layout}: {layout.why}")
            watcher.stage("starting workers", 0.0)
            folders = [data.path, *((turned,) if turned else ())]
            return Hired(layout, open_.enter_context(self.pool(layout, folders)))
        found = find_layout(
            self._plan,
            patches_per_epoch,
            self._room,
            self.pool,
            lambda layout, run, pool: Crew(self.in_layout(layout), data, turned, run, pool),
            watcher.stage,
            open_,
            cases_of(self._file.data.source),
        )
        watcher.note(f"{found.layout}: {found.layout.why}")
        return found

    @contextlib.contextmanager
    def pool(self, layout: Layout, folders: Sequence[Path] = ()) -> Iterator[Pool]:
        """Start workers in a layout, each on its own cores or GPU; stop them in the end.

        Parameters
        ----------
        layout : Layout
            Workers and threads.
        folders : sequence of Path
            What workers read again and again: a site may have it copied to its nodes.
        """
        pool = self._local(layout) if self._place is None else self._remote(layout, folders)
        try:
            yield pool
        finally:
            # A job must not be over before its driver has seen to the next one.
            left = math.inf if self._place is None else self._place.ends - time.monotonic()
            pool.close(min(END_SECONDS, ending(left)))

    def _local(self, layout: Layout) -> Pool:
        from stormsweep.cluster.local import LocalPool
        from stormsweep.cluster.topology import pins

        site = self._file.site
        share = MEMORY_SHARE * self._room.memory_gb / layout.workers
        return LocalPool(
            layout.workers,
            layout.threads,
            site.memory_gb or share,
            self._logs,
            own_paths(),
            pins(site.pin, layout.workers, layout.threads),
            self._gpus,
            self._imported,
        )

    def _remote(self, layout: Layout, folders: Sequence[Path]) -> Pool:
        from stormsweep.cluster.remote import RemotePool

        assert self._place is not None
        site, chosen = self._place.found.site, self._file.site
        # A look at the test part needs one worker, whatever a node has.
        workers = min(layout.workers, site.workers_per_node)
        nodes = self._place.nodes if layout.workers == self._place.workers else (1, 1)
        order = replace(
            node_order(site, workers, self._logs),
            threads=layout.threads,
            imported=list(self._imported),
            pin=chosen.pin,
            gpus=self._file.engine.use == "jax" and self._place.gpus,
            job_gb=_memory_of_the_job() if self._place.inside else None,
            copies=[str(folder.resolve()) for folder in folders] if site.copy_data else [],
        )
        if chosen.memory_gb is not None:
            order = replace(order, memory_gb=chosen.memory_gb)
        private = private_folder(self._directory)
        return RemotePool(self._launcher(), order, private, nodes, own_paths())

    def script(self) -> str:
        """Return the job script of a node, for a site whose nodes are jobs of their own."""
        from stormsweep.cluster.launchers import JobLauncher

        launcher = self._launcher()
        assert isinstance(launcher, JobLauncher)
        return job_script(launcher, self._directory)

    def _launcher(self) -> Launcher:
        from stormsweep.cluster.launchers import JobLauncher, StepLauncher, own_job
        from stormsweep.study.directory import study_key

        assert self._place is not None
        site = self._place.found.site
        if self._place.inside:
            return StepLauncher(*own_job(), site.cores, self._logs)
        # Of the name squeue shows eight characters, and qstat ten; to PBS it begins with a letter.
        study = self._file.study.name
        number = site.scheduler == "pbs" and study[0].isdigit()
        name = f"{'study-' * number}{study}-stormsweep-workers"
        return JobLauncher(
            site, name, f"{study_key(self._directory)}-workers", self._logs, Path.cwd()
        )

    @property
    def _logs(self) -> Path:
        return (self._directory / "logs").resolve()

    def in_layout(self, layout: Layout) -> StudyFile:
        """Return the study file with a layout in numbers."""
        changes = {"workers": layout.workers, "threads_per_worker": layout.threads}
        site = self._file.site.model_copy(update=changes)
        return self._file.model_copy(update={"site": site})


def node_order(site: Site, workers: int, logs: Path) -> NodeOrder:
    """Return what a node of a site is told, as far as the site itself says it.

    Parameters
    ----------
    site : Site
        The site.
    workers : int
        Workers of a node.
    logs : Path
        Folder of the logs.
    """
    from stormsweep.cluster.node_order import NodeOrder

    memory = site.memory_gb
    return NodeOrder(
        scheduler="",
        workers=workers,
        threads=site.threads_per_worker,
        memory_gb=(
            MEMORY_SHARE * memory / site.workers_per_node if isinstance(memory, float) else None
        ),
        logs=str(logs),
        imported=[],
        walltime_s=None if site.walltime is None else walltime_seconds(site.walltime),
        scratch=site.scratch,
        interface=site.interface,
    )


def _memory_of_the_job() -> float | None:
    """Return the GiB of each node that this process's job has, which Slurm does not tell steps.

    They would, where its options were handed down to them (see `slurm.environment`).
    """
    given = machine.slurm_memory(os.environ)
    return None if given is None else given / 2**30


def private_folder(directory: Path) -> Path:
    """Return the folder of the nodes' orders and certificates while workers are there."""
    return (directory / ".private").resolve()


def job_script(launcher: JobLauncher, directory: Path) -> str:
    """Return the script of a job that is a node, as it would be submitted."""
    from stormsweep.cluster.remote import node_command

    return launcher.script(node_command(private_folder(directory) / "..." / "node.json", "1"))


def own_paths() -> list[str]:
    """Return the folders in which the user's own modules are looked for."""
    return list(dict.fromkeys([str(Path.cwd()), *(path for path in sys.path if path)]))
