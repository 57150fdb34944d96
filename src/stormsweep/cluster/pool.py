"""A pool of workers, as the driver sees it: tasks in, events out, one task a worker at a time.

Every event knows when it came to the driver, by the driver's clock (`when`): what a worker's own
clock says may not be compared with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

#: Why a worker may be lost that is not the fault of what it did.
NO_FAULT = frozenset({"walltime", "node-failure", "cancelled", "preempted"})
#: How long the whole end of a pool may take, in seconds: a machine with far more work than cores
#: gives none of those that are to end the time for it. Who waits for a driver waits longer.
END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker process joined and waits for work; its processor is known once it was asked."""

    worker: str
    host: str
    pid: int
    processor: str = ""
    when: float = field(default_factory=time.time, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker process is gone, and with it the task it had.

    Attributes
    ----------
    failure : str
        ``out-of-memory`` or ``killed``, or one of `NO_FAULT`.
    reason : str
        One line.
    token : str or None
        Of the task that was lost.
    let_go : bool
        Whether the pool itself let it go, because there was no work for it.
    """

    worker: str
    host: str
    pid: int
    failure: str
    reason: str
    token: str | None
    let_go: bool = False
    when: float = field(default_factory=time.time, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """A task came back with what its function returned."""

    worker: str
    token: str
    result: Any
    when: float = field(default_factory=time.time, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """A task's function raised, or its result could not be brought back."""

    worker: str
    token: str
    error: BaseException
    when: float = field(default_factory=time.time, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node of a cluster was asked for, given to us, or is not ours any more, nor its workers.

    Attributes
    ----------
    node : str
        Number of the job or step that is the node; no two of a session share one.
    event : str
        ``asked``, ``granted`` or ``ended``.
    failure : str
        ``ended``: why, as in `WorkerLost`; empty: it left by itself.
    detail : str
        One line.
    seconds : float
        ``ended``: how long it was ours, as the scheduler says; 0: it does not say.
    """

    node: str
    event: str
    failure: str = ""
    detail: str = ""
    seconds: float = 0.0
    when: float = field(default_factory=time.time, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class NodesOver:
    """The time of all nodes is over, and there will be no others: to be gone on with later."""


@dataclass(frozen=True, slots=True)
class PoolBroken:
    """No workers will come any more."""

    reason: str


Event = WorkerReady | WorkerLost | Finished | Broken | NodeChanged | NodesOver | PoolBroken


class Pool(Protocol):
    """What every kind of workers offers the driver."""

    @property
    def patience(self) -> float:
        """Seconds within which a first worker must be ready, or another after the last."""

    @property
    def dashboard(self) -> int:
        """Port of the dashboard, on loopback of the driver's machine."""

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        """Give an idle worker process a task; if it is gone by now, its `WorkerLost` follows."""

    def dismiss(self, worker: str, pid: int) -> None:
        """Let a worker process go: its time is over, and it is given nothing more.

        A pool whose workers leave by themselves has nothing to do. A `WorkerLost` may follow.
        """

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        """Let a worker process go that cannot work where it is: it is given nothing more.

        As of `dismiss`, but another place may have what it lacks: a node none of whose workers can
        work is not asked for again, where others can be had. Where none is left, or one after the
        other was no better, a `PoolBroken` follows, whose reason is `why`: one line. What is wrong
        may pass, unless it is `for_good`: then the node is not asked for again at all.
        """

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what has happened; wait up to `timeout` seconds for the first event."""

    def want(self, tasks: int) -> None:
        """Say how many tasks there are, waiting or under way: no more workers are of use."""

    def close(self, within: float = END_SECONDS) -> None:
        """Stop all workers and wait until their processes are gone, at most `within` seconds."""
