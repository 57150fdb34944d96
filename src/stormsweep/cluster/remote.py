"""Workers on the nodes of a cluster: they join over TLS, from wherever their nodes' agents run."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormsweep.cluster.address import own_address
from stormsweep.cluster.dask_pool import KILLED, NODES_BY, DaskPool, dask_settings, farewell
from stormsweep.cluster.keeper import Ended, Keeper, Launcher, nodes_for
from stormsweep.cluster.memory_kills import OUT_OF_MEMORY
from stormsweep.cluster.node import WANTED, farewell_of_node
from stormsweep.cluster.node_order import NodeOrder, make_private, remove_private
from stormsweep.cluster.pool import Event, Finished, WorkerLost, WorkerReady
from stormsweep.cluster.worker import WorkerSetup
from stormsweep.records import node_of

log = logging.getLogger(__name__)

#: How long is waited for what a lost worker's node says of it, in seconds.
_EXPLAINED_SECONDS = 20.0
#: How long that holds: a job that was requeued has an agent of the same name.
_FAREWELL_SECONDS = 2 * _EXPLAINED_SECONDS
_LET_GO = "its node was let go"
_SILENT = "its node gives no sign of life"
#: Signs of life that a node's agent must give after a loss before the loss is the worker's alone.
_BEATS = 3


@dataclass(slots=True)
class _Unexplained:
    """A worker that was lost without a word."""

    loss: WorkerLost
    since: float
    beats: int


class RemotePool(DaskPool):
    """A pool of workers on nodes.

    Workers are called ``<node>-<number of the node>-<number>``.

    Parameters
    ----------
    launcher : Launcher
        Makes nodes.
    order : NodeOrder
        How nodes are set up; its ``scheduler`` is filled in here.
    private : Path
        The study's folder for what only its owner may read; made, and removed in the end.
    nodes : tuple of int and int
        How many nodes there are at least, and at most.
    paths : list of str
        Folders in which the user's own modules are looked for.
    """

    #: Jobs may wait in the queue for days.
    patience = math.inf

    def __init__(
        self,
        launcher: Launcher,
        order: NodeOrder,
        private: Path,
        nodes: tuple[int, int],
        paths: list[str],
    ) -> None:
        least, most = nodes
        super().__init__(Path(order.logs), most * order.workers)
        self._per_node = order.workers
        self._unexplained: dict[str, _Unexplained] = {}
        self._dismissed: set[tuple[str, int]] = set()
        #: Workers killed for memory, by their agents, and why: their losses follow, or came before.
        self._memory: dict[str, str] = {}
        #: What nodes' agents said of their end, and when it was found.
        self._farewells: dict[str, tuple[tuple[str, str], float]] = {}
        try:
            folder, security = make_private(private, uuid.uuid4().hex[:12])
            self._open.callback(remove_private, folder)
            self._folder = folder
            self._keeper = Keeper(
                launcher,
                self._command,
                self._events.put,
                self._end_of,
                self._explain,
                least,
                most,
            )
            setup = WorkerSetup(order.logs, (order.memory_gb or 0.0) * 2**30, paths, {})
            where = own_address(order.interface)
            self._listen(where, security, dask_settings(order.threads, fork=False), setup)
            scheduler = self._cluster.scheduler
            scheduler.handlers[WANTED] = self._wanted
            # Closed first, while agents can still be told to leave.
            self._open.callback(lambda: self._keeper.close(self._remains(NODES_BY)))
            self._order = dataclasses.replace(order, scheduler=scheduler.address).write(folder)
            self._keeper.start()
        except BaseException:
            self.close()
            raise

    def dismiss(self, worker: str, pid: int) -> None:
        """Say that a worker gets no more work; a node all of whose workers are dismissed goes."""
        with self._lock:
            if self._was_the_last(worker, pid):
                self._keeper.release(node_of(worker), over=True)

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        """Say that a worker cannot work; a node none of whose workers can goes, for another."""
        with self._lock:
            if self._was_the_last(worker, pid):
                self._keeper.refuse(node_of(worker), self._host_of(worker), why, for_good)

    def _was_the_last(self, worker: str, pid: int) -> bool:
        """Take note that a worker gets no more work; say whether all of its node are so far."""
        self._dismissed.add((worker, pid))
        node = node_of(worker)
        mates = [(name, pid) for name, (_, pid) in self._current.items() if node_of(name) == node]
        return all(mate in self._dismissed for mate in mates)

    def want(self, tasks: int) -> None:
        """Say how many tasks there are; nodes for which there is no work are let go.

        Those that wait in the queue go first, then those all of whose workers are idle.
        """
        self._keeper.want(nodes_for(tasks, self._per_node))
        surplus = self._keeper.surplus
        if surplus <= 0:
            return
        surplus -= self._keeper.spare(surplus)
        with self._lock:
            busy = {node_of(name) for name, _ in self._busy}
            idle = dict.fromkeys(node_of(name) for name in self._current)
            for node in [node for node in idle if node not in busy][: max(0, surplus)]:
                self._keeper.release(node)
                for name, (address, pid) in list(self._current.items()):
                    if node_of(name) == node:
                        del self._current[name], self._names[address]
                        where, why = self._host_of(name), ("cancelled", _LET_GO)
                        super()._tell(WorkerLost(name, where, pid, *why, None, let_go=True))

    def _command(self, node: str) -> Sequence[str]:
        return node_command(self._order, node)

    async def _wanted(self, node: str, memory: Mapping[str, str]) -> bool:
        with self._lock:
            self._memory |= memory
            for name in memory.keys() & self._unexplained.keys():
                self._explained(name, self._unexplained[name], *KILLED)
        return self._keeper.beat(node)

    def _host_of(self, worker: str) -> str:
        return worker.rsplit("-", 2)[0]

    def _tell(self, event: Event) -> None:
        """Pass an event on, unless what happened to its worker before is not clear yet."""
        match event:
            case WorkerReady(worker=name):
                self._keeper.ready(node_of(name))
                if (before := self._unexplained.get(name)) is not None:
                    # Its node started it again: it was the process alone, unless the node's agent
                    # said farewell. Then its job was requeued, and came to the same node.
                    said = self._farewell(node_of(name))
                    self._explained(name, before, *(said or KILLED))
            case WorkerLost(worker=name) if (event.failure, event.reason) == KILLED:
                node = node_of(name)
                if self._keeper.leaves(node):
                    event = dataclasses.replace(event, failure="cancelled", reason=_LET_GO)
                else:
                    self._keeper.look()
                    since = _Unexplained(event, time.monotonic(), self._keeper.beats(node))
                    self._unexplained[name] = since
                    return
            case Finished(worker=name):
                self._keeper.works(node_of(name))
            case _:
                pass
        super()._tell(event)

    def _explain(self) -> None:
        """Find out why workers were lost without a word; forget those whose nodes are gone."""
        with self._lock:
            nodes = {node_of(name) for name in self._unexplained}
        for node in nodes:
            # A file system may take its time, during which Dask must not wait for the lock.
            self._farewell(node)
        with self._lock:
            for name, lost in list(self._unexplained.items()):
                node = node_of(name)
                said, end = self._known_farewell(node), self._keeper.end_of(node)
                silent = time.monotonic() - lost.since > _EXPLAINED_SECONDS
                alive = self._keeper.beats(node) >= lost.beats + _BEATS
                # Told to end is all that an agent knows; its scheduler knows why, unless the agent
                # is there again, because its job was requeued.
                if said is not None and (said[0] != "cancelled" or silent or alive):
                    self._explained(name, lost, *said)
                elif end is not None:
                    self._explained(name, lost, end.failure or "cancelled", end.reason)
                elif alive:
                    self._explained(name, lost, *KILLED)
                elif silent:
                    # Schedulers take minutes to call a node dead.
                    self._explained(name, lost, "node-failure", _SILENT)
            stale = [
                address
                for address, (name, _) in self._names.items()
                if self._keeper.end_of(node_of(name)) is not None
            ]
        for address in stale:
            # Its node is no more; the network may take minutes to tell.
            self._client.loop.add_callback(self._forget, address)

    def _farewell(self, node: str) -> tuple[str, str] | None:
        """Return what a node's agent said of its end, where it said so of late."""
        found = farewell(farewell_of_node(self._folder, node))
        if found != KILLED:
            self._farewells[node] = found, time.monotonic()
        return self._known_farewell(node)

    def _known_farewell(self, node: str) -> tuple[str, str] | None:
        said, when = self._farewells.get(node, (None, -math.inf))
        return said if time.monotonic() - when < _FAREWELL_SECONDS else None

    def _end_of(self, node: str, end: Ended) -> Ended:
        """Return how a node ended: its agent knows more than that it is gone, or failed."""
        said = self._farewell(node)
        asked = end.failure in ("", "killed") or not end.known
        return Ended(*said) if said is not None and asked else end

    def _explained(self, name: str, lost: _Unexplained, failure: str, reason: str) -> None:
        del self._unexplained[name]
        if (failure, reason) == KILLED and (memory := self._memory.pop(name, "")):
            failure, reason = OUT_OF_MEMORY, memory
        super()._tell(dataclasses.replace(lost.loss, failure=failure, reason=reason))

    async def _forget(self, address: str) -> None:
        scheduler: Any = self._cluster.scheduler
        if address in scheduler.workers:
            await scheduler.remove_worker(address, stimulus_id="node-gone", safe=True)


def node_command(order: Path, node: str) -> list[str]:
    """Return the command of a node's agent.

    Parameters
    ----------
    order : Path
        The file that `NodeOrder.write` wrote.
    node : str
        Number of the node.
    """
    return [sys.executable, "-m", "stormsweep.cluster.node", str(order), node]
