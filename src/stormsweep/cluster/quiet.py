"""What Dask does beside the work, turned down: with hundreds of processes it becomes the work."""

from __future__ import annotations

#: Settings for the driver and, through it, for every worker. What an idle worker takes, and what
#: its driver spends on it, fell from 2.7 % and 0.7 % of a core to less than 0.2 % and 0.05 %.
QUIET = {
    # Samples what every thread does, a hundred times a second, for a dashboard.
    "distributed.worker.profile.enabled": False,
    # Wakes every event loop 50 times a second to see whether it is late.
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.tick.cycle": "60s",
    # Reads processor, memory, network and disk for every worker twice a second, and once more for
    # its nanny, in the driver: with 256 workers, which began together, its event loop stood still
    # for a second each time. A worker watches its own memory.
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.admin.system-monitor.disk": False,
    # Would log loops that are late, as they are while a model is compiled.
    "distributed.admin.tick.limit": "60s",
    # Tasks do not pass the scheduler (see line.py): it has none to move and no copies to find.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # Asks the scheduler for a description of every worker, which nobody reads.
    "distributed.client.scheduler-info-interval": "60s",
}
