"""Keeps as many nodes as are wanted: asks for them, sees what became of them, asks again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stormsweep.cluster.pool import END_SECONDS, NO_FAULT, NodeChanged, NodesOver, PoolBroken
from stormsweep.errors import SchedulerError, UserError

log = logging.getLogger(__name__)

#: How often is looked after the nodes, in seconds.
_TICK_SECONDS = 0.5
#: Nodes in a row that end before a worker of theirs did anything, and then no more are asked for;
#: so many at least where none can work.
_MOST_FAILURES = 4
#: Ends that are not counted: the next node may have more luck. A walltime in which no worker gets
#: ready would be as short the next time.
_PASSES = NO_FAULT - {"walltime"}
#: Seconds before a node is asked for again after one that failed: at first, and at most.
_PAUSE_SECONDS = (2.0, 120.0)
#: How long a node that was told to leave may take before it is stopped, in seconds.
_GRACE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a node ended.

    Attributes
    ----------
    failure : str
        As in `pool.WorkerLost`; empty: it left by itself.
    reason : str
        One line.
    seconds : float
        How long it was ours, as its scheduler says; 0: it does not say.
    known : bool
        Whether anybody says that it ended so. False: its scheduler does not know it any more, which
        is nobody's fault where it had work, and may be that of its site where it had none.
    """

    failure: str = ""
    reason: str = "left"
    seconds: float = 0.0
    known: bool = True


class Launcher(Protocol):
    """What makes nodes of jobs or steps. Everything may raise `SchedulerError`."""

    renews: bool
    """Whether a node that ended is followed by one with new time; steps of a job have the job's."""

    def start(self, name: str, command: Sequence[str]) -> str:
        """Start a node's agent; return in words what it is, such as ``job 17``."""

    def ended(self) -> Mapping[str, Ended]:
        """Return the nodes that ended since the last call, by name."""

    def granted(self) -> Mapping[str, float]:
        """Return the nodes that became ours since the last call: by name, seconds ago."""

    def stop(self, names: Collection[str]) -> None:
        """Stop nodes, without waiting."""

    def look(self) -> None:
        """Something happened: look at the next call, whenever that was due."""

    def avoid(self, host: str, for_good: bool = False) -> None:
        """Start no more nodes on a machine: where others can be had, or `for_good` never."""

    def places(self) -> int:
        """Return how many nodes there may be at a time."""

    def free(self) -> int:
        """Return how many could be started now."""

    def close(self) -> None:
        """Stop all nodes, and wait until they are gone as far as that can be known soon."""


@dataclass(slots=True)
class _Node:
    what: str
    #: Whether a worker of it joined, and whether one did what it was asked.
    ready: bool = False
    works: bool = False
    #: Beats that its agent gave, and when it was told to leave, and stopped.
    beats: int = 0
    leaving: float | None = None
    stopped: float = -math.inf


class Keeper:
    """Looks after the nodes of a pool, in a thread of its own.

    Parameters
    ----------
    launcher : Launcher
        Starts and stops them.
    command : callable
        Makes the command of a node's agent from the node's name.
    tell : callable
        Given what happens.
    explained : callable
        Given a node's name and how its launcher says that it ended; returns what its agent said.
    ticked : callable
        Called at each look, after what ended is known.
    least, most : int
        How many nodes there are, whatever there is to do, and how many at most.
    """

    def __init__(
        self,
        launcher: Launcher,
        command: Callable[[str], Sequence[str]],
        tell: Callable[[NodeChanged | NodesOver | PoolBroken], None],
        explained: Callable[[str, Ended], Ended],
        ticked: Callable[[], None],
        least: int,
        most: int,
    ) -> None:
        self._launcher, self._command, self._tell = launcher, command, tell
        self._explained, self._ticked = explained, ticked
        self._least, self._most = least, most
        self._wanted = most
        self._nodes: dict[str, _Node] = {}
        self._ended: dict[str, Ended] = {}
        self._number = 0
        #: Nodes in a row that ended before work by a fault, and what came to nothing otherwise too.
        self._failures = self._misses = 0
        #: What nodes say, each of its own, that the job has too few GPUs there.
        self._blind: set[str] = set()
        #: How many nodes had been asked for when one was last counted whose end nobody knows.
        self._forgotten = 0
        self._next = 0.0
        self._broken: NodesOver | PoolBroken | None = None
        self._told = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="keeper", daemon=True)
        self._asking: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, within: float = END_SECONDS) -> None:
        """Stop all nodes, and wait `within` seconds; they leave by themselves without a driver."""
        self._stop.set()
        closing = threading.Thread(target=self._close, name="keeper closing", daemon=True)
        closing.start()
        closing.join(within)
        if closing.is_alive():
            log.warning("nodes are not seen to end; they leave by themselves")

    def _close(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        if self._asking is not None:
            # What it submits is known then, and cancelled.
            self._asking.join()
        try:
            self._launcher.close()
        except SchedulerError as error:
            # Nodes leave by themselves when they find that the driver is gone.
            log.warning("nodes could not be stopped: %s", error)

    def want(self, nodes: int) -> None:
        """Say how many nodes are of use."""
        self._wanted = max(self._least, min(self._most, nodes))

    @property
    def surplus(self) -> int:
        """How many nodes there are more than are of use."""
        with self._lock:
            staying = sum(node.leaving is None for node in self._nodes.values())
        return staying - self._wanted

    def beat(self, name: str) -> bool:
        """Take a sign of life of a node's agent; return whether the node is still wanted."""
        with self._lock:
            node = self._nodes.get(name)
            if node is None or self._stop.is_set():
                return False
            node.beats += 1
            if node.beats == 1:
                # It runs: what the scheduler says of that is worth knowing.
                self._launcher.look()
            return node.leaving is None

    def beats(self, name: str) -> int:
        """Return how many signs of life a node's agent gave."""
        with self._lock:
            node = self._nodes.get(name)
            return 0 if node is None else node.beats

    def ready(self, name: str) -> None:
        """Say that a worker of a node is ready."""
        with self._lock:
            if (node := self._nodes.get(name)) is not None:
                node.ready = True

    def works(self, name: str) -> None:
        """Say that a worker of a node did what it was asked: nodes are of use."""
        with self._lock:
            node = self._nodes.get(name)
            if node is not None and not node.works:
                node.works = True
                self._failures = self._misses = 0

    def release(self, name: str, over: bool = False) -> None:
        """Let a node go: at its agent's next sign of life it is told so.

        Parameters
        ----------
        name : str
            The node.
        over : bool
            Whether its time is over: where there is no other time to be had, none takes its place.
        """
        with self._lock:
            node = self._nodes.get(name)
            if node is None or node.leaving is not None:
                return
            node.leaving = time.monotonic()
            if over and not self._launcher.renews:
                self._most -= 1
                self._least = min(self._least, self._most)
                self._wanted = min(self._wanted, self._most)
                if self._most == 0:
                    self._broken = self._broken or NodesOver()

    def refuse(self, name: str, host: str, why: str, for_good: bool = False) -> None:
        """Let a node go on which no worker can work, and ask for another, as where one failed.

        Parameters
        ----------
        name, host : str
            The node, and which machine it is: that is not to be the next one, if there are others.
        why : str
            What is wrong with it, in one line.
        for_good : bool
            Whether that does not pass, as long as this keeper lives.
        """
        # First: another is asked for as soon as this one leaves.
        self._launcher.avoid(host, for_good)
        with self._lock:
            node = self._nodes.get(name)
            if node is None or node.leaving is not None:
                return
            node.leaving, node.ready, node.works = time.monotonic(), False, False
        # What else was asked for may still come, and have what this one lacks.
        self._failed(int(name), why, Ended("unfit", why), max(_MOST_FAILURES, self._wanted))

    def spare(self, most: int) -> int:
        """Let nodes go that are not ready yet, the newest first; return how many were."""
        with self._lock:
            waiting = [n for n in self._nodes.values() if not n.ready and n.leaving is None]
            chosen = waiting[::-1][:most]
            for node in chosen:
                # There is nobody yet who could be told.
                node.leaving = -math.inf
        return len(chosen)

    def leaves(self, name: str) -> bool:
        """Say whether a node was let go."""
        with self._lock:
            node = self._nodes.get(name)
            return node is not None and node.leaving is not None

    def end_of(self, name: str) -> Ended | None:
        """Return how a node ended, as far as that is known."""
        return self._ended.get(name)

    def look(self) -> None:
        """Something happened to a node: find out what."""
        self._launcher.look()

    def _live(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            try:
                self._look_after()
            except SchedulerError as error:
                # The scheduler is away, say: that passes, and meanwhile the nodes go on.
                log.warning("%s", error)
            except Exception:
                log.exception("the keeper of the nodes")
            try:
                self._ticked()
            except Exception:
                log.exception("what became of the workers")
            if self._broken is not None and not self._told:
                # After what became of the workers: nothing follows it.
                self._told = True
                self._tell(self._broken)

    def _look_after(self) -> None:
        ended = self._launcher.ended()
        for name, seconds in self._launcher.granted().items():
            self._tell(NodeChanged(name, "granted", when=time.time() - seconds))
        for name, end in ended.items():
            self._gone(name, end)
        now = time.monotonic()
        with self._lock:
            late = [
                name
                for name, node in self._nodes.items()
                if node.leaving is not None
                and now - node.leaving > _GRACE_SECONDS
                and now - node.stopped > _GRACE_SECONDS
            ]
            for name in late:
                self._nodes[name].stopped = now
        if late:
            self._launcher.stop(late)
        if not self._launcher.places() and not self._nodes:
            self._broken = self._broken or PoolBroken("no node of the job is left")
        if self._asks() and not (self._asking and self._asking.is_alive()):
            # Beside this thread: an sbatch may hang for minutes, in which nodes end and workers
            # are lost whose tasks others could have.
            self._asking = threading.Thread(target=self._ask_for_all, name="asking", daemon=True)
            self._asking.start()

    def _asks(self) -> bool:
        """Whether a node is to be asked for now."""
        if self._broken or self._stop.is_set() or time.monotonic() < self._next:
            return False
        with self._lock:
            missing = self._wanted - sum(node.leaving is None for node in self._nodes.values())
        return missing > 0 and self._launcher.free() > 0

    def _ask_for_all(self) -> None:
        try:
            while self._asks():
                self._ask()
        except Exception:
            log.exception("the keeper of the nodes")

    def _ask(self) -> None:
        self._number += 1
        name = str(self._number)
        with self._lock:
            # Known before it can give a sign of life.
            self._nodes[name] = _Node("")
        what, trouble = "", None
        try:
            what = self._launcher.start(name, self._command(name))
        except (SchedulerError, UserError) as error:
            trouble = error
        finally:
            if not what:
                with self._lock:
                    del self._nodes[name]
        if trouble is not None:
            self._not_started(trouble)
            return
        log.info("node %s is %s", name, what)
        self._tell(NodeChanged(name, "asked", detail=what))
        with self._lock:
            # It may have ended by now.
            if name in self._nodes:
                self._nodes[name].what = what

    def _gone(self, name: str, end: Ended) -> None:
        with self._lock:
            node = self._nodes.pop(name, None)
        if node is None:
            return
        end = replace(self._explained(name, end), seconds=end.seconds)
        self._ended[name] = end
        log.info("node %s (%s) ended: %s", name, node.what, end.reason)
        detail = f"{node.what}: {end.reason}"
        self._tell(NodeChanged(name, "ended", end.failure, detail, end.seconds))
        if not node.ready and node.leaving is None:
            self._failed(int(name), detail, end)

    def _not_started(self, trouble: SchedulerError | UserError) -> None:
        """Ask again later, or no more where there is nothing and the scheduler says no."""
        why = " ".join(str(trouble).split())
        self._later(why)
        refused = isinstance(trouble, UserError) or not trouble.passing
        with self._lock:
            there = bool(self._nodes)
        # It may be about how many there are, such as a QOS's limit on submitted jobs.
        if refused and not there:
            self._broken = self._broken or PoolBroken(why)

    def _failed(self, number: int, why: str, end: Ended, most: int = _MOST_FAILURES) -> None:
        """Ask again later for a node that ended before any work, or no more."""
        self._later(why)
        if end.known:
            self._failures += end.failure not in _PASSES
        elif number > self._forgotten:
            # A PBS without history tells no end: nodes that fail would be asked for for ever. All
            # that were asked for by now count once: a slurmctld that is killed forgets them all.
            self._failures += 1
            self._forgotten = self._number
        with self._lock:
            working = any(node.ready for node in self._nodes.values())
            starting = any(node.beats and node.leaving is None for node in self._nodes.values())
        blind = end.failure == "no-gpu"
        if blind:
            self._blind.add(end.reason)
            # A single node of several: those that are just starting tell.
            working = working or (starting and len(self._blind) == 1)
        # While others work there is time: what is wrong may pass.
        if not working and (blind or self._failures >= most):
            self._broken = self._broken or PoolBroken(why)

    def _later(self, why: str) -> None:
        """Ask again, but not at once: the longer, the more often in a row it came to nothing."""
        self._misses += 1
        first, longest = _PAUSE_SECONDS
        self._next = time.monotonic() + min(longest, first * 2 ** min(self._misses - 1, 20))
        log.warning("no node: %s", why)


def nodes_for(tasks: int, workers_per_node: int) -> int:
    """Return how many nodes have work with a number of tasks."""
    return math.ceil(tasks / workers_per_node)
