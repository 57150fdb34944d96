"""What Dask does beside the work, turned down: with hundreds of processes it becomes the work."""

from __future__ import annotations

#: Settings for the driver and, through it, for every worker. Idle, a worker took 2.7 % of a core
#: before and takes 0.4 % with them; what its driver spends on each fell from 0.7 % to 0.1 %.
QUIET = {
    # Samples what every thread does, a hundred times a second, for a dashboard.
    "distributed.worker.profile.enabled": False,
    # Wakes every event loop 50 times a second to see whether it is late.
    "distributed.admin.tick.interval": "1s",
    # Reads processor, memory, network and disk, twice a second; a worker watches its own memory.
    "distributed.admin.system-monitor.interval": "10s",
    # Would log loops that are late, as they are while a model is compiled.
    "distributed.admin.tick.limit": "60s",
    # Tasks do not pass the scheduler (see line.py): it has none to move and no copies to find.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # Asks the scheduler for a description of every worker, which nobody reads.
    "distributed.client.scheduler-info-interval": "60s",
}
