"""Losing these: following a study from another shell, or in a browser, while it runs."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from stormsweep.cluster.address import own_address
from stormsweep.study.lock import driver_of

from .conftest import command, digits_study, family, gone, start, tasks, wait_for


class Running(NamedTuple):
    """A study that runs, and who follows it: live on a terminal, and as plain lines."""

    directory: Path
    driver: subprocess.Popen[str]
    plain: subprocess.Popen[bytes]
    lines: Path
    shown: Future[str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    driver = start(folder, "run", digits_study(folder), "--no-report")
    directory, lines = folder / "runs" / "digits", folder / "plain.txt"
    wait_for(lambda: bool(tasks(directory)), driver)
    workers = family(driver)
    watching = command(folder, "watch", directory)
    with open(lines, "wb") as out, ThreadPoolExecutor(1) as terminal:
        plain = subprocess.Popen(watching, cwd=folder, stdout=out, stderr=out)
        shown = terminal.submit(on_a_terminal, watching, folder)
        yield Running(directory, driver, plain, lines, shown)
        driver.terminate()
        driver.communicate(timeout=60)
        plain.wait(timeout=120)
    assert gone(workers) == [], "workers outlived their driver"


def test_the_dashboard_of_a_run_is_there_for_who_sits_at_its_machine_and_nobody_else(
    running: Running,
) -> None:
    directory, driver = running.directory, running.driver
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


def test_a_run_is_followed_from_another_shell_until_it_is_over(running: Running) -> None:
    running.driver.communicate(timeout=300)
    assert running.plain.wait(timeout=120) == 0
    said, shown = running.lines.read_text(), running.shown.result(timeout=300)
    assert "digits: finished" in said
    assert "32/32 tasks (100 %)" in said
    assert "best roc_auc 0.9" in said
    assert re.search(r"[0-2]/2 workers busy", said)
    assert "digits: finished" in shown
    # What the workers were at: batch size, fold, epochs.
    assert re.search(r"batch_size (16|32), learning_rate 0\.0\d+ +[01] +\d+-\d+ +\d+ s", shown)
    assert " left" in shown
    assert "1/2 workers busy" in shown or "2/2 workers busy" in shown


def on_a_terminal(arguments: list[str], folder: Path, seconds: float = 300) -> str:
    """Run a command on a terminal of its own; return what it wrote there, without its colours."""
    ours, theirs = pty.openpty()
    terminal = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        arguments, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=terminal
    )
    os.close(theirs)
    written, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            written += os.read(ours, 65536)
        except OSError:  # It is over, and nobody else has the terminal.
            break
    os.close(ours)
    assert process.wait(timeout=30) == 0, written
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
