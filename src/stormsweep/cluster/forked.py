"""Workers forked from one process that has imported what all of them need.

TensorFlow takes some six seconds of processor time to import and hundreds of megabytes to hold. A
worker that is forked begins at once, and shares that memory with the others until it writes to it.
The process they come from imports and computes nothing: what threads and devices there are is
decided in each worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker

from stormsweep.cluster.environment import OWN_MODULES, thread_environment

#: Dask's word for this way of starting a process.
METHOD = "forkserver"
#: Imported before and after anything else in the process that workers are forked from.
_FIRST = "stormsweep.cluster.forking"
_LAST = "stormsweep.cluster.forking_done"


def prepare_workers(imported: Sequence[str]) -> None:
    """Begin to import, in a process of its own, what the workers of pools to come need.

    Parameters
    ----------
    imported : sequence of str
        Modules; none: workers are not forked, and there is nothing to do.
    """
    if imported:
        prepare([*imported, *OWN_MODULES], thread_environment(1))


def prepare(modules: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start the process that workers are forked from, and go on while it imports.

    It lives as long as this process. Where one was started before it stays as it is: workers then
    import themselves what it has not.

    Parameters
    ----------
    modules : sequence of str
        What it imports, in this order; one that cannot be imported is left to the workers.
    environment : mapping of str to str
        Variables that must be set when it begins.
    """
    # Dask sees to it that all workers have the same seed; those that are forked have this one.
    environment = {"PYTHONHASHSEED": "6640"} | {**environment}
    multiprocessing.get_context(METHOD).set_forkserver_preload([_FIRST, *modules, _LAST])
    with deaf_to_ctrl_c(), _environment(environment):
        forkserver.ensure_running()


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Have processes and threads that begin meanwhile, and all that they start, not hear Ctrl-C.

    It reaches every process of a terminal, and is for the driver: one that has just begun would end
    with a traceback.
    """
    # Else it would be started below, and lift the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
