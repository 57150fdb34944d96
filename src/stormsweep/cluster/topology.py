"""Which cores a worker gets: whole ones first, of one memory node where that is possible.

Or, to see what that is worth, of all memory nodes alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Where Linux tells about processors and memory nodes.
_SYSTEM = Path("/sys/devices/system")
#: A worker's logical processors, ascending.
Cores = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """How the logical processors of a machine belong together.

    Attributes
    ----------
    node : mapping of int to int
        Logical processor to its memory (NUMA) node; those not named are of node 0.
    core : mapping of int to int
        Logical processor to a number that all hyperthreads of its core share; those not named have
        a core of their own.
    """

    node: Mapping[int, int]
    core: Mapping[int, int]

    def node_of(self, cpu: int) -> int:
        """Return the memory node of a logical processor."""
        return self.node.get(cpu, 0)

    def core_of(self, cpu: int) -> int:
        """Return the number of the core that a logical processor belongs to."""
        return self.core.get(cpu, cpu)

    def cores(self, cpus: Iterable[int]) -> int:
        """Return of how many cores logical processors are."""
        return len({self.core_of(cpu) for cpu in cpus})

    def nodes(self, cpus: Iterable[int]) -> int:
        """Return on how many memory nodes logical processors lie; on most machines, sockets."""
        return len({self.node_of(cpu) for cpu in cpus})


def read_topology(system: Path = _SYSTEM) -> Topology:
    """Read the topology of this machine; what the system does not tell is left out."""
    node = {
        cpu: int(folder.name[4:])
        for folder in system.glob("node/node[0-9]*")
        for cpu in _numbers(folder / "cpulist")
    }
    core = {
        cpu: min(siblings)
        for folder in system.glob("cpu/cpu[0-9]*")
        if (siblings := _numbers(folder / "topology" / "thread_siblings_list"))
        for cpu in siblings
    }
    return Topology(node, core)


def _numbers(path: Path) -> list[int]:
    """Read a list such as ``0-3,8,10-11``."""
    numbers: list[int] = []
    try:
        for part in path.read_text().strip().split(","):
            low, _, high = part.partition("-")
            numbers += range(int(low), int(high or low) + 1)
    except (OSError, ValueError):
        return []
    return numbers


def assign(topology: Topology, allowed: Iterable[int], workers: int, threads: int) -> list[Cores]:
    """Give each worker logical processors of its own.

    Workers are spread evenly over memory nodes, and straddle two only when no node has room for a
    whole one. Within a node every core is taken once before a second hyperthread of any is, and
    hyperthreads of one core go to one worker where the numbers allow.

    Parameters
    ----------
    topology : Topology
        How processors belong together.
    allowed : iterable of int
        Logical processors that may be used.
    workers, threads : int
        Number of workers, and of threads of each.

    Returns
    -------
    list of tuple of int
        One for each worker, disjoint; empty if there are fewer processors than threads.
    """
    cpus = set(allowed)
    if workers * threads > len(cpus):
        return []
    free = dict.fromkeys(sorted({topology.node_of(cpu) for cpu in cpus}), 0)
    for cpu in cpus:
        free[topology.node_of(cpu)] += 1
    whole = dict.fromkeys(free, 0)
    spare = {
        node: len({topology.core_of(cpu) for cpu in cpus if topology.node_of(cpu) == node})
        for node in free
    }
    straddling: list[dict[int, int]] = []
    for _ in range(workers):
        room = [node for node in free if free[node] >= threads]
        if room:
            node = max(room, key=lambda one: (spare[one], free[one], -one))
            whole[node] += 1
            free[node] -= threads
            spare[node] -= threads
            continue
        parts: dict[int, int] = {}
        while (missing := threads - sum(parts.values())) > 0:
            node = max(free, key=lambda one: (free[one], -one))
            parts[node] = min(missing, free[node])
            free[node] -= parts[node]
        straddling.append(parts)
    shares: list[Cores] = []
    rest: dict[int, list[int]] = {}
    for node, count in whole.items():
        inside = [cpu for cpu in cpus if topology.node_of(cpu) == node]
        wanted = count * threads + sum(parts.get(node, 0) for parts in straddling)
        chosen = _chosen(topology, inside, wanted)
        shares += [
            tuple(sorted(chosen[place * threads : (place + 1) * threads])) for place in range(count)
        ]
        rest[node] = chosen[count * threads :]
    for parts in straddling:
        own: list[int] = []
        for node, number in parts.items():
            own += rest[node][:number]
            del rest[node][:number]
        shares.append(tuple(sorted(own)))
    return shares


def assign_across(
    topology: Topology, allowed: Iterable[int], workers: int, threads: int
) -> list[Cores]:
    """Give each worker logical processors of its own, on as many memory nodes as it has threads.

    The opposite of `assign`: what a process gets whose threads the system spreads over sockets.
    Cores are taken before second hyperthreads here too.

    Parameters
    ----------
    topology, allowed, workers, threads
        As of `assign`.

    Returns
    -------
    list of tuple of int
        One for each worker, disjoint; empty if there are fewer processors than threads.
    """
    cpus = set(allowed)
    if workers * threads > len(cpus):
        return []
    nodes = sorted({topology.node_of(cpu) for cpu in cpus})
    inside = [[cpu for cpu in cpus if topology.node_of(cpu) == node] for node in nodes]
    # By turns, as far as a node has any: then every stretch of that list is spread over nodes.
    wanted, turn = [0] * len(nodes), 0
    while sum(wanted) < workers * threads:
        place = turn % len(nodes)
        wanted[place] += wanted[place] < len(inside[place])
        turn += 1
    rest = [_chosen(topology, cpus, count) for cpus, count in zip(inside, wanted, strict=True)]
    dealt: list[int] = []
    for turn in range(max(wanted)):
        dealt += [own[turn] for own in rest if turn < len(own)]
    return [
        tuple(sorted(dealt[place * threads : (place + 1) * threads])) for place in range(workers)
    ]


def _chosen(topology: Topology, cpus: Iterable[int], count: int) -> list[int]:
    """Choose logical processors of one node, those of one core next to each other.

    Cores of which more hyperthreads are needed come last, so that pairs are not cut apart.
    """
    cores: dict[int, list[int]] = {}
    for cpu in sorted(cpus):
        cores.setdefault(topology.core_of(cpu), []).append(cpu)
    taken = dict.fromkeys(cores, 0)
    level = 0
    while count:
        level += 1
        for core in reversed(cores) if level > 1 else cores:
            if count and len(cores[core]) >= level:
                taken[core] += 1
                count -= 1
    order = sorted(cores, key=lambda core: (taken[core], cores[core][0]))
    return [cpu for core in order for cpu in cores[core][: taken[core]]]


def pins(
    pin: bool | Literal["auto", "across"], workers: int, threads: int, whole_cores: bool = False
) -> list[Cores]:
    """Return the cores that local workers are pinned to; none where they are left to the system.

    Parameters
    ----------
    pin : bool, "auto" or "across"
        ``[site] pin``. ``"auto"`` pins a study that fills all the cores it may use: two smaller
        ones at a time would else both sit on the same cores while others are idle. ``"across"``
        spreads each worker over the memory nodes, see `assign_across`.
    workers, threads : int
        The layout.
    whole_cores : bool
        Whether a study fills its cores with one thread of each: a job's that has no others.
    """
    from stormsweep.cluster import machine

    if pin is False or not hasattr(os, "sched_setaffinity"):
        return []
    cpus, topology = machine.allowed(), read_topology()
    full = {len(cpus), topology.cores(cpus)} if whole_cores else {len(cpus)}
    if pin == "auto" and workers * threads not in full:
        return []
    share = assign_across if pin == "across" else assign
    return share(topology, cpus, workers, threads)


def pin_process(cores: Cores) -> None:
    """Keep this process, and all threads it has or will start, on some logical processors.

    Memory follows: Linux takes a page from the node of the processor that first touches it.

    Raises
    ------
    OSError
        If the system does not allow it.
    """
    global _pinned
    for thread in Path("/proc/self/task").iterdir():
        # It may have ended since it was listed.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
    _pinned = cores


#: What this process is pinned to.
_pinned: Cores = ()


def pinned() -> Cores:
    """Return the logical processors that this process was pinned to; empty: it was not."""
    return _pinned
