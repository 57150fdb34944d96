"""Losing these: a task whose end nobody hears of; a stop that waits for workers without need."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import multiprocessing.util
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Security, Status
from distributed.comm import CommClosedError, connect
from distributed.core import send_recv

from stormsweep.cluster import dask_pool, line
from stormsweep.cluster.dask_pool import dask_logs
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import Broken, Event, Finished, PoolBroken, WorkerLost, WorkerReady
from stormsweep.errors import DataAwayError
from stormsweep.study.setup import Question, welcome

from .memory_group import memory_group


class Kept(logging.Handler):
    """Keep what Dask has to say."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def sleep_long(path: str) -> None:
    Path(path).touch()
    time.sleep(60)


def work(how: str) -> Any:
    match how:
        case "raise":
            raise ZeroDivisionError("no")
        case "raise what cannot be sent":
            error = ValueError("no")
            error.held = threading.Lock()  # type: ignore[attr-defined]
            raise error
        case "return what cannot be sent":
            return threading.Lock()
        case "exit":
            sys.exit(3)
        case "die":
            os.kill(os.getpid(), 9)
        case "say and die":
            print("no such library", flush=True)
            os.kill(os.getpid(), 9)
    return how


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    folder = tmp_path_factory.mktemp("logs")
    pool = LocalPool(1, 1, 4.0, folder, [str(Path(__file__).parents[2])])
    yield pool
    pool.close()


class Asked:
    """A pool's one worker, and what it was heard of."""

    def __init__(self, pool: LocalPool) -> None:
        self.pool = pool
        self.heard: list[Event] = []
        self.ready = self.next(WorkerReady)

    def next(self, kind: type[Event]) -> Any:
        until(lambda: bool(self.heard.extend(self.pool.events(0.1)) or self.heard))
        event = self.heard.pop(0)
        assert isinstance(event, kind), event
        return event

    def do(self, how: str) -> None:
        self.pool.submit(self.ready.worker, self.ready.pid, how, work, how)


def test_every_task_has_one_end_and_the_worker_goes_on(
    pool: LocalPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Asked(pool)
    for how, reason in {
        "raise": "ZeroDivisionError('no')",
        "raise what cannot be sent": "ValueError('no')",
        "return what cannot be sent": "pickle",
        "exit": "SystemExit(3)",
    }.items():
        worker.do(how)
        broken = worker.next(Broken)
        assert broken.token == how
        assert reason in repr(broken.error)
        worker.do("well")
        assert worker.next(Finished) == Finished(worker.ready.worker, "well", "well")
    # Both write to one log; a process has its own last words, or none.
    for how, words in {"say and die": "; the last line of .*: no such library", "die": ""}.items():
        worker.do(how)
        lost = worker.next(WorkerLost)
        assert (lost.pid, lost.token, lost.failure) == (worker.ready.pid, how, "killed")
        assert re.fullmatch(f"its worker process died without a word{words}", lost.reason)
        worker.ready = worker.next(WorkerReady)
    worker.do("well")
    assert worker.next(Finished).result == "well"

    # A line that breaks although its worker lives: that worker is replaced, its task is lost once.
    monkeypatch.setattr(line, "_GRACE_SECONDS", 0.5)
    before = worker.ready
    pool.submit(before.worker, before.pid, "long", sleep_long, str(tmp_path / "begun"))
    until((tmp_path / "begun").exists)
    address = pool._current[before.worker][0]
    pool._client.loop.add_callback(pool._lines.hang_up, address)
    assert worker.next(WorkerLost).token == "long"
    worker.ready = worker.next(WorkerReady)
    assert worker.ready.pid != before.pid
    worker.do("well")
    assert worker.next(Finished).result == "well"
    assert worker.heard == []


def test_a_pool_whose_last_worker_cannot_be_started_again_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: a driver that waits for ever for a worker that Dask tried to start once."""
    monkeypatch.setattr(LocalPool, "patience", 2.0)
    kept = Kept()
    with dask_logs(kept):
        pool = LocalPool(2, 1, 4.0, tmp_path, [str(Path(__file__).parents[2])])
        try:
            heard: list[Event] = []

            def told(kind: type[Event], count: int) -> bool:
                heard.extend(pool.events(0.1))
                return sum(isinstance(event, kind) for event in heard) == count

            def refused(*_: object) -> int:
                raise BlockingIOError(11, "Resource temporarily unavailable")

            until(lambda: told(WorkerReady, 2))
            monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refused)
            one, two = (event for event in heard if isinstance(event, WorkerReady))
            os.kill(one.pid, signal.SIGKILL)
            until(lambda: told(WorkerLost, 1))
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert not told(PoolBroken, 1), "another works"
            os.kill(two.pid, signal.SIGKILL)
            until(lambda: told(PoolBroken, 1))
            assert told(WorkerLost, 2)
        finally:
            pool.close()
    assert "none took its place within 2 s" in next(
        event.reason for event in heard if isinstance(event, PoolBroken)
    )
    assert any("failed to start process" in text for text in kept.texts)


def test_a_laptop_that_slept_has_its_workers_still(tmp_path: Path) -> None:
    """Losing this: runs that count as killing their workers whenever the lid was shut."""
    pool = LocalPool(0, 1, 4.0, tmp_path, [])
    try:
        # What looks for the silent goes by the clock, which goes on while all sleep.
        assert "worker-ttl" not in pool._cluster.scheduler.periodic_callbacks
    finally:
        pool.close()


def test_a_worker_that_cannot_open_the_data_says_so_and_is_left_aside(tmp_path: Path) -> None:
    pool = LocalPool(1, 1, 4.0, tmp_path, [str(Path(__file__).parents[2])])
    try:
        worker = Asked(pool)
        ready, gone = worker.ready, str(tmp_path / "gone")
        asked = Question("m:f", [], 1, "tensorflow", "float32", True, gone, "f", "", False, 0)
        pool.submit(ready.worker, ready.pid, "welcome", welcome, asked)
        error = worker.next(Broken).error
        assert isinstance(error, DataAwayError)
        assert str(error).startswith(f"{socket.gethostname()} cannot open the data: {gone}: ")
        pool.refuse(ready.worker, ready.pid, str(error))
        assert worker.next(PoolBroken) == PoolBroken(str(error))
    finally:
        pool.close()


def test_a_pool_closes_without_waiting_for_what_its_workers_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Busy cores may keep a worker from leaving for long; its task sleeps for longer.
    monkeypatch.setattr(dask_pool, "_LEAVE_SECONDS", 20.0)
    caplog.set_level(logging.INFO, "stormsweep")
    with dask_logs(logging.NullHandler()):
        pool = LocalPool(1, 1, 4.0, tmp_path, [str(Path(__file__).parents[2])])
        try:
            joined: list[WorkerReady] = []
            until(lambda: bool(joined.extend(_ready(pool)) or joined))
            pool.submit(joined[0].worker, joined[0].pid, "t", sleep_long, str(tmp_path / "begun"))
            until((tmp_path / "begun").exists)
            # It is ready a moment before its nanny knows.
            until(lambda: nannies_status(pool) == {Status.running})
        finally:
            pool.close()
    assert not psutil.pid_exists(joined[0].pid)
    assert "is killed" not in caplog.text, "it did not leave by itself"


def nannies_status(pool: LocalPool) -> set[Status]:
    return {nanny.process.status for nanny in pool._cluster._created if nanny.process}


def test_nothing_of_dasks_reaches_the_terminal_where_a_worker_still_starts_at_the_end(
    tmp_path: Path,
) -> None:
    """Losing this: a screen full of Dask's log after the last line of a `run` on a busy machine."""
    slow, begun, log = tmp_path / "slow.py", tmp_path / "begun", tmp_path / "driver.log"
    slow.write_text(
        f"import time\ntry:\n    open({str(begun)!r}, 'x').close()\n"
        "except FileExistsError:\n    pass\nelse:\n    time.sleep(300)\n"
    )
    code = f"""
import logging
from pathlib import Path
import psutil
from stormsweep.cluster.dask_pool import dask_logs
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import WorkerReady

def speakers():
    known = logging.root.manager.loggerDict
    return [name for name in known if any(map(terminal, getattr(known[name], "handlers", [])))]

def terminal(handler):
    return type(handler) is logging.StreamHandler

def main():
    before = speakers()
    with dask_logs(logging.FileHandler({str(log)!r})):
        for name in before:
            logging.getLogger(name).error("said by %s", name)
        pool = LocalPool(2, 1, 4.0, Path({str(tmp_path)!r}), [{str(Path(__file__).parents[2])!r}])
        ready = 0
        while not (ready and Path({str(begun)!r}).exists()):
            ready += sum(isinstance(event, WorkerReady) for event in pool.events(0.1))
        pool.close()
    left = psutil.Process().children(recursive=True)
    left = [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]
    print(ready, left, speakers() == before, sorted(before))

if __name__ == "__main__":
    main()
"""
    (tmp_path / "driver.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "driver.py"],
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__PRELOAD": repr([str(slow)])},
        capture_output=True,
        text=True,
        timeout=200,  # Much less than the worker would take to start.
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("1 [] True ["), done.stdout
    written = log.read_text()
    assert "said by distributed.gc" in written


def test_dask_is_not_heard_any_more_where_it_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs() -> None:
        raise TimeoutError("timed out after 60 s")

    monkeypatch.setattr(dask_pool, "_left_behind", threading.Event())
    heard = Kept()
    speakers = [logging.getLogger(name) for name in ("distributed", "tornado.application")]
    for speaker in speakers:
        monkeypatch.setattr(speaker, "handlers", [heard])
        monkeypatch.setattr(speaker, "propagate", False)
    with dask_logs(logging.NullHandler()):
        pass
    speakers[0].error("the user's own")
    assert heard.texts == ["the user's own"]
    with dask_logs(logging.NullHandler()):
        dask_pool._end(hangs)
    for speaker in speakers:
        speaker.error("reaping stray process")
    assert heard.texts == ["the user's own"]


def _ready(pool: LocalPool) -> list[WorkerReady]:
    return [event for event in pool.events(0.1) if isinstance(event, WorkerReady)]


def listening() -> list[tuple[str, int]]:
    """Return where this process and all that it started listen for TCP."""
    here = psutil.Process()
    sockets = []
    for process in [here, *here.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            sockets += process.net_connections(kind="tcp")
    return [(one.laddr.ip, one.laddr.port) for one in sockets if one.status == psutil.CONN_LISTEN]


def test_nobody_without_the_certificate_gives_work(tmp_path: Path) -> None:
    """Loopback is open to every user of the machine, and who is heard runs code as its owner."""
    before = set(listening())
    pool = LocalPool(1, 1, 1.0, tmp_path, [])
    try:
        until(lambda: any(isinstance(event, WorkerReady) for event in pool.events(0.1)))
        found = set(listening()) - before
        assert {ip for ip, _ in found} == {"127.0.0.1"}
        strangers: list[dict[str, Any]] = [
            {},
            Security.temporary().get_connection_args("client"),
            {"ssl_context": ssl._create_unverified_context()},
        ]
        addresses = [pool._client.scheduler.address, *pool._names]
        for address in addresses:
            asyncio.run(heard(address, pool._client.connection_args))
            for given in strangers:
                plain = address.replace("tls://", "tcp://") if not given else address
                with pytest.raises((OSError, CommClosedError)):
                    asyncio.run(heard(plain, given))
        # The pages that Dask shows (of the scheduler, and of each worker) take no orders.
        pages = [port for _, port in found if http_status(port, "/health") == 200]
        assert len(pages) == 2
        for port in pages:
            for path in ("/api/v1/retire_workers", "/api/v1/adaptive_target"):
                assert http_status(port, path, b"{}") in (404, 405)
    finally:
        pool.close()


async def heard(address: str, given: dict[str, Any]) -> None:
    """Have a process of Dask's say who it is."""
    comm = await connect(address, timeout=2, **given)
    try:
        await asyncio.wait_for(send_recv(comm, op="identity"), 2)
    except TimeoutError:
        raise OSError("no answer") from None
    finally:
        comm.abort()


def http_status(port: int, path: str, sent: bytes | None = None) -> int | None:
    """Return how a port answers over HTTP; None where it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", sent, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def test_a_worker_that_the_system_kills_for_memory_is_called_so(tmp_path: Path) -> None:
    """Its own budget would allow more; what all processes of the group may take does not."""
    code = f"""
import os
from pathlib import Path
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import WorkerLost, WorkerReady
from tests.integration.test_remote_pool import hoarded

pool = LocalPool(1, 1, 8.0, Path({str(tmp_path)!r}), [{str(Path(__file__).parents[2])!r}])
lost = []
while not lost:
    for event in pool.events(0.1):
        if isinstance(event, WorkerReady):
            pool.submit(event.worker, event.pid, "t", hoarded, 900)
        lost += [event] if isinstance(event, WorkerLost) else []
print(lost[0].failure, lost[0].token, lost[0].reason)
pool.close()
"""
    with memory_group(700) as group:
        script = 'echo $$ >"$0/tasks" && exec "$@"'
        done = subprocess.run(
            ["bash", "-c", script, group, sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.stdout == (
        "out-of-memory t the system killed the worker, because the memory of this machine was used "
        "up (0.68 GiB)\n"
    ), done.stderr
