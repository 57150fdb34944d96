"""Where a study's workers run when it is not this machine: a site, and how many of its nodes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stormsweep.config.sites import LOCAL, Found, locate_site
from stormsweep.config.study import SiteChoice
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import StudyFileError, UserError, typed
from stormsweep.files import write_json
from stormsweep.study.environment import sessions_of

#: Where a study's directory keeps which sites file its site stands in.
_REMEMBERED = "site.json"
#: For how long ready nodes without a walltime wait for others.
_GATHERING_S = 3600.0


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
    ends : float
        When that job is over, by this process's `time.monotonic`; ``inf``: never.
    """

    found: Found
    nodes: tuple[int, int]
    inside: bool = False
    queued_seconds: float | None = None
    ends: float = math.inf

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
    def gathering(self) -> float:
        """For how many seconds ready nodes wait for others, where work begins on all at once.

        Half their time: the queue may give the others only after that, again and again.
        """
        walltime = self.found.site.walltime
        return _GATHERING_S if walltime is None else walltime_seconds(walltime) / 2

    @property
    def gpus(self) -> bool:
        """Whether the site's jobs ask for GPUs."""
        return self.found.site.gpus > 0

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


class AskedFor(NamedTuple):
    """What is asked of a site for a study, and where that was said.

    Attributes
    ----------
    nodes : tuple of int and int, or None
        At least, and at most; None: as many as the site says.
    walltime : str or None
        Of each job; None: as long as the site says.
    said : tuple of str and str
        Where either was said, for messages.
    """

    nodes: tuple[int, int] | None = None
    walltime: str | None = None
    said: tuple[str, str] = ("--nodes", "--walltime")


def asked_for(
    site: SiteChoice, path: Path, name: str, nodes: tuple[int, int] | None, walltime: str | None
) -> AskedFor:
    """Return what is asked of a site: as an option says, or else the study file.

    Parameters
    ----------
    site, path : SiteChoice, Path
        ``[site]`` of the study file, and where that stands.
    name : str
        The site's; what ``[site]`` asks for is for sites of a cluster.
    nodes, walltime
        As options say.

    Examples
    --------
    >>> asked_for(SiteChoice(nodes=3), Path("x.toml"), "two", None, "90")
    AskedFor(nodes=(3, 3), walltime='90', said=('x.toml: site.nodes', '--walltime'))
    """
    asked = AskedFor(nodes, walltime)
    if name == LOCAL:
        return asked
    if nodes is None and site.nodes is not None:
        said = f"{path}: site.nodes", asked.said[1]
        asked = asked._replace(nodes=(site.nodes, site.nodes), said=said)
    if walltime is None and site.walltime is not None:
        said = asked.said[0], f"{path}: site.walltime"
        asked = asked._replace(walltime=site.walltime, said=said)
    return asked


def find(name: str, study_file: Path, directory: Path, asked: str = "site.use") -> Found:
    """Return a site: of a sites file near the study, or where it ran or was begun from before.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    try:
        return locate_site(name, study_file, asked)
    except StudyFileError:
        begun = [one.get("study_file") for one in sessions_of(directory).values()]
        known = (_remembered(directory).get("sites_file"), *reversed(begun))
        others = [Path(file) for file in known if isinstance(file, str)]
        return locate_site(name, study_file, asked, others)


def as_asked(
    found: Found,
    nodes: int | None,
    walltime: str | None,
    said: tuple[str, str] = ("--nodes", "--walltime"),
) -> Found:
    """Return a site with the nodes and the walltime that were asked for instead of its own.

    Parameters
    ----------
    found : Found
        The site.
    nodes, walltime : int or None, str or None
        None: those of the site.
    said : tuple of str and str
        Where either was said, for messages.
    """
    asked = {"nodes": nodes, "walltime": walltime}
    changes = {key: value for key, value in asked.items() if value is not None}
    given = {key: where for key, where in zip(asked, said, strict=True) if key in changes}
    return found._replace(site=found.site.model_copy(update=changes), given=given)


def refuse_longer(found: Found, walltime: str, where: str) -> None:
    """Refuse a walltime that is none, or longer than jobs of a site may take.

    Parameters
    ----------
    found : Found
        The site, as sites.toml says it.
    walltime : str
        What was asked for.
    where : str
        Where that was said.
    """
    try:
        seconds = walltime_seconds(walltime)
    except ValueError as error:
        raise UserError(f"{where}: given {walltime!r}; {error}") from None
    longest = found.site.walltime
    if longest is not None and seconds > walltime_seconds(longest):
        raise UserError(
            f"{where}: given {walltime}; a job may take {longest} at most ({found.key('walltime')})"
        )


def remember(
    found: Found, directory: Path, submitted: bool, nodes: tuple[int, int] | None = None
) -> None:
    """Write down in a study's directory in which sites file its site stands, and how it is run.

    From there the site may not be found: ``studies/sites.toml``, say, for ``run runs/taki-2019``.

    Parameters
    ----------
    found : Found
        The site, with the walltime that was asked for.
    directory : Path
        The study's directory.
    submitted : bool
        Whether the driver runs in a job.
    nodes : tuple of int and int, optional
        Nodes at least and at most, where others were asked for than the site says.
    """
    assert found.file is not None  # Only `local` stands in no file.
    told = {"site": found.name, "sites_file": str(found.file.absolute())}
    told["scheduler"] = found.site.scheduler
    asked = {"nodes": nodes, "walltime": found.site.walltime if "walltime" in found.given else None}
    write_json(directory / _REMEMBERED, told | {"submitted": submitted} | asked)


def going_on(directory: Path, use: str) -> str:
    """Return the command by which a study that stopped goes on where it ran.

    Parameters
    ----------
    directory : Path
        The study's directory.
    use : str
        The site that the study names.
    """
    told = _remembered(directory)
    nodes, walltime = told.get("nodes"), told.get("walltime")
    if was_submitted(directory):
        return submit_again(directory, use, nodes and nodes[1], walltime)
    return run_again([directory], use, nodes, walltime)


def was_submitted(directory: Path) -> bool:
    """Say whether the driver of a study ran, or is to run, in a job."""
    return bool(_remembered(directory).get("submitted"))


def scheduler_used(directory: Path) -> str | None:
    """Return the scheduler of the site that a study ran, or is to run, on; None: on no site yet."""
    told = _remembered(directory)
    # Earlier versions did not write it down.
    return told.get("scheduler", "slurm") if told else None


def submit_again(directory: Path, use: str, nodes: int | None, walltime: str | None) -> str:
    """Return the `submit` of a study to a site, with jobs of as many nodes and as long.

    Examples
    --------
    >>> submit_again(Path("runs/x"), "two", 4, "01:30:00")
    'stormsweep submit runs/x --site two --nodes 4 --walltime 01:30:00'
    """
    count = ["--nodes", nodes] if nodes else []
    return typed("submit", directory, "--site", use, *count, *_for(walltime))


def run_again(
    study: Sequence[Path | str], use: str, nodes: Sequence[int] | None, walltime: str | None
) -> str:
    """Return the `run` of a study, in words that name it, on so many nodes of a site, as long.

    Examples
    --------
    >>> run_again([Path("runs/x")], "local", None, None)
    'stormsweep run runs/x'
    >>> run_again([Path("x.toml")], "two", (1, 8), "90")
    'stormsweep run x.toml --site two --nodes 1:8 --walltime 90'
    """
    if use == LOCAL:
        return typed("run", *study)
    count = ["--nodes", f"{nodes[0]}:{nodes[1]}"] if nodes else []
    return typed("run", *study, "--site", use, *count, *_for(walltime))


def _for(walltime: str | None) -> list[str]:
    return ["--walltime", walltime] if walltime else []


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
    asked: AskedFor | None = None,
    said_site: str = "site.use",
) -> Place | None:
    """Return where workers run; None: on this machine.

    Parameters
    ----------
    name : str
        A site's.
    study_file, directory : Path, Path
        Beside the first a sites.toml may stand; the second is the study's directory.
    asked : AskedFor, optional
        What is asked of the site; none: what it says itself.
    said_site : str
        Where the name was given, for messages.

    Raises
    ------
    StudyFileError
        If there is no such site.
    UserError
        If nodes or a walltime are given for this machine, or the site's jobs are not so long.
    """
    found = find(name, study_file, directory, said_site)
    nodes, walltime, said = asked or AskedFor()
    if name == LOCAL:
        if nodes is not None:
            raise UserError(f"{said[0]}: is for sites of a cluster; on this machine use --workers")
        if walltime is not None:
            raise UserError(
                f"{said[1]}: is for sites of a cluster; on this machine nothing ends jobs"
            )
        return None
    if walltime is not None:
        refuse_longer(found, walltime, said[1])
    found = as_asked(found, None, walltime, said)
    if nodes is None:
        return Place(found, (found.site.nodes, found.site.nodes))
    return Place(found._replace(given={**found.given, "nodes": said[0]}), nodes)
