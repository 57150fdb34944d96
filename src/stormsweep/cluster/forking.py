"""What the process that workers are forked from imports first (see `forked`); it alone does.

Until `forking_done`, imported last, nothing is collected: hundreds of thousands of objects that all
stay would be looked through time and again, a fifth of the time that TensorFlow takes to import.
"""

from __future__ import annotations

import gc
import sys
import traceback
from types import TracebackType


def say_what_matters(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback, unless who asked for a worker was gone before the worker began.

    A semaphore that cannot be found any more tells so: a driver or an agent that is killed while
    its workers start leaves nothing to be said by each of them.
    """
    last = [frame.filename for frame in traceback.extract_tb(trace)][-1:]
    if kind is FileNotFoundError and any(name.endswith("synchronize.py") for name in last):
        return
    sys.__excepthook__(kind, error, trace)


sys.excepthook = say_what_matters
gc.disable()
