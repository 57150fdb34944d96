"""Sites: where work runs. ``local`` is always there; others come from sites.toml.

What a site says ends in job scripts and on command lines, so it is checked here, once: names are of
letters, digits and a few marks that neither a shell nor a scheduler reads as anything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, model_validator

from stormsweep.config.load import parse, read_toml
from stormsweep.config.study import Count, Real, Table, Walltime
from stormsweep.errors import StudyFileError, nearest

LOCAL = "local"


def _one_line(value: object) -> object:
    if isinstance(value, str) and any(ord(mark) < 32 and mark != "\t" for mark in value):
        raise ValueError("must be one line, without control characters")
    return value


def _made_of(marks: str, begins: str = r"A-Za-z0-9_") -> Callable[[object], object]:
    """Check a text: letters, digits, ``_`` and `marks`, nothing that reads as an option."""
    allowed = re.compile(rf"[{begins}][A-Za-z0-9_{re.escape(marks)}]{{0,199}}")

    def check(value: object) -> object:
        _one_line(value)
        if isinstance(value, str) and not allowed.fullmatch(value):
            raise ValueError(
                f"must be letters, digits, '_' and any of {' '.join(marks)}, "
                "and begin with a letter or digit"
            )
        return value

    return check


def _memory(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "all" and not (number and 0 < value < 2**20):  # type: ignore[operator]
        raise ValueError('must be a number of GiB above 0, or "all"')
    return value


def _folder(value: object) -> object:
    _one_line(value)
    if isinstance(value, str) and not value.startswith(("/", "$")):
        raise ValueError("must be a whole path, from / or from a variable such as $TMPDIR")
    return value


Line = Annotated[StrictStr, Field(min_length=1), BeforeValidator(_one_line)]
Name = Annotated[StrictStr, BeforeValidator(_made_of(".-+@"))]
Resources = Annotated[StrictStr, BeforeValidator(_made_of(".-+:,="))]
Features = Annotated[StrictStr, BeforeValidator(_made_of(".-+:&|*,()[]=", r"A-Za-z0-9_(\["))]
Module = Annotated[StrictStr, BeforeValidator(_made_of(".-+/:@="))]
Memory = Annotated[float | Literal["all"], BeforeValidator(_memory)]
Folder = Annotated[StrictStr, BeforeValidator(_folder)]


class Site(Table):
    """One site: this machine, or a partition of a cluster with its account and layout."""

    scheduler: Literal["local", "slurm", "pbs"]
    """What starts the workers: this machine, Slurm, or PBS (PBS Professional, OpenPBS)."""
    partition: Name | None = None
    """Partition (PBS: queue) of the cluster; unset: the cluster's default."""
    account: Name | None = None
    """Account that is charged."""
    qos: Name | None = None
    """Quality of service; Slurm only."""
    walltime: Walltime | None = None
    """Longest time of a job, ``"HH:MM:SS"`` or ``"D-HH:MM:SS"``, and what a job asks for unless a
    study asks for less; unset: the partition's default."""
    nodes: Count = 1
    """Nodes of one job."""
    exclusive: StrictBool = False
    """Whole nodes, shared with nobody."""
    memory_gb: Memory | None = None
    """Memory of a node that a job asks for, in GiB; ``"all"``: all that it has (PBS: of a node
    that is exclusive)."""
    gres: Resources | None = None
    """Generic resources of each node, such as ``"gpu:4"`` (to PBS: ``ngpus=4``)."""
    constraint: Features | None = None
    """Features that nodes must have; to PBS resources with their values, such as
    ``"gpu_type=a100"``, joined by ``&``."""
    modules: list[Module] = []
    """Environment modules to load."""
    setup: list[Line] = []
    """Shell lines before the work starts, as they stand: the job's shell runs them."""
    cores_per_node: Count | None = None
    """Cores of a node, all sockets together."""
    hyperthreads: StrictBool = False
    """Take each hyperthread that Slurm counts as a processor for a core; else jobs get whole cores,
    and use one thread of each. Slurm only."""
    sockets_per_node: Count = 1
    """Sockets of a node."""
    workers_per_node: Count = 1
    """Workers on each node."""
    threads_per_worker: Count = 1
    """Compute threads of each worker."""
    shared_folder: Folder | None = None
    """Folder that every node sees; studies elsewhere are refused. Unset: wherever a study lies is
    taken to be seen by all."""
    scratch: Folder | None = None
    """Folder on a node's own disk for what workers set aside; ``$TMPDIR`` and other variables are
    those of the job on the node. Unset: nothing is set aside on the nodes."""
    copy_data: StrictBool = False
    """Copy prepared data to `scratch`, once for each job on a node, instead of reading them from
    afar."""
    interface: Name | None = None
    """Network that driver and workers talk over, such as ``"ib0"``; unset: that of its name."""
    price_per_core_hour: Annotated[Real, Field(ge=0)] | None = None
    """Price of a core-hour, in whatever the site charges."""
    price_per_gpu_hour: Annotated[Real, Field(ge=0)] | None = None
    """Price of a GPU-hour; 0: they are free. Where jobs have GPUs, there is no cost without it."""

    @property
    def cores(self) -> int:
        """Cores that a job takes of each node."""
        return self.workers_per_node * self.threads_per_worker

    @property
    def charged_cores(self) -> int | None:
        """Cores of a node that a job is charged; None: all of them, and nobody says how many."""
        return self.cores_per_node if self.exclusive else self.cores

    @property
    def gpus(self) -> int:
        """GPUs that a job asks of each node; those of `gres`, which PBS knows as ``ngpus``."""
        found = re.findall(
            r"(?:^|,)n?gpus?(?::[A-Za-z][^:,]*)?(?:[:=]([0-9]+))?(?=,|$)", self.gres or ""
        )
        return sum(int(count or 1) for count in found)

    @model_validator(mode="after")
    def _fits_its_own_node(self) -> Site:
        have = self.cores_per_node
        if have is not None and self.cores > have:
            raise ValueError(
                f"workers_per_node x threads_per_worker: given {self.workers_per_node} x "
                f"{self.threads_per_worker} = {self.cores}; must be at most cores_per_node = {have}"
            )
        if self.copy_data and self.scratch is None:
            raise ValueError("copy_data: given true without scratch; name a folder to copy to")
        return self

    @model_validator(mode="after")
    def _speaks_its_schedulers_language(self) -> Site:
        if self.scheduler != "pbs":
            if "=" in (self.constraint or ""):
                raise ValueError(f"constraint: given {self.constraint!r}; Slurm knows no '=' there")
            return self
        if self.qos is not None:
            raise ValueError(f"qos: given {self.qos!r}; PBS has none, its queues stand for it")
        if self.hyperthreads:
            raise ValueError("hyperthreads: given true; to PBS, cores are what its nodes offer")
        if self.memory_gb == "all" and not self.exclusive:
            raise ValueError('memory_gb: given "all"; PBS gives all only with exclusive = true')
        resource = r"[A-Za-z]\w*"
        if self.gres and not re.fullmatch(rf"({resource}(:[0-9]+)?(,(?!$)|$))+", self.gres):
            raise ValueError(
                f'gres: given {self.gres!r}; to PBS it must be names and numbers, as "gpu:4"; '
                'a kind of GPU is a constraint, as "gpu_type=a100"'
            )
        value = rf"{resource}=[A-Za-z0-9][\w.-]*"
        if self.constraint and not re.fullmatch(rf"{value}(&{value})*", self.constraint):
            raise ValueError(
                f"constraint: given {self.constraint!r}; to PBS it must be resources with values, "
                'as "cpu_type=genoa&gpu_type=a100"'
            )
        return self


class SitesFile(Table):
    """A whole sites.toml: one table ``[site.NAME]`` for each site."""

    site: dict[Annotated[StrictStr, BeforeValidator(_made_of(".-"))], Site] = {}


class Found(NamedTuple):
    """A site and where it stands.

    Attributes
    ----------
    name : str
    site : Site
    file : Path or None
        The sites.toml; None for ``local``.
    given : mapping
        Where values were given that replace some of the site's, by their keys.
    """

    name: str
    site: Site
    file: Path | None
    given: Mapping[str, str] = MappingProxyType({})

    def key(self, key: str) -> str:
        """Say where a value of the site is written, for a message."""
        if key in self.given:
            return self.given[key]
        return f"{self.file or 'built in'}: site.{self.name}.{key}"


def sites_files(study_file: Path | None) -> list[Path]:
    """List the sites files that count, the nearest first.

    Beside the study file, then the current folder, then the user's configuration folder
    (``$XDG_CONFIG_HOME/stormsweep`` or ``~/.config/stormsweep``).
    """
    return [path for path in _looked_for(study_file) if path.is_file()]


def _looked_for(study_file: Path | None, others: Sequence[Path] = ()) -> list[Path]:
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folders = [] if study_file is None else [study_file.resolve().parent]
    folders += [Path.cwd(), configuration / "stormsweep"]
    folders += [other.resolve().parent for other in others]
    return [folder / "sites.toml" for folder in dict.fromkeys(folders)]


def locate_sites(study_file: Path | None, others: Sequence[Path] = ()) -> dict[str, Found]:
    """Read every site known here; a nearer file's site hides one of the same name.

    Parameters
    ----------
    study_file : Path or None
        The study file, whose folder may hold a sites.toml.
    others : sequence of Path
        Files in whose folders one is looked for last.

    Raises
    ------
    StudyFileError
        If a sites file is malformed.
    """
    sites: dict[str, Found] = {}
    for path in filter(Path.is_file, reversed(_looked_for(study_file, others))):
        here = parse(path, read_toml(path), SitesFile).site
        if LOCAL in here:
            raise StudyFileError(
                f"{path}: site.{LOCAL}: is this machine, and is built in; choose another name, or "
                "set workers and threads_per_worker in [site] of the study file"
            )
        sites |= {name: Found(name, site, path) for name, site in here.items()}
    return sites | {LOCAL: Found(LOCAL, Site(scheduler="local"), None)}


def load_sites(study_file: Path | None) -> dict[str, Site]:
    """Read every site known here, without where it stands.

    Raises
    ------
    StudyFileError
        If a sites file is malformed.
    """
    return {name: found.site for name, found in locate_sites(study_file).items()}


def locate_site(
    name: str, study_file: Path | None, asked: str = "site.use", others: Sequence[Path] = ()
) -> Found:
    """Return a site by name, and where it stands.

    Parameters
    ----------
    name : str
        What was asked for.
    study_file : Path or None
        The study file, whose folder may hold a sites.toml.
    asked : str
        Where the name was given: the key, or the option.
    others : sequence of Path
        As in `locate_sites`.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    sites = locate_sites(study_file, others)
    if name not in sites:
        files = ", ".join(
            f"{path}{'' if path.is_file() else ' (not there)'}"
            for path in _looked_for(study_file, others)
        )
        raise StudyFileError(
            f"{asked}: given {name!r}{nearest(name, sites)}; known sites are {', '.join(sites)}; "
            f"looked at {files}"
        )
    return sites[name]


def find_site(name: str, study_file: Path | None) -> Site:
    """Return a site by name.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    return locate_site(name, study_file).site
