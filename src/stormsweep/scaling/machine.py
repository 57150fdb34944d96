"""What a simulated study runs on: nodes with their workers, what they cost, how long they last."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from stormsweep.config.sites import Site
from stormsweep.config.walltimes import margin, walltime_seconds

#: Normal quantile of 0.9: one wait in ten is longer than ``median * exp(TENTH * spread)``.
TENTH = 1.2816


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a job waits in the queue: lognormal, as waits are.

    Attributes
    ----------
    median : float
        Seconds; half of the jobs wait longer.
    spread : float
        Standard deviation of the logarithm; 0: all wait the same. With 1, one job in ten waits for
        more than 3.6 times the median.
    """

    median: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Nodes, their workers, and what is known of both.

    Attributes
    ----------
    name : str
        Of the site; ``local`` is this machine.
    nodes, workers_per_node, threads_per_worker : int
        The layout.
    cores_per_node : float
        Cores charged of each node: all of it where it is exclusive. NaN: nobody says how many.
    gpus_per_node : int
        GPUs charged of each node.
    walltime : float
        Seconds of a job; ``inf``: as long as it takes.
    chain : bool
        Whether all nodes are one job with the driver in it, followed by further jobs (`submit`).
        Else each node is a job of its own, renewed when its time is over (`run --site`).
    wait : Wait
        In the queue, for each job.
    start_up : tuple of float
        Seconds from a job's begin until a worker is ready, as measured; each worker draws one.
    failures_per_worker_hour : float
        How often a worker is lost through no fault of its run.
    price_per_core_hour, price_per_gpu_hour : float or None
        As the site charges; None: not known.
    max_jobs : int
        Of a chain.
    notes : tuple of str
        What nobody knows of it, and what limits it beside its site; one line each. It is the same
        machine whatever is said.
    """

    name: str = "local"
    nodes: int = 1
    workers_per_node: int = 1
    threads_per_worker: int = 1
    cores_per_node: float = 1
    gpus_per_node: int = 0
    walltime: float = math.inf
    chain: bool = True
    wait: Wait = Wait()
    start_up: tuple[float, ...] = (0.0,)
    failures_per_worker_hour: float = 0.0
    price_per_core_hour: float | None = None
    price_per_gpu_hour: float | None = None
    max_jobs: int = 100
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def workers(self) -> int:
        """Workers on all nodes."""
        return self.nodes * self.workers_per_node

    @property
    def margin(self) -> float:
        """Seconds before a job's end at which its work must be over."""
        return 0.0 if math.isinf(self.walltime) else margin(self.walltime)

    @property
    def priced(self) -> bool:
        """Whether what the machine charges for has a price."""
        return self.price(self.cores_per_node, float(self.gpus_per_node)) is not None

    def price(self, core_hours: float, gpu_hours: float) -> float | None:
        """Return what hours cost; None where anything that is charged has no price.

        Parameters
        ----------
        core_hours, gpu_hours : float
            Charged; NaN: not known.
        """
        prices = self.price_per_core_hour, self.price_per_gpu_hour
        return price_of(core_hours, gpu_hours, *prices, gpus=self.gpus_per_node > 0)

    @classmethod
    def local(cls, workers: int, threads: int, **known: Any) -> Machine:
        """Return this machine with so many workers.

        Parameters
        ----------
        workers, threads : int
            Of the layout, and of each worker.
        **known : object
            Other attributes, such as ``start_up``.
        """
        return cls(
            workers_per_node=workers,
            threads_per_worker=threads,
            cores_per_node=workers * threads,
            **known,
        )

    @classmethod
    def from_site(cls, name: str, site: Site, *, nodes: int | None = None, **known: Any) -> Machine:
        """Return what a site's jobs are.

        Parameters
        ----------
        name : str
            What the site is called.
        site : Site
            What sites.toml says of it.
        nodes : int, optional
            Nodes, instead of the site's.
        **known : object
            Other attributes, such as ``start_up``.
        """
        cores = site.charged_cores
        values: dict[str, Any] = {
            "nodes": site.nodes if nodes is None else nodes,
            "workers_per_node": site.workers_per_node,
            "threads_per_worker": site.threads_per_worker,
            "cores_per_node": math.nan if cores is None else cores,
            "gpus_per_node": site.gpus,
            "walltime": math.inf if site.walltime is None else walltime_seconds(site.walltime),
            "chain": site.scheduler == "slurm",
            "price_per_core_hour": site.price_per_core_hour,
            "price_per_gpu_hour": site.price_per_gpu_hour,
        }
        return cls(name=name, **values | known)


def price_of(
    core_hours: float,
    gpu_hours: float,
    core_price: float | None,
    gpu_price: float | None,
    *,
    gpus: bool,
) -> float | None:
    """Return what hours cost; None where anything that is charged has no price.

    A site that has a price of GPUs only gives the cores of their nodes with them.

    Parameters
    ----------
    core_hours, gpu_hours : float
        Charged; NaN: not known.
    core_price, gpu_price : float or None
        Of an hour; None: not known.
    gpus : bool
        Whether the nodes have GPUs that are charged.

    Examples
    --------
    >>> price_of(10.0, 1.0, 0.1, 2.0, gpus=True), price_of(10.0, 1.0, None, 2.0, gpus=True)
    (3.0, 2.0)
    >>> price_of(10.0, 1.0, 0.1, None, gpus=True)
    """
    if gpus and gpu_price is None:
        return None
    if not gpus and core_price is None:
        return None
    cost = 0.0 if core_price is None else core_price * core_hours
    if gpus and gpu_price is not None:
        cost += gpu_price * gpu_hours
    return None if math.isnan(cost) else cost
