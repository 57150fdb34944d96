"""Losing these: minutes in which nobody sees that nodes end, because an sbatch hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Mapping, Sequence

from stormsweep.cluster.keeper import Ended, Keeper
from stormsweep.cluster.pool import NodeChanged


class Hanging:
    """A launcher that hangs when it is asked for a second node."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.lost: dict[str, Ended] = {}
        self.stopped = False
        self.room = 9

    def start(self, name: str, command: Sequence[str]) -> str:
        if name == "2":
            self.released.wait(30)
        return f"job {name}"

    def ended(self) -> Mapping[str, Ended]:
        found, self.lost = self.lost, {}
        return found

    def stop(self, names: Collection[str]) -> None: ...

    def look(self) -> None: ...

    def places(self) -> int:
        return self.room

    def close(self) -> None:
        self.stopped = True


def test_the_end_of_a_node_is_told_while_another_is_asked_for() -> None:
    launcher, told = Hanging(), queue.Queue()  # type: ignore[var-annotated]
    ticks = threading.Semaphore(0)
    keeper = Keeper(launcher, lambda node: [node], told.put, ticks.release, 2, 2)
    keeper.start()
    try:
        assert told.get(timeout=10) == NodeChanged("1", "asked", detail="job 1")
        keeper.ready("1")
        launcher.lost = {"1": Ended("killed", "gone")}
        assert told.get(timeout=10) == NodeChanged("1", "ended", "killed", "job 1: gone")
        # What waits for an explanation gets one meanwhile.
        assert ticks.acquire(timeout=10)
        assert not keeper.beat("1")
    finally:
        launcher.released.set()
        keeper.close()
    assert launcher.stopped
    assert told.get(timeout=10) == NodeChanged("2", "asked", detail="job 2")


def test_a_place_is_free_only_once_who_left_it_is_gone() -> None:
    """Else a third step is started in a job of two nodes, and finds none."""
    launcher, told = Hanging(), queue.Queue()  # type: ignore[var-annotated]
    launcher.room = 1
    launcher.released.set()
    ticks = threading.Semaphore(0)
    keeper = Keeper(launcher, lambda node: [node], told.put, ticks.release, 1, 1)
    keeper.start()
    try:
        assert told.get(timeout=10).node == "1"
        keeper.ready("1")
        keeper.release("1")
        for _ in range(10):
            ticks.acquire(blocking=False)
        assert ticks.acquire(timeout=10)
        assert ticks.acquire(timeout=10)
        assert told.empty()
        launcher.lost = {"1": Ended()}
        assert told.get(timeout=10) == NodeChanged("1", "ended", "", "job 1: left")
        assert told.get(timeout=10) == NodeChanged("2", "asked", detail="job 2")
    finally:
        keeper.close()
