"""Layouts to measure: workers x threads per worker x nodes, and where the threads lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stormsweep.errors import UserError
from stormsweep.wording import counted

#: Where the threads of a worker may lie: on cores of one socket where possible, on cores of all
#: sockets alike, or where the system puts them.
PINS = ("within", "across", "none")


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """Workers x threads per worker (x nodes), and where the threads lie.

    Attributes
    ----------
    workers, threads : int
        Workers on all nodes, and compute threads of each.
    nodes : int
        Nodes; 1 on this machine.
    pin : str
        One of `PINS`.
    """

    workers: int
    threads: int
    nodes: int = 1
    pin: str = "within"

    @property
    def cores(self) -> int:
        """Cores that it computes on."""
        return self.workers * self.threads

    @property
    def name(self) -> str:
        """What it is called in names of folders.

        Examples
        --------
        >>> Layout(2, 1).name, Layout(8, 4, nodes=2, pin="across").name
        ('2x1', '8x4-on-2-across')
        """
        nodes = f"-on-{self.nodes}" if self.nodes > 1 else ""
        return f"{self.workers}x{self.threads}{nodes}" + (
            "" if self.pin == "within" else f"-{'unpinned' if self.pin == 'none' else self.pin}"
        )

    def __str__(self) -> str:
        """Say it in words.

        Examples
        --------
        >>> str(Layout(2, 1)), str(Layout(8, 4, nodes=2, pin="across"))
        ('2 workers x 1 thread', '8 workers x 4 threads on 2 nodes, across sockets')
        """
        told = f"{counted(self.workers, 'worker')} x {counted(self.threads, 'thread')}"
        told += f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return told + {"across": ", across sockets", "none": ", not pinned"}.get(self.pin, "")


@dataclass(frozen=True, slots=True)
class Node:
    """What a layout has to fit on.

    Attributes
    ----------
    what : str
        How messages call it: ``this machine``, or ``a node of site fast``.
    cores, sockets : int
        Of one.
    workers : int
        Most workers of one, where each needs a GPU to itself; 0: as many as cores.
    several : bool
        Whether there can be more than one.
    """

    what: str
    cores: int
    sockets: int = 1
    workers: int = 0
    several: bool = False

    def holds(self, threads: int) -> int:
        """Return how many workers of so many threads one node holds."""
        return min(self.cores // threads, self.workers or self.cores)


def layouts(
    workers: Sequence[int],
    threads: Sequence[int],
    pins: Sequence[str],
    node: Node,
    nodes: Sequence[int] = (),
) -> tuple[list[Layout], list[str]]:
    """Return the layouts to measure, one worker of one thread first, and what is left out.

    Parameters
    ----------
    workers, threads : sequence of int
        Every number of workers goes with every number of threads.
    pins : sequence of str
        Of `PINS`; empty: within a socket, and on nodes with several sockets the others too, where
        workers have several threads.
    node : Node
        What there is.
    nodes : sequence of int
        Numbers of whole nodes, in place of `workers`.

    Raises
    ------
    UserError
        If a number is too large whatever it goes with, or there is one socket only and workers are
        to lie across several.
    """
    if "across" in pins and node.sockets < 2:
        raise UserError(
            f"--pin: given 'across'; {node.what} has one socket, so that no worker can lie across "
            "two"
        )
    fitting: list[Layout] = []
    left_out: list[str] = []
    counts = [(count, True) for count in nodes] or [(count, False) for count in workers]
    for count in threads:
        if node.holds(count) < 1:
            raise UserError(f"--threads: given {count}; {_has(node)}")
    for number, whole in counts:
        found = [_layout(number, count, whole, node) for count in threads]
        if all(isinstance(one, str) for one in found):
            raise UserError(f"--{'nodes' if whole else 'workers'}: {found[0]}")
        fitting += [one for one in found if isinstance(one, Layout)]
        left_out += [one for one in found if isinstance(one, str)]
    kept = dict.fromkeys(replace(one, pin=pin) for one in fitting for pin in _pins(one, pins, node))
    baseline = Layout(1, 1, pin=pins[0] if pins and pins[0] != "across" else "within")
    return [baseline, *sorted(kept.keys() - {baseline})], left_out


def _layout(number: int, threads: int, whole: bool, node: Node) -> Layout | str:
    """Return a layout, or in a few words why it cannot be."""
    holds = node.holds(threads)
    if whole:
        return Layout(number * holds, threads, number)
    what = f"{counted(number, 'worker')} x {counted(threads, 'thread')}"
    if number <= holds:
        return Layout(number, threads)
    if not node.several:
        return f"{what} is wider than the machine; {_has(node)}"
    count = math.ceil(number / holds)
    if number % count:
        return (
            f"{what}: {node.what} holds {holds}, and {number} cannot be shared evenly among {count}"
        )
    return Layout(number, threads, count)


def _pins(layout: Layout, pins: Sequence[str], node: Node) -> list[str]:
    asked = list(pins) or (list(PINS) if node.sockets > 1 and layout.threads > 1 else ["within"])
    # A single thread lies on one core, wherever that is.
    kept = [pin for pin in asked if pin != "across" or layout.threads > 1]
    return kept or ["within"]


def _has(node: Node) -> str:
    if node.workers:
        return f"{node.what} has {node.cores} cores and {counted(node.workers, 'GPU')}"
    return f"{node.what} has {counted(node.cores, 'core')}"
