"""Sites: where work runs. ``local`` is always there; others come from sites.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from stormsweep.config.load import parse, read_toml
from stormsweep.config.study import Count, Real, Table
from stormsweep.errors import StudyFileError, nearest

LOCAL = "local"


def _no_newline(value: object) -> object:
    if isinstance(value, str) and any(mark in value for mark in "\n\r\0"):
        raise ValueError("must be one line")
    return value


Line = Annotated[StrictStr, BeforeValidator(_no_newline)]
Walltime = Annotated[Line, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")]


class Site(Table):
    """One site: this machine, or a partition of a cluster with its account and layout."""

    scheduler: Literal["local", "slurm"]
    """What starts the workers."""
    partition: Line | None = None
    """Partition (queue) of the cluster."""
    account: Line | None = None
    """Account that is charged."""
    qos: Line | None = None
    """Quality of service."""
    walltime: Walltime | None = None
    """Longest time of a job, ``[D-]HH:MM:SS``."""
    nodes: Count = 1
    """Nodes of one job."""
    exclusive: StrictBool = False
    """Whole nodes, shared with nobody."""
    memory_gb: Annotated[Real, Field(gt=0)] | None = None
    """Memory of a node that a job asks for."""
    gres: Line | None = None
    """Generic resources such as ``gpu:4``."""
    constraint: Line | None = None
    """Features that nodes must have."""
    modules: list[Line] = []
    """Environment modules to load."""
    setup: list[Line] = []
    """Shell lines before the workers start."""
    cores_per_node: Count | None = None
    """Cores of a node, all sockets together."""
    sockets_per_node: Annotated[StrictInt, Field(ge=1)] = 1
    """Sockets of a node."""
    workers_per_node: Count = 1
    """Workers on each node."""
    threads_per_worker: Count = 1
    """Compute threads of each worker."""
    price_per_core_hour: Annotated[Real, Field(ge=0)] | None = None
    """Price of a core-hour, in whatever the site charges."""
    price_per_gpu_hour: Annotated[Real, Field(ge=0)] | None = None
    """Price of a GPU-hour."""


class SitesFile(Table):
    """A whole sites.toml: one table ``[site.NAME]`` for each site."""

    site: dict[StrictStr, Site] = {}


def sites_files(study_file: Path | None) -> list[Path]:
    """List the sites files that count, the nearest first.

    Beside the study file, then the current folder, then the user's configuration folder
    (``$XDG_CONFIG_HOME/stormsweep`` or ``~/.config/stormsweep``).
    """
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folders = [] if study_file is None else [study_file.resolve().parent]
    folders += [Path.cwd(), configuration / "stormsweep"]
    return [path for folder in dict.fromkeys(folders) if (path := folder / "sites.toml").is_file()]


def load_sites(study_file: Path | None) -> dict[str, Site]:
    """Read every site known here; a nearer file's site hides one of the same name.

    Raises
    ------
    StudyFileError
        If a sites file is malformed.
    """
    sites: dict[str, Site] = {}
    for path in reversed(sites_files(study_file)):
        sites |= parse(path, read_toml(path), SitesFile).site
    return sites | {LOCAL: Site(scheduler="local")}


def find_site(name: str, study_file: Path | None) -> Site:
    """Return a site by name.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    sites = load_sites(study_file)
    if name not in sites:
        raise StudyFileError(
            f"site.use: given {name!r}{nearest(name, sites)}; known sites are {', '.join(sites)}"
        )
    return sites[name]
