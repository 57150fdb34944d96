"""Dask's dashboard, made when somebody looks at it.

It is drawn by Bokeh, whose import takes half a second of processor and 20 MB, and whose server
wakes the event loop twice a second: the driver has better to do while nobody looks. The page is on
loopback, and only pages that came from there may talk to it: a page of somebody else's in the same
browser would otherwise reach through the user's tunnel.
"""

from __future__ import annotations

import logging
from typing import Any

import dask

log = logging.getLogger(__name__)

_ORIGINS = "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin"


def offer(scheduler: Any) -> None:
    """Have a scheduler (`distributed.Scheduler`) show its dashboard from the first request on."""
    scheduler.http_application.add_application(_Unseen(scheduler))


class _Unseen:
    """Stands among the scheduler's web applications until a page is asked for that none has."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def find_handler(self, request: Any, **arguments: Any) -> Any:
        """Make the dashboard, and pass the request on to it; in the event loop."""
        if request.method != "GET":
            return None
        scheduler = self._scheduler
        application, port = scheduler.http_application, scheduler.http_server.port
        application.applications.remove(self)
        try:
            from distributed.dashboard.scheduler import connect

            with dask.config.set({_ORIGINS: [f"localhost:{port}", f"127.0.0.1:{port}"]}):
                connect(application, scheduler.http_server, scheduler)
        except Exception:
            log.exception("there is no dashboard")
            return None
        return application.find_handler(request, **arguments)
