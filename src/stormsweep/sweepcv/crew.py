"""The workers of a search: processes on this machine, or on the nodes of a site."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep.cluster import machine
from stormsweep.config.sites import LOCAL
from stormsweep.errors import UserError
from stormsweep.study.admission import refuse_unfit
from stormsweep.study.directory import study_key
from stormsweep.study.layout import MEMORY_SHARE
from stormsweep.study.places import Place, place_of
from stormsweep.study.staff import job_script, node_order, own_paths, private_folder

if TYPE_CHECKING:
    from stormsweep.cluster.launchers import JobLauncher
    from stormsweep.cluster.pool import Pool

log = logging.getLogger(__name__)

#: What a folder may be called and a job may not, and how much of a folder's name a job's has.
_NO_JOBS_NAME, _LONGEST = re.compile(r"[^A-Za-z0-9_.+-]"), 100


@dataclass(frozen=True, slots=True)
class Crew:
    """Who is to work on a search.

    Attributes
    ----------
    workers : int
        How many work at a time, at most.
    place : Place or None
        Where; None: on this machine.
    folder : Path or None
        The search's directory.
    """

    workers: int
    place: Place | None
    folder: Path | None

    @property
    def here(self) -> bool:
        """Whether the process of the search may do the work itself."""
        return self.place is None

    @property
    def per_node(self) -> int:
        """Workers of each node of a site, no more than make up those that may work."""
        assert self.place is not None
        return math.ceil(self.workers / self.place.nodes[1])

    def at_most(self, tasks: int) -> Crew:
        """Return a crew of this machine in which nobody is without a task; of a site itself."""
        if self.place is not None:
            return self
        return dataclasses.replace(self, workers=max(1, min(self.workers, tasks)))

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """Start the workers; stop them in the end."""
        with contextlib.ExitStack() as open_:
            folder = self.folder or Path(
                open_.enter_context(tempfile.TemporaryDirectory(prefix="stormsweep-"))
            )
            open_.enter_context(_logging(folder / "logs"))
            if self.place is None:
                open_.enter_context(_script_not_run_again())
            pool = self._local(folder) if self.place is None else self._remote(self.place, folder)
            open_.callback(pool.close)
            yield pool

    def _local(self, folder: Path) -> Pool:
        from stormsweep.cluster.local import LocalPool

        threads = max(1, machine.cores() // self.workers)
        # Some candidates need more than others: a worker may take what all may take together.
        memory = MEMORY_SHARE * machine.memory_gb()
        return LocalPool(self.workers, threads, memory, folder / "logs", own_paths())

    def _remote(self, place: Place, folder: Path) -> Pool:
        from stormsweep.cluster.remote import RemotePool

        site = place.found.site
        order = dataclasses.replace(
            node_order(site, self.per_node, (folder / "logs").resolve()), gpus=place.gpus
        )
        launcher = _launcher(place, folder)
        gone = refuse_unfit(place, folder, job_script(launcher, folder))
        if gone:
            log.warning("jobs wait in the queue: %s", gone)
        return RemotePool(launcher, order, private_folder(folder), place.nodes, own_paths())


def crew(site: str, n_jobs: int | None, directory: Path | None) -> Crew:
    """Decide who works on a search.

    Parameters
    ----------
    site : str
        ``local``, or the name of a site in sites.toml.
    n_jobs : int or None
        Workers; of a site as many as it says where this is None or negative. On this machine as
        joblib understands it: None is one, unless a `joblib.parallel_config` says otherwise, and
        -1 all cores.
    directory : Path or None
        The search's.

    Raises
    ------
    UserError
        If the site is not known, or there is no directory that its nodes share with this process.
    ValueError
        If `n_jobs` is 0.
    """
    if n_jobs == 0:
        # As of scikit-learn's searches, but in one line of what is allowed.
        raise ValueError(
            "n_jobs: given 0; must be None, a number of workers from 1, or -1 for as many as there "
            "can be"
        )
    if site == LOCAL:
        from joblib import effective_n_jobs

        cores = machine.cores()
        # joblib counts from all cores of the machine; we may have fewer of them.
        wanted = max(1, cores + 1 + n_jobs) if n_jobs is not None and n_jobs < 0 else n_jobs
        return Crew(effective_n_jobs(wanted), None, directory)
    nodes = None
    # A site that nobody knows has no nodes to share anything with.
    here = directory or Path()
    place = place_of(site, here / "search", here, said_site="site")
    assert place is not None
    if directory is None:
        raise UserError(
            f"directory: none given; the nodes of site {site!r} need one that they share with this "
            "process"
        )
    if n_jobs is not None and n_jobs > 0:
        count = math.ceil(n_jobs / place.found.site.workers_per_node)
        nodes = (1, count)
        given = {**place.found.given, "nodes": "n_jobs, in nodes"}
        place = Place(place.found._replace(given=given), nodes)
    return Crew(min(n_jobs, place.workers) if nodes and n_jobs else place.workers, place, directory)


@contextlib.contextmanager
def _script_not_run_again() -> Iterator[None]:
    """Have worker processes leave the user's script alone when they start.

    Python would run it again in each, up to ``if __name__ == "__main__"``, which a script that used
    `GridSearchCV` need not have. Workers do not need it: what is of the script goes to them whole.
    """
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    before: dict[str, Any] = {name: vars(main)[name] for name in names if name in vars(main)}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(before)


@contextlib.contextmanager
def _logging(folder: Path) -> Iterator[None]:
    """Keep what Dask has to say in ``driver.log``."""
    from stormsweep.cluster.dask_pool import dask_logs

    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(logging.FileHandler(folder / "driver.log", encoding="utf-8")) as log:
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        with dask_logs(log):
            yield


def _launcher(place: Place, folder: Path) -> JobLauncher:
    from stormsweep.cluster.launchers import JobLauncher

    # For squeue alone: the key finds the jobs. PBS wants a letter first, and shows ten characters.
    shown = _NO_JOBS_NAME.sub("-", folder.resolve().name)[:_LONGEST]
    name = f"sweep-{shown}-stormsweep-workers"
    logs = (folder / "logs").resolve()
    return JobLauncher(place.found.site, name, f"{study_key(folder)}-workers", logs, Path.cwd())
