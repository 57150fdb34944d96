"""A chain of jobs, each of which carries a study on: what one link is told, and decides.

Pure values and functions; `stormsweep.study.drive` acts on them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from stormsweep.cluster.jobscript import Order, driver_logs
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import Site
from stormsweep.config.walltimes import margin, walltime_seconds
from stormsweep.records import Entry, TaskDone, TaskPaused

#: Jobs of a chain, unless the user says another number.
MAX_JOBS = 100
#: Slurm's signal may come a minute early: it is not asked for where that is much of the walltime.
_SIGNAL_FROM_S = 600


@dataclass(frozen=True, slots=True)
class Link:
    """One job of a chain: what its command says.

    Attributes
    ----------
    directory : Path
        The study's directory, a whole path.
    site : str
        The site's name.
    sites_file : Path
        The sites.toml that names it: it need not lie where the job would look.
    number, max_jobs : int
        Which job of the chain it is, from 1, and how many there may be.
    nodes : int or None
        Nodes of each job; None: those of the site.
    walltime : str or None
        Of each job; None: that of the site.
    retry_failed : bool
        Whether runs that failed earlier are tried again.
    after : str or None
        Number of the job before it.
    done : int or None
        Tasks on record when the job before it began.
    idle : int
        Jobs in a row, up to the one before the last, that recorded nothing.
    """

    directory: Path
    site: str
    sites_file: Path
    number: int = 1
    max_jobs: int = MAX_JOBS
    nodes: int | None = None
    walltime: str | None = None
    retry_failed: bool = False
    after: str | None = None
    done: int | None = None
    idle: int = 0

    def command(self) -> list[str]:
        """Return the command that the job runs."""
        given: list[tuple[str, object]] = [
            ("--site", self.site),
            ("--sites", self.sites_file),
            ("--job", self.number),
            ("--max-jobs", self.max_jobs),
            ("--nodes", self.nodes),
            ("--walltime", self.walltime),
            ("--after", self.after),
            ("--done", self.done),
            ("--idle", self.idle or None),
        ]
        words = [word for name, value in given if value is not None for word in (name, str(value))]
        if self.retry_failed:
            words.append("--retry-failed")
        return [sys.executable, "-m", "stormsweep", "drive", str(self.directory), *words]

    def order(self, study: str, site: Site) -> Order:
        """Return what sbatch is asked for.

        Parameters
        ----------
        study : str
            The study's name.
        site : Site
            Where the job is to run.
        """
        output, error = driver_logs(self.directory / "logs", self.site)
        # What modules and set-up lines do is done once in each job, not again in all that follow.
        told = bool(site.modules or site.setup)
        return Order(
            # squeue shows eight characters.
            f"{study}-stormsweep",
            [*self.command(), *(["--environment"] if told else [])],
            output,
            error,
            environment=told,
            nodes=self.nodes,
            after=self.after,
            warning_s=warning(site),
            # One node of several that fails costs what it was at, not the job.
            keep=(self.nodes or site.nodes) > 1,
        )

    def idle_now(self, done: int) -> int:
        """Return how many jobs in a row, the last one included, recorded nothing.

        Parameters
        ----------
        done : int
            Tasks on record now.
        """
        return self.idle + 1 if self.done is not None and done <= self.done else 0

    def successor(self, job: str, done: int) -> Link:
        """Return the next link.

        Parameters
        ----------
        job : str
            Number of this link's job.
        done : int
            Tasks on record when it began.
        """
        return replace(self, number=self.number + 1, after=job, done=done, idle=self.idle_now(done))

    @property
    def last(self) -> bool:
        """Whether no job may follow."""
        return self.number >= self.max_jobs


def tasks_done(entries: Iterable[Entry]) -> int:
    """Count what jobs got done: tasks, and those that paused some epochs on."""
    return sum(
        isinstance(record := entry.record, TaskDone | TaskPaused)
        and record.to_epoch > record.from_epoch
        for entry in entries
    )


def was_cancelled(predecessor: Job | None) -> bool:
    """Tell whether a job was ended by somebody, and not by its walltime, a node or an error."""
    return predecessor is not None and predecessor.state == "CANCELLED"


def warning(site: Site) -> int | None:
    """Return how long before the walltime Slurm is to send its signal; None: not at all.

    A driver knows itself when it must leave. The signal is for walltimes that somebody shortens
    while the job runs.
    """
    seconds = walltime_seconds(site.walltime) if site.walltime is not None else None
    return None if seconds is None or seconds < _SIGNAL_FROM_S else round(margin(seconds))
