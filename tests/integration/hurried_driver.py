"""A driver whose workers' time is over now and then; run as a script in a test.

``hurried_driver.py STUDY replace``: a worker that is let go is followed by another.
``hurried_driver.py STUDY leave``: the driver's time is over when that of all its workers is.
``hurried_driver.py STUDY die``: the driver dies before the first pause is on record.
``hurried_driver.py STUDY verify``: as ``replace``, for the verification.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable

from stormsweep.cluster.local import LocalPool
from stormsweep.records import Entry, TaskPaused
from stormsweep.results.journal import JournalWriter
from stormsweep.study.study import Study

gone: list[int] = []


def main(path: str, what: str) -> None:
    def dismiss(pool: LocalPool, worker: str, pid: int) -> None:
        gone.append(pid)
        if what != "leave":
            os.kill(pid, signal.SIGKILL)

    def write(journal: JournalWriter, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        if what == "die" and any(isinstance(entry.record, TaskPaused) for entry in entries):
            os.kill(os.getpid(), signal.SIGKILL)
        written(journal, entries)

    written = JournalWriter.write
    JournalWriter.write = write  # type: ignore[method-assign]
    LocalPool.dismiss = dismiss  # type: ignore[method-assign]
    study = Study.from_toml(path)
    if what == "verify":
        look = study.verify()
        print(json.dumps({"losses": look.epoch_loss, "scores": look.scores, "gone": len(gone)}))
        return
    workers = int(study.file.site.workers)
    done = study.run(leaving=lambda: what == "leave" and len(gone) == workers)
    print(json.dumps({k: v for k, v in dataclasses.asdict(done).items() if k != "directory"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
