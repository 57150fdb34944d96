"""What a cluster has, as sinfo says it, and whether a site fits into it: pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stormsweep.config.sites import Site
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import nearest

#: One line for each node of each partition; `read_partitions` understands it.
SINFO = ["sinfo", "--all", "--noheader", "--Node", "--format=%P|%a|%l|%s|%N|%c %z|%m|%T|%f|%G"]
#: States of a partition in which sbatch queues a job for it.
_TAKES_JOBS = ("up", "down")
_DOWN = ("down", "drain", "fail", "maint", "unknown", "inval", "future")


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a partition.

    Attributes
    ----------
    name : str
    cpus : int
        Processors as Slurm counts them: cores, or threads of cores.
    memory_gb : float
        In GiB.
    usable : bool
        False while it is down or drained.
    features : frozenset of str
    gres : dict
        Generic resources by name, such as ``{"gpu": 4, "gpu:v100": 4}``.
    threads : int
        How many processors Slurm counts for a core.
    """

    name: str
    cpus: int
    memory_gb: float
    usable: bool = True
    features: frozenset[str] = frozenset()
    gres: Mapping[str, int] = field(default_factory=dict)
    threads: int = 1

    def cores(self, site: Site) -> int:
        """Return how many cores a site's job may have, as the site counts them."""
        return self.cpus if site.hyperthreads else self.cpus // self.threads


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of the cluster.

    Attributes
    ----------
    name : str
    default : bool
        Whether jobs that name none go there.
    state : str
        As sinfo says it: ``up``, ``down`` (jobs are taken, and wait), ``drain``, ``inactive``.
    longest : int or None
        Seconds that a job may ask for; None: no limit.
    most_nodes : int or None
        Nodes that a job may ask for; None: no limit.
    nodes : tuple of Node
    """

    name: str
    default: bool
    state: str
    longest: int | None
    most_nodes: int | None
    nodes: tuple[Node, ...]


def read_partitions(out: str) -> dict[str, Partition]:
    """Read what `SINFO` prints.

    Raises
    ------
    ValueError
        If a line is none of its own.
    """
    found: dict[str, Partition] = {}
    for line in out.splitlines():
        if not line.strip():
            continue
        parts = line.strip().split("|")
        if len(parts) != 10 or not parts[0]:
            raise ValueError(f"{line!r} is not about a node")
        try:
            name, default = parts[0].removesuffix("*"), parts[0].endswith("*")
            limit, most = read_time(parts[2]), parts[3].rpartition("-")[2]
            cpus, _, sockets_cores_threads = parts[5].partition(" ")
            node = Node(
                parts[4],
                int(cpus.rstrip("+")),
                int(parts[6].rstrip("+")) / 1024,
                not any(word in parts[7].lower() for word in _DOWN) and not parts[7].endswith("*"),
                frozenset(parts[8].split(",")) - {"(null)"},
                read_gres(parts[9]),
                _threads(int(cpus.rstrip("+")), sockets_cores_threads),
            )
        except ValueError:
            raise ValueError(f"{line!r} is not about a node") from None
        nodes = (*(found[name].nodes if name in found else ()), node)
        most_nodes = int(most) if most.isdigit() else None
        found[name] = Partition(name, default, parts[1], limit, most_nodes, nodes)
    if not found:
        raise ValueError("it names no partition")
    return found


def _threads(cpus: int, sockets_cores_threads: str) -> int:
    """Return how many processors a core counts for; 1 where sites configure one for each core."""
    parts = [part.rstrip("+") for part in sockets_cores_threads.split(":")]
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return 1
    return max(1, cpus // max(1, int(parts[0]) * int(parts[1])))


def read_gres(text: str) -> dict[str, int]:
    """Read generic resources as sinfo says them or a job asks for them.

    Examples
    --------
    >>> read_gres("gpu:v100:4(S:0-1),nvme:1")
    {'gpu': 4, 'gpu:v100': 4, 'nvme': 1}
    """
    counts: Counter[str] = Counter()
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = part.strip().split(":")
        if not name:
            continue
        count = re.fullmatch(r"([0-9]+)([KM]?)", rest[-1]) if rest else None
        number = int(count[1]) * {"": 1, "K": 2**10, "M": 2**20}[count[2]] if count else 1
        kind = [one for one in (rest[:-1] if count else rest) if one != "no_consume"]
        counts[name] += number
        if kind:
            counts[f"{name}:{kind[0]}"] += number
    return dict(counts)


def read_time(text: str) -> int | None:
    """Read a length of time as Slurm prints it, in seconds; None: no limit.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> read_time("30:00"), read_time("1-00:00:00"), read_time("UNLIMITED")
    (1800, 86400, None)
    """
    if text in ("infinite", "UNLIMITED", "n/a"):
        return None
    # sinfo leaves out what is 0 in front: "30:00" is half an hour.
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    seconds = sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))
    return int(days or 0) * 86400 + seconds


def clock(seconds: int) -> str:
    """Write a walltime as Slurm does.

    Examples
    --------
    >>> clock(10800), clock(86400)
    ('03:00:00', '1-00:00:00')
    """
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def misfit(site: Site, partitions: Mapping[str, Partition]) -> tuple[str, str] | None:
    """Say what a site asks for that its cluster does not have.

    Parameters
    ----------
    site : Site
    partitions : mapping
        What `stormsweep.cluster.slurm.Slurm.partitions` says.

    Returns
    -------
    tuple or None
        The key, and what was given and what is there; None: it fits. Nodes that are down count as
        there, and so does a partition that takes jobs while it is down: they come back. Limits of
        the partition that a QOS may lift are left to Slurm where the site names a QOS.
    """
    partition = partition_of(site, partitions)
    if partition is None:
        names = ", ".join(sorted(partitions))
        if site.partition is None:
            return "partition", f"is not set, and the cluster has no default; it has {names}"
        near = nearest(site.partition, partitions)
        return "partition", f"given {site.partition!r}{near}; the cluster has {names}"
    if partition.state not in _TAKES_JOBS:
        return "partition", f"given {partition.name!r}, which takes no jobs: {partition.state}"
    longest = partition.longest if site.qos is None else None
    if site.walltime and longest is not None and walltime_seconds(site.walltime) > longest:
        return "walltime", (
            f"given {site.walltime}; partition {partition.name!r} allows at most {clock(longest)}"
        )
    return _nodes_misfit(site, partition)


def partition_of(site: Site, partitions: Mapping[str, Partition]) -> Partition | None:
    """Return the partition that a site's jobs go to, if there is one."""
    if site.partition is None:
        return next((one for one in partitions.values() if one.default), None)
    return partitions.get(site.partition)


def suitable(site: Site, partition: Partition) -> list[Node]:
    """Return the nodes of a partition on which a site's job could run, up or not.

    Constraints that are more than a list of features are left to sbatch.
    """
    return [node for node in _with_features(site, partition.nodes) if _large_enough(site, node)]


def most_nodes(site: Site, partition: Partition) -> int:
    """Return how many nodes of a partition a site's job may ask for, up or not."""
    fit = len(suitable(site, partition))
    return fit if partition.most_nodes is None else min(fit, partition.most_nodes)


def away(site: Site, partition: Partition) -> str:
    """Say what is out of service that a site's job waits for; empty: nothing.

    The partition, or nodes that are down or drained. `sbatch --test-only` refuses such a job or
    says when it would start otherwise, and `sbatch` queues it.
    """
    if partition.state != "up":
        return f"partition {partition.name!r} is {partition.state}"
    nodes = suitable(site, partition)
    gone = [node.name for node in nodes if not node.usable]
    if len(nodes) - len(gone) >= site.nodes:
        return ""
    names = ", ".join(gone[:3]) + (" ..." if len(gone) > 3 else "")
    return f"{len(gone)} of the {len(nodes)} nodes that fit are down or drained ({names})"


def _nodes_misfit(site: Site, partition: Partition) -> tuple[str, str] | None:
    where = f"of partition {partition.name!r}"
    featured = _with_features(site, partition.nodes)
    if not featured:
        features = sorted(frozenset().union(*(node.features for node in partition.nodes)))
        has = f"they have {', '.join(features)}" if features else "they have no features"
        return "constraint", f"given {site.constraint!r}, which no node {where} has; {has}"
    asked = read_gres(site.gres or "")
    for name, count in asked.items():
        most = max(node.gres.get(name, 0) for node in featured)
        if count > most:
            has = f"the largest has {most}" if most else "none has any"
            return "gres", f"given {site.gres!r}; of the nodes {where} {has}"
    memory = site.memory_gb
    most_memory = max(node.memory_gb for node in featured)
    if memory is not None and memory != "all" and memory > most_memory:
        return "memory_gb", f"given {memory:g}; the largest node {where} has {_floor(most_memory)}"
    largest = max(featured, key=lambda node: node.cores(site))
    if site.cores > largest.cores(site):
        two = f" ({largest.cpus} with hyperthreads = true)" if largest.threads > 1 else ""
        return "workers_per_node", (
            f"given {site.workers_per_node} x {site.threads_per_worker} threads = {site.cores}; "
            f"the largest node {where} has {largest.cores(site)}{'' if site.hyperthreads else two}"
        )
    fit = len(suitable(site, partition))
    limit = most_nodes(site, partition) if site.qos is None else fit
    if site.nodes > limit:
        why = "has" if limit == fit else "allows a job"
        return "nodes", (
            f"given {site.nodes}; partition {partition.name!r} {why} {limit} "
            f"that {'fits' if limit == 1 else 'fit'}"
        )
    return None


def _with_features(site: Site, nodes: Iterable[Node]) -> list[Node]:
    constraint = site.constraint or ""
    if re.search(r"[|*,()\[\]]", constraint):
        return list(nodes)
    wanted = set(constraint.split("&")) - {""}
    return [node for node in nodes if wanted <= node.features]


def _large_enough(site: Site, node: Node) -> bool:
    memory = 0.0 if site.memory_gb in (None, "all") else float(site.memory_gb or 0)
    gres = read_gres(site.gres or "")
    return (
        site.cores <= node.cores(site)
        and memory <= node.memory_gb
        and all(node.gres.get(name, 0) >= count for name, count in gres.items())
    )


def _floor(gib: float) -> str:
    """Write GiB to two places, not rounded up: what is said to be there may be asked for."""
    return f"{int(gib * 100) / 100:g}"
