"""Who works on a study on this machine: the layout of its workers, and the workers themselves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.cluster import machine
from stormsweep.config.study import StudyFile
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
    from stormsweep.cluster.pool import Pool
    from stormsweep.data.prepared import PreparedData
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
    """

    def __init__(
        self, file: StudyFile, directory: Path, plan: Plan, earlier: Sequence[Record]
    ) -> None:
        self._file, self._directory, self._plan = file, directory, plan
        self._earlier = earlier
        self._gpus = machine.gpus() if file.engine.use == "jax" else []
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
        if self._file.engine.use == "jax":
            return on_devices(site, self._room.cores, len(self._gpus), self._earlier)
        return decided(site, self._room, self._earlier)

    def without_trial(self) -> Layout:
        """Return the layout of the next session; one thread a worker where it is open."""
        return self.layout() or candidates(self._room)[0]

    def prepare(self) -> None:
        """Begin to import what workers need, while the driver looks at the data."""
        from stormsweep.cluster.local import prepare_workers

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
            note = crowded(layout, self._room.cores)
            if note or layout.why:
                watcher.note(note or f"{layout}: {layout.why}")
            watcher.stage("starting workers", 0.0)
            return Hired(layout, open_.enter_context(self.pool(layout)))
        found = find_layout(
            self._plan,
            patches_per_epoch,
            self._room,
            self.pool,
            lambda layout, run, pool: Crew(self._in(layout), data, turned, run, pool),
            watcher.stage,
            open_,
        )
        watcher.note(f"{found.layout}: {found.layout.why}")
        return found

    @contextlib.contextmanager
    def pool(self, layout: Layout) -> Iterator[Pool]:
        """Start workers in a layout, each on its own cores or GPU; stop them in the end."""
        from stormsweep.cluster.local import LocalPool
        from stormsweep.cluster.topology import pins

        site = self._file.site
        share = MEMORY_SHARE * self._room.memory_gb / layout.workers
        paths = list(dict.fromkeys([str(Path.cwd()), *(path for path in sys.path if path)]))
        pool = LocalPool(
            layout.workers,
            layout.threads,
            site.memory_gb or share,
            (self._directory / "logs").resolve(),
            paths,
            pins(site.pin, layout.workers, layout.threads),
            self._gpus,
            self._imported,
        )
        try:
            yield pool
        finally:
            pool.close()

    def _in(self, layout: Layout) -> StudyFile:
        changes = {"workers": layout.workers, "threads_per_worker": layout.threads}
        site = self._file.site.model_copy(update=changes)
        return self._file.model_copy(update={"site": site})
