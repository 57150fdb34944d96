"""Where and with what a study was run."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from stormsweep import __version__
from stormsweep.cluster import machine
from stormsweep.config.study import StudyFile
from stormsweep.errors import StudyFileError
from stormsweep.models.source import asks_for

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "jaxlib",
    "keras",
    "numpy",
    "scikit-learn",
    "imbalanced-learn",
    "pandas",
    "distributed",
    "netCDF4",
)


def describe(
    study: StudyFile, session: int, devices: Iterable[str] = (), path: Path | None = None
) -> dict[str, Any]:
    """Return versions, processor, memory, site and git commit of a session.

    Parameters
    ----------
    study : StudyFile
        The study.
    session : int
        Number of the session.
    devices : iterable of str
        What the workers compute on, where that is not simply the processor.
    path : Path or None
        Where the study file stands: a sites.toml beside it counts for the study's directory too.
    """
    workers, threads = study.site.layout
    return {
        "session": session,
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "host": machine.host(),
        "study_file": None if path is None else str(path.absolute()),
        "site": study.site.use,
        "workers": workers,
        "threads_per_worker": threads,
        "engine": study.engine.use,
        "precision": study.engine.precision,
        "packing": study.engine.packing,
        "devices": sorted(devices),
        "processor": machine.processor(),
        "instruction_sets": machine.instruction_sets(),
        "cores": machine.cores(),
        "memory_gb": round(machine.memory_gb(), 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "stormsweep": __version__,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "git_commit": _git_commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "pbs_job": os.environ.get("PBS_JOBID"),
    }


def check_engine(study: StudyFile) -> None:
    """Refuse an engine that is not installed; imports nothing heavy.

    Raises
    ------
    StudyFileError
        If the study trains on JAX, and that is not here.
    """
    if study.engine.use == "jax" and importlib.util.find_spec("jax") is None:
        raise StudyFileError(
            "engine.use: given 'jax', which is not installed here; "
            "pip install -e '.[gpu]' in the checkout, or engine.use = \"tensorflow\""
        )


def devices_here(study: StudyFile) -> tuple[str, ...]:
    """Return what workers here would compute on, as they would say it; imports nothing heavy.

    Returns
    -------
    tuple of str
        Empty where that is simply the processor, and where it is not known.
    """
    if study.engine.use != "jax":
        return ()
    # Without a plug-in, or where it is told so, JAX looks for no GPU.
    looks = os.environ.get("JAX_PLATFORMS") != "cpu" and importlib.util.find_spec("jax_plugins")
    names = machine.gpu_names() if looks else []
    if names is None:
        return ()
    return tuple(f"{name} (gpu)" for name in names) or ("cpu",)


def takes_any_batch(study: StudyFile) -> bool:
    """Whether a compiled program of a study takes batches of any size.

    One of TensorFlow's does, unless the model builder asks for their size by name: what it makes of
    it may be another model.
    """
    return study.engine.use == "tensorflow" and not asks_for(study.model.build, "batch_size")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the folder the command was given in, ``+`` if it has changes."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def sessions_of(directory: Path) -> dict[int, dict[str, Any]]:
    """Return what ``environment.json`` says of each session; empty where it says nothing."""
    try:
        first = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
        return {int(one["session"]): one for one in (first, *first.get("later", []))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
