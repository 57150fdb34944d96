"""What a node's agent is told: a file in the study's private folder, beside the certificates."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distributed import Security

_ORDER, _CERTIFICATE, _KEY = "node.json", "certificate.pem", "key.pem"


@dataclass(frozen=True, slots=True)
class NodeOrder:
    """How to set a node up for a study.

    Attributes
    ----------
    scheduler : str
        Address that workers join.
    workers, threads : int
        Workers of a node, and compute threads of each.
    memory_gb : float or None
        Memory of one worker in GiB; None: its share of the node's.
    logs : str
        Folder of the study's logs.
    imported : list of str
        Modules that workers are forked with; empty: they are not forked.
    pin : bool, "auto" or "across"
        Whether workers are kept on cores of their own: ``[site] pin``.
    gpus : bool
        Whether each worker needs a GPU.
    walltime_s : int or None
        Seconds that a job has, where its scheduler does not tell on the node.
    job_gb : float or None
        Memory of a node in GiB that the job has, where its scheduler does not tell on the node.
    scratch : str or None
        Folder on the node's own disk; variables in it are the node's.
    copies : list of str
        Folders to copy there.
    interface : str or None
        Network to talk over.
    """

    scheduler: str
    workers: int
    threads: int
    memory_gb: float | None
    logs: str
    imported: list[str]
    pin: bool | Literal["auto", "across"] = "auto"
    gpus: bool = False
    walltime_s: int | None = None
    job_gb: float | None = None
    scratch: str | None = None
    copies: list[str] = dataclasses.field(default_factory=list)
    interface: str | None = None

    def write(self, folder: Path) -> Path:
        """Write it down for the nodes; return the file."""
        return _write(folder / _ORDER, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> NodeOrder:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def make_private(parent: Path, name: str) -> tuple[Path, Security]:
    """Make a folder for the owner alone, with new certificates in it.

    Whatever else lies in the parent is of sessions that were killed, and is removed.

    Parameters
    ----------
    parent : Path
        The study's ``.private``; made if missing.
    name : str
        Of the folder in it.

    Returns
    -------
    Path, Security
        The folder, and what the driver itself uses.
    """
    shutil.rmtree(parent, ignore_errors=True)
    folder = parent / name
    for each in (parent, folder):
        each.mkdir(mode=0o700)
    security = Security.temporary()
    _write(folder / _CERTIFICATE, security.tls_ca_file)
    _write(folder / _KEY, security.tls_scheduler_key)
    return folder, security


def remove_private(folder: Path) -> None:
    """Remove what `make_private` made, and the parent unless another driver has its own there."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def security_of(folder: Path) -> Security:
    """Return the certificates that `make_private` put in a folder."""
    certificate, key = str(folder / _CERTIFICATE), str(folder / _KEY)
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_cert": certificate for role in roles}
    files |= {f"tls_{role}_key": key for role in roles}
    return Security(tls_ca_file=certificate, require_encryption=True, **files)


def _write(path: Path, text: str) -> Path:
    # Made for the owner alone from its first byte on, whatever the umask.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path
