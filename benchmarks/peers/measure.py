"""Wall time and peak memory of a command and all processes that come of it (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Every process of a repeat inherits this variable, also those that leave its process tree.
MARK = "STORMSWEEP_PEERS_REPEAT"
#: Seconds between looks at the resident sizes, which are cheap to read and count shared pages
#: several times; and, at the latest, between exact ones, which take the kernel 20 ms a process.
INTERVAL = 0.2
LATEST = 2.0
#: At most this share of one core goes into watching, but for the latest exact looks.
SHARE = 0.04
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes
    ----------
    returncode : int
        Its exit status; negative: the signal that ended it.
    seconds : float
        From its start to its end, imports included.
    peak_bytes : int
        Greatest sum over its processes of the proportional set size: a page that n processes share
        counts 1/n in each.
    processes : int
        Greatest number of its processes at once.
    exact_looks : int
        How often proportional set sizes were read.
    timed_out : bool
        Whether it was stopped because it took too long.
    """

    returncode: int
    seconds: float
    peak_bytes: int
    processes: int
    exact_looks: int
    timed_out: bool


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    output: Path,
    cores: Sequence[int],
    timeout: float,
) -> Measured:
    """Run a command on the given cores to its end, and clear away what it leaves running."""
    mark = f"{os.getpid()}-{time.time_ns()}"
    family = Family(mark)
    memory = Memory()
    timed_out = False
    with output.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**environment, MARK: mark},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            while process.poll() is None and not timed_out:
                memory.look(family.members())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(INTERVAL)
                timed_out = time.perf_counter() - began > timeout
            seconds = time.perf_counter() - began
        finally:
            family.end()
            process.wait()
    return Measured(
        process.returncode, seconds, memory.peak, memory.most, memory.exact_looks, timed_out
    )


class Memory:
    """The greatest memory of some processes so far, looked at often and exactly where it counts.

    Attributes
    ----------
    peak : int
        Greatest sum of proportional set sizes, bytes.
    most : int
        Greatest number of processes.
    exact_looks : int
        How often proportional set sizes were read.
    """

    def __init__(self) -> None:
        self.peak = self.most = self.exact_looks = 0
        self._shared = 0
        self._began = self._last = time.perf_counter()
        self._spent = time.process_time()

    def look(self, members: Sequence[int]) -> None:
        """Look at the processes; exactly if memory seems to be at a new height."""
        self.most = max(self.most, len(members))
        resident = sum(map(_resident_bytes, members))
        now = time.perf_counter()
        higher = resident - self._shared > 1.01 * self.peak
        affordable = time.process_time() - self._spent < SHARE * (now - self._began)
        if (higher and affordable) or now - self._last > LATEST:
            exact = sum(map(_proportional_bytes, members))
            self.peak = max(self.peak, exact)
            self._shared = resident - exact
            self._last = now
            self.exact_looks += 1


class Family:
    """A process, all that come of it, and all whose environment bears the mark.

    Descent alone would lose daemons, whose parent is gone; the mark alone would lose processes
    that write their title over their environment.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARK}={mark}".encode()
        # Process number and start: numbers are used again.
        self._ours: set[tuple[int, str]] = set()
        self._others: set[tuple[int, str]] = set()

    def members(self) -> list[int]:
        """Return the numbers of those that live."""
        parents, keys = {}, {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _stat(pid := int(entry.name))):
                keys[pid], parents[pid] = (pid, stat[1]), stat[0]
        self._ours &= set(keys.values())
        self._others &= set(keys.values())
        for key in set(keys.values()) - self._ours - self._others:
            marked = self._bears_mark(key[0])
            if marked is not None:
                (self._ours if marked else self._others).add(key)
        ours = {pid for pid, _ in self._ours}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        self._ours |= {keys[pid] for pid in ours}
        return sorted(ours)

    def end(self) -> None:
        """Ask them to end, and make them if they do not."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _bears_mark(self, pid: int) -> bool | None:
        """Return None where there is no environment: a kernel's thread, or a program just begun."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return None
        return self._mark in environment.split(b"\0") if environment else None


def _stat(pid: int) -> tuple[int, str] | None:
    """Return parent and start of a process that lives."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything; state, parent and start follow it.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else (int(fields[1]), fields[19])


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
