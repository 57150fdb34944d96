"""Losing these: nodes that work let go for nodes that wait; a loss laid at the wrong door.

Real agents and workers; each node is a process of this machine. On a real Slurm: test_site.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from stormsweep.cluster import deadline, remote
from stormsweep.cluster.keeper import Ended
from stormsweep.cluster.node_order import NodeOrder
from stormsweep.cluster.pool import Event, Finished, NodesOver, PoolBroken, WorkerLost, WorkerReady
from stormsweep.cluster.remote import RemotePool

from .memory_group import memory_group

ROOT = Path(__file__).parents[2]


class Processes:
    """Makes nodes of processes of this machine; at most so many run, the others wait."""

    def __init__(self, folder: Path, running: int, renews: bool = True) -> None:
        self.folder, self.running, self.renews = folder, running, renews
        self.waiting: dict[str, Sequence[str]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: list[str] = []
        #: Whether it knows nothing of those that failed, as a PBS without history.
        self.forgets = False

    def places(self) -> int:
        return 100

    def free(self) -> int:
        return 100

    def start(self, name: str, command: Sequence[str]) -> str:
        if len(self.processes) < self.running:
            with open(self.folder / f"node-{name}.log", "wb") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)
        else:
            self.waiting[name] = command
        return f"process {name}"

    def ended(self) -> Mapping[str, Ended]:
        gone = {name: one.poll() for name, one in self.processes.items()}
        failed = Ended("cancelled", "not known any more", known=False) if self.forgets else None
        found = {
            name: Ended() if code == 0 else failed or Ended("killed", f"exit code {code}")
            for name, code in gone.items()
            if code is not None
        }
        for name in found:
            del self.processes[name]
        found |= dict.fromkeys([name for name in self.stopped if name in self.waiting], Ended())
        for name in self.stopped:
            self.waiting.pop(name, None)
        self.stopped.clear()
        return found

    def granted(self) -> Mapping[str, float]:
        return {}

    def stop(self, names: Collection[str]) -> None:
        self.stopped += names
        for name in names:
            if name in self.processes:
                self.processes[name].terminate()

    def look(self) -> None:
        pass

    def avoid(self, host: str, for_good: bool = False) -> None:
        pass

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


class Watched:
    """A pool and all that it told so far."""

    def __init__(self, pool: RemotePool) -> None:
        self.pool, self.events = pool, list[Event]()

    @property
    def port(self) -> int:
        """The scheduler's."""
        return int(self.pool._cluster.scheduler.address.rpartition(":")[2])

    def until(self, happened: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, self.events
            self.events += self.pool.events(0.05)

    @property
    def ready(self) -> list[WorkerReady]:
        return [event for event in self.events if isinstance(event, WorkerReady)]

    @property
    def lost(self) -> list[WorkerLost]:
        return [event for event in self.events if isinstance(event, WorkerLost)]


@pytest.fixture(autouse=True)
def gpu_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an `nvidia-smi` that writes down that it was asked, and waits for `go`.

    Nodes without use for GPUs must not ask it: their workers would not come.
    """
    folder = tmp_path / "tools"
    folder.mkdir()
    tool = folder / "nvidia-smi"
    tool.write_text(
        f'#!/bin/bash\necho asked >>"{folder}/asked"\n'
        f'until [ -e "{folder}/go" ]; do sleep 0.05; done\necho 0\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    monkeypatch.setattr(remote, "_EXPLAINED_SECONDS", 6.0)
    begun: list[tuple[RemotePool, Processes]] = []

    def start(launcher: Processes, least: int, most: int, **order: object) -> Watched:
        told: dict[str, object] = {"workers": 1, "threads": 1, "memory_gb": 1.0, "imported": []}
        given = NodeOrder(scheduler="", logs=str(tmp_path / "logs"), **(told | order))  # type: ignore[arg-type]
        pool = RemotePool(launcher, given, tmp_path / ".private", (least, most), [str(ROOT)])
        begun.append((pool, launcher))
        return Watched(pool)

    yield start
    for pool, launcher in begun:
        pool.close()
        assert all(process.poll() is not None for process in launcher.processes.values())
    assert not (tmp_path / ".private").exists()
    left = [path.name for path in (tmp_path / "logs").iterdir() if path.name.startswith(".")]
    assert left == []


def napped(seconds: float) -> tuple[float, float]:
    time.sleep(seconds)
    return deadline.left(), deadline.share()


def test_nodes_are_let_go_as_work_ends_and_the_one_at_work_never(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    launcher = Processes(tmp_path, running=2)
    watched = begin(launcher, 1, 4)
    watched.until(lambda: len(watched.ready) == 2 and len(launcher.waiting) == 2)
    first = watched.ready[0]
    watched.pool.submit(first.worker, first.pid, "t", napped, 3.0)
    watched.pool.want(3)
    watched.until(lambda: len(launcher.waiting) == 1)
    assert watched.lost == []
    # One task is left, and one node is at it: the other two have none.
    watched.pool.want(1)
    watched.until(lambda: not launcher.waiting and len(launcher.processes) == 1)
    assert [(lost.worker, lost.let_go) for lost in watched.lost] == [
        (watched.ready[1].worker, True)
    ]
    watched.until(lambda: any(isinstance(event, Finished) for event in watched.events))
    assert list(launcher.processes) == [first.worker.rsplit("-", 2)[1]]


def test_a_worker_that_dies_a_node_that_is_silent_and_one_that_ends_are_told_apart(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    launcher = Processes(tmp_path, running=2)
    watched = begin(launcher, 2, 2, walltime_s=600)
    watched.until(lambda: len(watched.ready) == 2)
    one, two = watched.ready
    # Else its node may still be starting it.
    watched.pool.submit(one.worker, one.pid, "first", napped, 2.0)
    watched.until(lambda: any(isinstance(event, Finished) for event in watched.events))
    watched.events = [event for event in watched.events if not isinstance(event, Finished)]
    os.kill(one.pid, signal.SIGKILL)
    watched.until(lambda: len(watched.lost) == 1)
    assert watched.lost[0].failure == "killed"
    watched.until(lambda: len(watched.ready) == 3)
    assert watched.ready[2].worker == one.worker, "its node starts it again"
    again = watched.ready[2]
    watched.pool.submit(again.worker, again.pid, "t", napped, 0.0)
    watched.until(lambda: any(isinstance(event, Finished) for event in watched.events))
    left, share = next(e.result for e in watched.events if isinstance(e, Finished))
    assert 400 < left < 541, "a tenth of the walltime is for leaving"
    assert 0.8 < share <= 1.0
    # A node that says nothing any more: frozen, and its worker dead.
    agent = launcher.processes[two.worker.rsplit("-", 2)[1]]
    agent.send_signal(signal.SIGSTOP)
    os.kill(two.pid, signal.SIGKILL)
    watched.until(lambda: len(watched.lost) == 2)
    assert (watched.lost[1].pid, watched.lost[1].failure) == (two.pid, "node-failure")
    agent.kill()
    watched.until(lambda: len(watched.ready) == 4)
    # One that is told to end says so itself.
    launcher.processes[one.worker.rsplit("-", 2)[1]].terminate()
    watched.until(lambda: len(watched.lost) == 3)
    assert (watched.lost[2].pid, watched.lost[2].failure) == (again.pid, "cancelled")


def hoarded(megabytes: int) -> int:
    return len(bytearray(os.urandom(1 << 20)) * megabytes)


def test_a_worker_that_the_system_kills_for_its_jobs_memory_is_called_so(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    """A job's control group, as Slurm makes them: the budget of the worker would allow more."""
    with memory_group(700) as group:
        launcher = Processes(tmp_path, running=1)
        start = launcher.start

        def inside(name: str, command: Sequence[str]) -> str:
            script = 'echo $$ >"$0/tasks" && exec "$@"'
            return start(name, ["bash", "-c", script, str(group), *command])

        launcher.start = inside  # type: ignore[method-assign]
        watched = begin(launcher, 1, 1, memory_gb=8.0)
        for count in (1, 2):
            watched.until(lambda count=count: len(watched.ready) == count)  # type: ignore[misc]
            worker = watched.ready[-1]
            watched.pool.submit(worker.worker, worker.pid, f"t{count}", hoarded, 900)
            watched.until(lambda count=count: len(watched.lost) == count)  # type: ignore[misc]
            lost = watched.lost[-1]
            assert (lost.pid, lost.failure, lost.token) == (
                worker.pid,
                "out-of-memory",
                f"t{count}",
            ), lost
            assert "the system killed the worker, because the memory of the job on" in lost.reason
            assert "(0.68 GiB)" in lost.reason
        # One that is killed by somebody is not taken for it afterwards.
        watched.until(lambda: len(watched.ready) == 3)
        os.kill(watched.ready[-1].pid, signal.SIGKILL)
        watched.until(lambda: len(watched.lost) == 3)
        assert watched.lost[-1].failure == "killed"
        watched.pool.close()


def test_steps_whose_time_is_over_are_not_begun_again(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    launcher = Processes(tmp_path, running=1, renews=False)
    watched = begin(launcher, 1, 1, workers=2)
    watched.until(lambda: len(watched.ready) == 2)
    for worker in watched.ready:
        watched.pool.dismiss(worker.worker, worker.pid)
    watched.until(lambda: NodesOver() in watched.events)
    watched.until(lambda: not launcher.processes)
    assert len(watched.ready) == 2


def test_a_node_on_which_no_worker_can_work_makes_room_for_another(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    launcher = Processes(tmp_path, running=2)
    watched = begin(launcher, 1, 1, workers=2)
    watched.until(lambda: len(watched.ready) == 2)
    for worker in watched.ready:
        watched.pool.refuse(worker.worker, worker.pid, "n1 cannot open the data")
    watched.until(lambda: len(watched.ready) == 4 and len(watched.lost) == 2)
    assert {one.worker.rsplit("-", 2)[1] for one in watched.ready[2:]} == {"2"}
    assert {one.failure for one in watched.lost} == {"cancelled"}


def test_what_cannot_be_copied_to_a_node_is_read_from_afar(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    file = tmp_path / "data" / "inputs.npy"
    file.parent.mkdir()
    file.write_bytes(b"x" * 100)
    launcher = Processes(tmp_path, running=1)
    watched = begin(launcher, 1, 1, scratch=str(tmp_path), copies=[str(file.parent), "/nowhere"])
    watched.until(lambda: len(watched.ready) == 1)
    log = (tmp_path / "node-1.log").read_text()
    assert f"copied {file.parent}" in log
    assert "/nowhere cannot be copied" in log
    assert "Traceback" not in log
    # In a folder that the next agent removes, should this one be killed.
    (copies,) = tmp_path.glob(".stormsweep-node.*.partial")
    assert (copies / "data-0" / "inputs.npy").read_bytes() == file.read_bytes()
    watched.pool.close()
    assert not copies.exists()


@pytest.mark.parametrize("forgets", [False, True])
def test_an_agent_that_cannot_go_on_says_why_and_is_not_asked_for_again(
    begin: Callable[..., Watched], tmp_path: Path, gpu_tool: Path, forgets: bool
) -> None:
    (gpu_tool / "go").touch()
    launcher = Processes(tmp_path, running=1)
    launcher.forgets = forgets
    watched = begin(launcher, 1, 1, gpus=True, workers=99)
    watched.until(lambda: any(isinstance(event, PoolBroken) for event in watched.events))
    reason = next(event.reason for event in watched.events if isinstance(event, PoolBroken))
    assert "shows the job 1 of the GPUs that 99 workers need" in reason
    assert not launcher.processes


def test_a_node_is_heard_of_while_its_gpus_are_looked_for(
    begin: Callable[..., Watched], tmp_path: Path, gpu_tool: Path
) -> None:
    """Else it takes its driver for one that cannot be reached, and leaves."""
    watched = begin(Processes(tmp_path, running=1), 1, 1, gpus=True)
    watched.until((gpu_tool / "asked").exists)
    watched.until(lambda: watched.pool._keeper.beats("1") > 0, 30)
    (gpu_tool / "go").touch()
    watched.until(lambda: len(watched.ready) == 1)
    assert (gpu_tool / "asked").read_text() == "asked\n"


def test_pages_of_the_driver_are_on_loopback_only(
    begin: Callable[..., Watched], tmp_path: Path
) -> None:
    watched = begin(Processes(tmp_path, running=0), 1, 1)
    mine = [one for one in psutil.Process().net_connections() if one.status == "LISTEN"]
    assert ("127.0.0.1", watched.pool.dashboard) in [tuple(one.laddr) for one in mine]
    outside = [one.laddr.port for one in mine if one.laddr.ip != "127.0.0.1"]
    assert outside == [watched.port]
