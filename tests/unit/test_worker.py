"""Losing this: a worker that takes the node's memory, since its disk is full; the wrong last words.

What stands in its log is all that is known of a process that was killed.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from stormsweep.cluster import worker_log
from stormsweep.cluster.worker import OUT_OF_MEMORY_EXIT
from stormsweep.cluster.worker_log import last_words

GREEDY = """
import sys, threading, time
from stormsweep.cluster.worker import WorkerSetup
setup = WorkerSetup(sys.argv[1], 1.0, [], {})
threading.Thread(target=setup._watch_memory, args=("0",), daemon=True).start()
time.sleep(20)
"""


def test_a_worker_gives_its_memory_back_where_it_cannot_be_written_down_why(tmp_path: Path) -> None:
    """A folder that is not there refuses as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(tmp_path / "gone")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (OUT_OF_MEMORY_EXIT, "")


class Log:
    """A log that processes of one name write to, one after another."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._patch = path, monkeypatch
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", root.handlers[:])

    def write(self, pid: int, text: str) -> None:
        with open(self.path, "a", encoding="utf-8") as stream, self._patch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            patch.setattr("os.getpid", lambda: pid)
            worker_log.begin()
            stream.write(text)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(tmp_path / "worker-0.log", monkeypatch)


def test_last_words_are_those_of_the_process_that_was_lost(log: Log) -> None:
    log.write(11, "no checkpoint: No space left\n")
    log.write(12, "in the midst of a li")  # Killed in it.
    log.write(13, "")
    said = "; the last line of worker-0.log: "
    assert last_words(log.path, 11) == f"{said}no checkpoint: No space left"
    assert last_words(log.path, 12) == f"{said}in the midst of a li"
    assert last_words(log.path, 13) == "", "it wrote nothing"
    assert last_words(log.path, 14) == "", "it did not come so far"
    log.write(11, "")  # Numbers come again.
    assert last_words(log.path, 11) == ""


def test_a_process_begins_without_a_task(log: Log) -> None:
    worker_log.at("run 5 to epoch 3")
    log.write(11, "fresh\n")
    assert last_words(log.path, 11) == "; the last line of worker-0.log: fresh"


def test_last_words_of_a_process_that_says_much_are_found_too(log: Log) -> None:
    log.write(11, "of another session\n")
    log.write(12, "epoch\n" * 20_000 + "and then nothing\n")
    assert last_words(log.path, 12) == "; the last line of worker-0.log: and then nothing"
    log.write(13, "fresh\n")
    assert last_words(log.path, 12) == "; the last line of worker-0.log: and then nothing"
    assert last_words(log.path, 13) == "; the last line of worker-0.log: fresh"


def test_the_log_of_one_job_is_read_without_a_process(tmp_path: Path) -> None:
    path = tmp_path / "slurm-7.out"
    path.write_text("Killed\n\n")
    assert last_words(path) == "; the last line of slurm-7.out: Killed"
    assert last_words(tmp_path / "slurm-8.out") == ""
