"""What a node has for one of its workers: it is known on the node only, where the worker begins."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from stormsweep.cluster import deadline
from stormsweep.cluster.topology import Cores

_VARIABLE = "STORMSWEEP_STATION"


@dataclass(frozen=True, slots=True)
class Station:
    """A worker's place on its node.

    Attributes
    ----------
    memory_bytes : float
        That it may take; 0: as its pool says.
    cores : tuple of int
        Logical processors that it is kept on; empty: left to the system.
    leave_at : float or None
        When its tasks must be over, by the node's monotonic clock, which all its processes share.
    whole : float or None
        Seconds that the job had for work when it began.
    copies : mapping of str to str
        Folders of the study, and where their copies lie on the node's own disk.
    node : str
        What the scheduler calls the node.
    gpu : bool
        Whether the worker is to compute on a GPU.
    """

    memory_bytes: float = 0.0
    cores: Cores = ()
    leave_at: float | None = None
    whole: float | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    gpu: bool = False

    def environment(self) -> dict[str, str]:
        """Return what the worker process must have in its environment."""
        return {_VARIABLE: json.dumps(dataclasses.asdict(self))}


_here = Station()


def take(gpu: bool = False) -> Station:
    """Take the station that this process was given, if it was given one.

    Parameters
    ----------
    gpu : bool
        Whether its pool, on this machine, gives it a GPU.
    """
    global _here
    if text := os.environ.get(_VARIABLE):
        said = json.loads(text)
        _here = Station(**said | {"cores": tuple(said["cores"])})
    _here = dataclasses.replace(_here, gpu=_here.gpu or gpu)
    until = math.inf if _here.leave_at is None else _here.leave_at
    whole = math.inf if _here.whole is None else _here.whole
    deadline.set_left(until - time.monotonic(), whole)
    return _here


def here() -> Station:
    """Return the station that was taken."""
    return _here


def near(path: str) -> str:
    """Return where a folder of the study lies nearest: on this node's disk, if it was copied."""
    return _here.copies.get(path, path)
