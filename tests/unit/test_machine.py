"""Losing this: a hundred workers end with "too many open files"; a busy machine goes unseen."""

from __future__ import annotations

import multiprocessing
import resource
import time

from stormsweep.cluster import machine
from stormsweep.cluster.machine import allow_open_files


def test_more_open_files_are_allowed_up_to_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few, hard = 300, before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        allow_open_files(few - 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few, hard)
        allow_open_files(few + 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few + 1, hard)
        allow_open_files(10**12)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (10**12, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def burn(seconds: float) -> None:
    """Use a processor for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_time_of_forked_workers_is_our_own_and_not_that_of_others() -> None:
    """Workers are children of the process that they are forked from, and are gone when asked."""
    before = machine.processor_seconds()
    worker = multiprocessing.get_context("forkserver").Process(target=burn, args=(0.5,))
    worker.start()
    worker.join()
    # The process that it was forked from collects it a moment later.
    time.sleep(0.2)
    everybody, own = (
        now - then for now, then in zip(machine.processor_seconds(), before, strict=True)
    )
    assert own >= 0.45
    assert everybody >= own - 0.05
