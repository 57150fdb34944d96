"""What Dask does beside the work, turned down: with hundreds of processes it becomes the work."""

from __future__ import annotations

from typing import Any

from distributed import core

#: Settings for the driver and, through it, for every worker. With `beat_rarely` they brought what
#: an idle worker takes from 2.7 % of a core to 0.1 %, and its driver for it from 0.7 % to 0.01 %.
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
    # Tasks do not pass the scheduler (see line.py): it has none to move and no copies to find.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # Asks the scheduler for a description of every worker, which nobody reads.
    "distributed.client.scheduler-info-interval": "60s",
}

#: How often a worker shows that it lives, in seconds; one of another machine counts as lost after
#: five minutes of silence, and any at once when its connection breaks.
_BEAT_SECONDS = 15.0


#: Would log loops that are late, as they are while a model is compiled, and between two ticks of
#: the above always are. Dask reads the setting for it when it is imported, and never again.
core.tick_maximum_delay = 60.0


def beat_rarely(scheduler: Any) -> None:
    """Have workers show less often that they live than Dask's scheduler asks for: every 2 s."""
    take = scheduler.handlers["heartbeat_worker"]

    def heartbeat_worker(**beat: Any) -> dict[str, Any]:
        return {**take(**beat), "heartbeat-interval": _BEAT_SECONDS}

    scheduler.handlers["heartbeat_worker"] = heartbeat_worker
