"""Losing these: a dashboard that shows nothing, slows every start, or that others can reach."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from stormsweep.cluster.address import own_address
from stormsweep.study.lock import driver_of

from .conftest import digits_study, start, tasks, wait_for

#: A driver's pool, in a process of its own: what is imported in it, before a look and after.
LOOK = """
import logging, sys, urllib.request
from pathlib import Path
from stormsweep.cluster.local import LocalPool

def looked(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{pool.dashboard}{path}") as answer:
        return answer.read().decode()

if __name__ == "__main__":
    logging.disable()
    pool = LocalPool(1, 1, 2.0, Path(sys.argv[1]), [])
    next(iter(pool.events(60)))
    print("bokeh" in sys.modules, looked("/health"), "bokeh" in sys.modules)
    print(len(looked("/")) > 5000, "bokeh" in sys.modules, "bokeh" in looked("/workers"))
    pool.close()
"""


def test_bokeh_is_not_imported_until_somebody_looks(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "logs"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["False", "ok", "False", "True", "True", "True"], done.stderr


def test_the_dashboard_of_a_run_is_there_for_who_sits_at_its_machine_and_nobody_else(
    tmp_path: Path,
) -> None:
    driver = start(tmp_path, "run", digits_study(tmp_path), "--no-report")
    directory = tmp_path / "runs" / "digits"
    wait_for(lambda: bool(tasks(directory)), driver)
    # It is in driver.json at the next sign of life.
    wait_for(lambda: "dashboard" in (driver_of(directory) or {}), driver)
    port = (driver_of(directory) or {})["dashboard"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
        page = answer.read().decode()
    assert "Dask Diagnostic UI" in page
    assert "static/js/bokeh" in page
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(driver.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    outside = own_address(None)
    if not outside.startswith("127."):
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((outside, port), timeout=5)
    # A page of somebody else's in the same browser may not talk to it, one of its own may.
    assert asyncio.run(talks(port, page, f"http://localhost:{port}"))
    assert not asyncio.run(talks(port, page, "http://evil.example"))
    assert not asyncio.run(talks(port, page, f"http://evil.example:{port}"))
    count = len(tasks(directory))
    wait_for(lambda: len(tasks(directory)) > count, driver)
    driver.terminate()
    driver.communicate(timeout=60)


async def talks(port: int, page: str, origin: str) -> bool:
    """Tell whether a page that came from somewhere may open the dashboard's connection."""
    token = re.search(r'"token":"([^"]+)"', page)
    assert token is not None
    request = HTTPRequest(f"ws://127.0.0.1:{port}/status/ws", headers={"Origin": origin})
    try:
        connection = await websocket_connect(request, subprotocols=["bokeh", token[1]])
    except HTTPClientError as error:
        if error.code != 403:
            raise
        return False
    connection.close()
    return True
