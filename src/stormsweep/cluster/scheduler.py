"""What a cluster's scheduler must offer, whichever it is; its jobs in Slurm's words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stormsweep.config.sites import Site

_OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its scheduler sees it.

    Attributes
    ----------
    state : str
        One of Slurm's words, such as ``RUNNING`` (squeue(1), "job state codes"), whichever
        scheduler it is.
    reason : str
        The scheduler's words for why it waits or how it ended, such as ``Resources``; empty where
        there are none.
    nodes : str
        The nodes it is or was on, as the scheduler lists them, such as ``n[1-2]`` or ``n1,n2``;
        empty before it started.
    seconds : float or None
        How long it has run, or ran; None where the scheduler does not say.
    """

    state: str
    reason: str = ""
    nodes: str = ""
    seconds: float | None = None

    @property
    def over(self) -> bool:
        """Whether it holds no node any more, and will not run again by itself."""
        return self.state in _OVER


class Scheduler(Protocol):
    """The commands of a scheduler, for one driver.

    Every method but `needed` raises a `SchedulerError` where a command fails, hangs or says what
    cannot be understood; `SchedulerError.passing` tells whether trying later makes sense.
    """

    name: str
    """What users call it, such as ``Slurm``."""

    def needed(self) -> None:
        """Refuse to go on, with a `UserError`, where its commands are not on the path."""

    def version(self) -> str:
        """Return its name and version."""

    def submit(self, script: str, folder: Path, key: str = "") -> str:
        """Submit a batch script, once, whatever happens; return the job's id.

        Parameters
        ----------
        script : str
            The script's text.
        folder : Path
            Where the job starts, and what relative paths in the script mean.
        key : str
            By which `jobs_of` finds the job again: letters, digits and ``-``. A key finds those
            of longer keys that begin with it and a ``-`` too.
        """

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        """Return what became of jobs, by id; without those that nobody knows any more."""

    def jobs_of(self, key: str) -> dict[str, Job]:
        """Return the user's jobs that were submitted with a key, those just over too."""

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel jobs; those that are over already do not matter."""


def scheduler_of(site: Site) -> Scheduler:
    """Return the commands of the scheduler that a site has.

    Raises
    ------
    ValueError
        For ``local``, which has none.
    """
    from stormsweep.cluster.pbs import Pbs
    from stormsweep.cluster.slurm import Slurm

    kinds: dict[str, type[Slurm] | type[Pbs]] = {"slurm": Slurm, "pbs": Pbs}
    if site.scheduler not in kinds:
        raise ValueError(f"no scheduler: {site.scheduler}")
    return kinds[site.scheduler]()
