"""Whether a site takes the jobs of a study, found out before any is sent there."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stormsweep.cluster import slurm
from stormsweep.cluster.jobscript import Order, job_script, setup_mistake
from stormsweep.cluster.partitions import Partition, away, misfit, partition_of
from stormsweep.cluster.scheduler import scheduler_of
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import Found
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import SlurmError, StudyFileError, UserError
from stormsweep.study.places import Place

#: What Slurm says of a value that it does not take, and the key of the site that it stands in.
_WORDS = {
    "accounting/qos policy": "*",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time limit": "walltime",
    "generic resource": "gres",
    "gres": "gres",
    "feature": "constraint",
    "memory": "memory_gb",
    "node count": "nodes",
    "more processors": "nodes",
}
#: What it says of a job whose nodes or partition are there, but out of service.
_OUT_OF_SERVICE = (
    "node configuration is not available",
    "node not available",
    "partition configuration not available now",
    "partition in down state",
)
#: Seconds that Slurm may take for an answer that advice can do without.
_SHORT = 5.0


def partition_here(found: Found) -> Partition | None:
    """Return the partition that a site's jobs go to, with the limits that hold for these jobs.

    None: there is none of this name, or nobody here says so. Somebody may well foretell a study on
    a cluster of elsewhere.
    """
    if found.site.scheduler != "slurm" or not slurm.available():
        return None
    commands = Slurm(_SHORT)
    try:
        partition = partition_of(found.site, commands.partitions())
    except SlurmError:
        return None
    return None if partition is None else _lifted(found, partition, commands)


def _lifted(found: Found, partition: Partition, commands: Slurm) -> Partition:
    """Return a partition with its limits as the QOS of a site's jobs lifts them.

    sinfo does not know which limits a QOS lifts. So sbatch is asked whether it takes what the site
    itself says beyond them; for more than that the partition's limits stay.
    """
    site, longest, most = found.site, partition.longest, partition.most_nodes
    own = walltime_seconds(site.walltime) if site.walltime else 0
    lifted = replace(
        partition,
        longest=None if longest is None else max(longest, own),
        most_nodes=None if most is None else max(most, site.nodes),
    )
    if site.qos is None or lifted == partition:
        return partition
    try:
        order = Order("stormsweep-advise", ["true"], os.devnull)
        asked_of_slurm(found, job_script(site, order), commands)
    except (UserError, SlurmError):
        return partition
    return lifted


class Answer(NamedTuple):
    """What Slurm says of a job that it would take.

    Attributes
    ----------
    start : str
        When and where it would start; empty where Slurm does not say.
    away : str
        What is out of service that it waits for: nodes, where too few are left for it, or the
        partition; else empty.
    """

    start: str = ""
    away: str = ""

    @property
    def expected(self) -> str:
        """``to start at <time> on <nodes>``, or ``to wait: <what is away>``, or empty."""
        return self.start or (f"to wait: {self.away}" if self.away else "")


def refuse_unfit(place: Place, directory: Path, script: str) -> str:
    """Refuse a site that a study cannot run on.

    Parameters
    ----------
    place : Place
        The site.
    directory : Path
        The study's directory.
    script : str
        The job script of a node.

    Returns
    -------
    str
        What is out of service that it has to wait for; else empty.

    Raises
    ------
    UserError
        In one line: no scheduler here, a partition, walltime, memory or number of nodes that the
        cluster does not have, set-up lines that bash cannot read, a directory that is not in the
        site's shared folder, and whatever else Slurm refuses.
    """
    found = place.found
    refuse_setup(found)
    refuse_elsewhere(found, directory)
    commands = scheduler_of(found.site)
    commands.needed()
    if not isinstance(commands, Slurm):
        return ""
    # Each node is a job of its own: so many nodes are to be there, whatever one job may have.
    least, most = (
        found._replace(site=found.site.model_copy(update={"nodes": count})) for count in place.nodes
    )
    partition = fitting(most, commands, apart=True)
    return _answer(most, script, commands, partition, away(least.site, partition)).away


def asked_of_slurm(found: Found, script: str, commands: Slurm) -> Answer:
    """Ask Slurm whether it has what a job asks for.

    Parameters
    ----------
    found : Found
        The site, with the nodes and the walltime of the job.
    script : str
        The job script.
    commands : Slurm
        Who is asked.

    Returns
    -------
    Answer

    Raises
    ------
    StudyFileError
        If it would be refused.
    SlurmError
        If Slurm is in trouble.
    """
    partition = fitting(found, commands)
    return _answer(found, script, commands, partition, away(found.site, partition))


def _answer(found: Found, script: str, commands: Slurm, partition: Partition, gone: str) -> Answer:
    """Return what sbatch says of a job; `gone` is out of service that it would wait for."""
    try:
        start = expected(commands.test_only(script, Path.cwd()))
    except SlurmError as error:
        # To queue it is what sbatch does, where that is out of service and nothing else is wrong.
        if gone and error.refused and any(words in error.said.lower() for words in _OUT_OF_SERVICE):
            return Answer(away=gone)
        raise refusal(found, error) from None
    # Slurm answers for a partition that is down as if it were up.
    return Answer(start if partition.state == "up" else "", gone)


def fitting(found: Found, commands: Slurm, apart: bool = False) -> Partition:
    """Return the partition of a site's jobs, which has what they ask for.

    Parameters
    ----------
    found, commands : Found, Slurm
        As for `asked_of_slurm`.
    apart : bool
        Whether each node is a job of its own, so that no limit on the nodes of a job counts.

    Raises
    ------
    StudyFileError
        If it has not; the other errors are those of `asked_of_slurm`.
    """
    partitions = commands.partitions()
    if apart:
        partitions = {name: replace(one, most_nodes=None) for name, one in partitions.items()}
    wrong = misfit(found.site, partitions)
    if wrong is not None:
        key, why = wrong
        raise StudyFileError(f"{found.key(key)}: {why}")
    partition = partition_of(found.site, partitions)
    assert partition is not None  # It fits.
    return partition


def expected(line: str) -> str:
    """Take out of the line of `sbatch --test-only` what is worth reading: its number is of no job.

    Examples
    --------
    >>> expected("Job 5 to start at 2019-05-01T10:00:00 using 36 cores on nodes n1 in ...")
    'to start at 2019-05-01T10:00:00 on n1'
    """
    found = re.search(r"to start at ([0-9T:-]+)\b.* on nodes (\S+)", line)
    return f"to start at {found[1]} on {found[2]}" if found else ""


def refuse_setup(found: Found) -> None:
    """Refuse a site with set-up lines that bash cannot read."""
    mistake = setup_mistake(found.site)
    if mistake is not None:
        raise StudyFileError(f"{found.key('setup')}: bash cannot read it ({mistake})")


def refuse_elsewhere(found: Found, directory: Path) -> None:
    """Refuse a study whose directory is not in the folder that the site's nodes see."""
    given = found.site.shared_folder
    if given is None:
        return
    place = Path(os.path.expandvars(given))
    if not place.is_dir():
        raise StudyFileError(f"{found.key('shared_folder')}: given {given!r}; there is no folder")
    if not directory.resolve().is_relative_to(place.resolve()):
        raise StudyFileError(
            f"{found.key('shared_folder')}: given {given!r}; {directory} is not in it, so that the "
            "nodes would not see the study; choose a place for it with --runs"
        )


def refusal(found: Found, error: SlurmError) -> SlurmError | StudyFileError:
    """Say which key of the site it is that Slurm does not take, where its words tell."""
    if not error.refused:
        return error
    said = error.said.lower()
    key = next((key for words, key in _WORDS.items() if words in said), "*")
    given = getattr(found.site, key, None)
    shown = "" if given is None else f"given {given!r}; "
    return StudyFileError(f"{found.key(key)}: {shown}Slurm refuses it: {error.said}")
