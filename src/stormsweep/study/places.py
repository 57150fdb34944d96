"""Where a study's workers run when it is not this machine: a site, and how many of its nodes."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stormsweep.cluster.jobscript import setup_mistake
from stormsweep.cluster.partitions import Partition, away, misfit, partition_of
from stormsweep.cluster.scheduler import scheduler_of
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import LOCAL, Found, locate_site
from stormsweep.errors import SlurmError, StudyFileError, UserError, typed
from stormsweep.files import write_json

#: Where a study's directory keeps which sites file its site stands in.
_REMEMBERED = "site.json"
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


@dataclass(frozen=True, slots=True)
class Place:
    """A site, and how its nodes become a study's.

    Attributes
    ----------
    found : Found
        The site.
    nodes : tuple of int and int
        Nodes at least, whatever there is to do, and at most.
    inside : bool
        Whether this process runs in a job of the site whose nodes are to be used; else every node
        is a job of its own.
    queued_seconds : float or None
        How long that job waited in the queue; None where it is not known.
    """

    found: Found
    nodes: tuple[int, int]
    inside: bool = False
    queued_seconds: float | None = None

    @property
    def asked(self) -> tuple[int, int] | None:
        """How many nodes were asked for; None: as many as the site says."""
        count = self.found.site.nodes
        return None if self.inside or self.nodes == (count, count) else self.nodes

    @property
    def workers(self) -> int:
        """Workers on all nodes."""
        return self.nodes[1] * self.found.site.workers_per_node

    @property
    def gpus(self) -> bool:
        """Whether the site's jobs ask for GPUs."""
        return "gpu" in (self.found.site.gres or "")

    def unused(self, engine: str) -> str:
        """Say so where an engine leaves unused what the site has; else an empty string."""
        if self.gpus and engine != "jax":
            return (
                f"site {self.found.name} asks for GPUs, and engine.use = {engine!r} trains on "
                "processors; engine.use = 'jax' trains on GPUs"
            )
        if engine == "jax" and not self.gpus:
            return (
                f"site {self.found.name} asks for no GPUs (gres), so that JAX trains on "
                "processors; engine.use = 'tensorflow' is faster there"
            )
        return ""


def find(name: str, study_file: Path, directory: Path, asked: str = "site.use") -> Found:
    """Return a site: of a sites file near the study, or of that which the study ran on before.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    try:
        return locate_site(name, study_file, asked)
    except StudyFileError:
        file = _remembered(directory).get("sites_file")
        if file is not None:
            with contextlib.suppress(StudyFileError):
                return locate_site(name, Path(file), asked)
        raise


def remember(
    found: Found, directory: Path, submitted: bool, nodes: tuple[int, int] | None = None
) -> None:
    """Write down in a study's directory in which sites file its site stands, and how it is run.

    From there the site may not be found: ``studies/sites.toml``, say, for ``run runs/taki-2019``.

    Parameters
    ----------
    found : Found
        The site.
    directory : Path
        The study's directory.
    submitted : bool
        Whether the driver runs in a job.
    nodes : tuple of int and int, optional
        Nodes at least and at most, where others were asked for than the site says.
    """
    assert found.file is not None  # Only `local` stands in no file.
    told = {"site": found.name, "sites_file": str(found.file.absolute())}
    write_json(directory / _REMEMBERED, told | {"submitted": submitted, "nodes": nodes})


def going_on(directory: Path, use: str) -> str:
    """Return the command by which a study that stopped goes on where it ran.

    Parameters
    ----------
    directory : Path
        The study's directory.
    use : str
        The site that the study names.
    """
    nodes = _remembered(directory).get("nodes")
    if was_submitted(directory):
        return submit_again(directory, use, nodes and nodes[1])
    return run_again(directory, use, nodes)


def was_submitted(directory: Path) -> bool:
    """Say whether the driver of a study ran, or is to run, in a job."""
    return bool(_remembered(directory).get("submitted"))


def submit_again(directory: Path, use: str, nodes: int | None) -> str:
    """Return the `submit` of a study to a site, with as many nodes for each job."""
    return typed("submit", directory, "--site", use, *(["--nodes", nodes] if nodes else []))


def run_again(study: Path, use: str, nodes: Sequence[int] | None) -> str:
    """Return the `run` of a study or its file on a site, with as many of its nodes.

    Examples
    --------
    >>> run_again(Path("runs/x"), "local", None), run_again(Path("x.toml"), "two", (1, 8))
    ('stormsweep run runs/x', 'stormsweep run x.toml --site two --nodes 1:8')
    """
    where = [] if use == LOCAL else ["--site", use]
    count = ["--nodes", f"{nodes[0]}:{nodes[1]}"] if where and nodes else []
    return typed("run", study, *where, *count)


def _remembered(directory: Path) -> dict[str, Any]:
    try:
        told = json.loads((directory / _REMEMBERED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def place_of(
    name: str,
    study_file: Path,
    directory: Path,
    nodes: tuple[int, int] | None = None,
) -> Place | None:
    """Return where workers run; None: on this machine.

    Parameters
    ----------
    name : str
        A site's.
    study_file, directory : Path, Path
        Beside the first a sites.toml may stand; the second is the study's directory.
    nodes : tuple of int and int, optional
        At least, and at most; none: as many as the site says.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    found = find(name, study_file, directory)
    if name == LOCAL:
        if nodes is not None:
            raise UserError("--nodes: is for sites of a cluster; on this machine use --workers")
        return None
    count = found.site.nodes
    return Place(found, nodes or (count, count))


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
    site = found.site.model_copy(update={"nodes": place.nodes[1]})
    if not isinstance(commands, Slurm):
        return ""
    return asked_of_slurm(found._replace(site=site), place.asked is not None, script, commands).away


def asked_of_slurm(found: Found, nodes_asked: bool, script: str, commands: Slurm) -> Answer:
    """Ask Slurm whether it has what a job asks for.

    Parameters
    ----------
    found : Found
        The site, with the nodes of the job.
    nodes_asked : bool
        Whether these were asked for on the command line.
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
    partition = fitting(found, nodes_asked, commands)
    gone = away(found.site, partition)
    try:
        start = expected(commands.test_only(script, Path.cwd()))
    except SlurmError as error:
        # To queue it is what sbatch does, where that is out of service and nothing else is wrong.
        if gone and error.refused and any(words in error.said.lower() for words in _OUT_OF_SERVICE):
            return Answer(away=gone)
        raise refusal(found, error) from None
    # Slurm answers for a partition that is down as if it were up.
    return Answer(start if partition.state == "up" else "", gone)


def fitting(found: Found, nodes_asked: bool, commands: Slurm) -> Partition:
    """Return the partition of a site's jobs, which has what they ask for.

    Raises
    ------
    StudyFileError
        If it has not; parameters and the other errors are those of `asked_of_slurm`.
    """
    partitions = commands.partitions()
    wrong = misfit(found.site, partitions)
    if wrong is not None:
        key, why = wrong
        where = "--nodes" if key == "nodes" and nodes_asked else found.key(key)
        raise StudyFileError(f"{where}: {why}")
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
