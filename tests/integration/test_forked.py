"""Losing these: seconds and megabytes for each worker; workers that go by old words."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stormsweep.cluster.forked import prepare_workers
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import Event, Finished, WorkerLost, WorkerReady

IMPORTED = ("stormsweep.training.imported",)


def look(_: str) -> dict[str, Any]:
    return {
        "imported": "tensorflow" in sys.modules and "keras" in sys.modules,
        "threads": os.environ["OMP_NUM_THREADS"],
        "said": os.environ.get("STORMSWEEP_TEST_SAID"),
        "folder": str(Path.cwd()),
        # What was imported is never looked through again, what comes after it is collected.
        "collects": (gc.isenabled(), gc.get_freeze_count() > 100_000),
    }


def die(_: str) -> None:
    os.kill(os.getpid(), 9)


def test_workers_begin_with_what_they_need_and_the_words_of_their_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_workers(IMPORTED)
    monkeypatch.setenv("STORMSWEEP_TEST_SAID", "after the others were imported")
    monkeypatch.chdir(tmp_path)
    here = [str(Path(__file__).parents[2])]
    pool = LocalPool(1, 2, 4.0, tmp_path / "logs", here, imported=IMPORTED)
    heard: list[Event] = []

    def until(kind: type[Event]) -> Any:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            heard.extend(pool.events(0.1))
            while heard:
                if isinstance(event := heard.pop(0), kind):
                    return event
        raise AssertionError(f"no {kind.__name__} in time")

    try:
        wanted = {
            "imported": True,
            "threads": "2",
            "said": "after the others were imported",
            "folder": str(tmp_path),
            "collects": (True, True),
        }
        first = until(WorkerReady)
        pool.submit(first.worker, first.pid, "look", look, "")
        assert until(Finished).result == wanted
        pool.submit(first.worker, first.pid, "die", die, "")
        until(WorkerLost)
        second = until(WorkerReady)
        pool.submit(second.worker, second.pid, "look", look, "")
        assert until(Finished).result == wanted
    finally:
        pool.close()


def test_workers_are_spared_what_training_does_without_but_may_have_it() -> None:
    """Seconds before the first task and 200 MB; or else a builder that pretrains on a table."""
    looks = (
        "import sys\n"
        "import stormsweep.training.imported\n"
        "spared = ('IPython', 'jax', 'matplotlib', 'pandas')\n"
        "print([name for name in ('keras', 'tensorflow', *spared) if name in sys.modules])\n"
        "import matplotlib.pyplot, pandas\n"
        "import keras\n"
        "model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])\n"
        # Numbers of two kinds, of which only pandas knows how to make one.
        "table = pandas.DataFrame({'wind': [1.0, 2.0], 'by_day': [True, False]})\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(table, table['wind'], verbose=0)\n"
        "print(model.predict(table, verbose=0).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", looks],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "['keras', 'tensorflow']\n(2, 1)\n", done.stderr


def test_no_worker_has_tracebacks_for_what_ends_its_driver(tmp_path: Path) -> None:
    """Ctrl-C while the workers' process imports; a driver that is killed while they start."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('on').touch()\ntime.sleep(1)"
    )
    (tmp_path / "driver.py").write_text(
        "import _multiprocessing, multiprocessing, os, pathlib, signal, sys, time\n"
        "from stormsweep.cluster import forked\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, lambda *_: None)\n"
        "    forked.prepare(['slow'], {})\n"
        "    while not pathlib.Path('on').exists():\n"
        "        time.sleep(0.01)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    context = multiprocessing.get_context(forked.METHOD)\n"
        "    lock = context.Lock()\n"
        "    _multiprocessing.sem_unlink(lock._semlock.name)\n"
        "    for argument in (lock, 'one'):\n"
        "        process = context.Process(target=int, args=(argument,))\n"
        "        process.start()\n"
        "        process.join()\n"
        "        print(process.exitcode)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "driver.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
    )
    assert done.stdout == "1\n1\n", done.stderr
    # What is wrong with a worker itself is said all the same.
    assert done.stderr.count("Traceback") == 1
    assert "ValueError: invalid literal" in done.stderr
