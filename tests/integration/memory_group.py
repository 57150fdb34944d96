"""A control group of Linux that limits memory, as a cluster's jobs have them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def memory_group(limit_mb: int) -> Iterator[Path]:
    """Make a control group below this process's own, with a limit on memory; skip where none."""
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    below = next((line.split(":", 2)[2] for line in groups if ":memory:" in line), None)
    folder = Path(f"/sys/fs/cgroup/memory{below}/stormsweep-{os.getpid()}")
    try:
        if below is None:
            raise OSError("version 1 of control groups does not limit memory here")
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_mb << 20))
        with contextlib.suppress(OSError):
            # Else what does not fit would go to the disk, where there is one for it.
            (folder / "memory.swappiness").write_text("0")
        yield folder
    finally:
        # What is left in it would keep it there.
        for pid in (folder / "tasks").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        until = time.monotonic() + 20
        while (folder / "tasks").read_text() and time.monotonic() < until:
            time.sleep(0.05)
        folder.rmdir()
