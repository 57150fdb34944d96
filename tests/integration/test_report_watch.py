"""`report --watch`: if it fails, a page tells of yesterday, or goes on loading itself for ever."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stormsweep.study.lock import DriverLock
from tests import journals

SPACE = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}

#: The command line, whose reports have no figures: it is about when they are written.
QUICK = """
from stormsweep.cli import main
from stormsweep.report import sections, write

write.SECTIONS = [section for section in sections.SECTIONS if section.name == "failures"]
main()
"""


def watching(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", QUICK, "report", str(directory)]
    return subprocess.Popen(
        [*command, "--watch", "--every", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def page_of(directory: Path) -> str:
    page = directory / "report" / "index.html"
    return page.read_text(encoding="utf-8") if page.exists() else ""


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_the_report_is_written_until_the_study_is_finished(tmp_path: Path) -> None:
    directory = journals.simulate(tmp_path / "study", SPACE, stops=(90.0,), go_on=False)
    whole = journals.simulate(tmp_path / "whole", SPACE)
    with DriverLock(directory):
        process = watching(directory)
        until(lambda: "Not finished" in page_of(directory), process)
        assert 'data-reload="1.0"' in page_of(directory)
        (whole / "journal.jsonl").replace(directory / "journal.jsonl")
        until(lambda: "Finished: 12 of 12" in page_of(directory), process)
        # A driver that is at work may write more.
        assert process.poll() is None
    said, wrong = process.communicate(timeout=240)
    assert process.returncode == 0, wrong
    assert "taki-2019: finished. Report:" in said
    assert "data-reload" not in page_of(directory).partition("<main>")[0]
    assert [path.name for path in directory.glob(".report*")] == []


def test_who_stops_watching_leaves_a_page_that_stays(tmp_path: Path) -> None:
    directory = journals.simulate(tmp_path / "study", SPACE, stops=(90.0,), go_on=False)
    with DriverLock(directory):
        process = watching(directory)
        until(lambda: "data-reload" in page_of(directory).partition("<main>")[0], process)
        process.send_signal(signal.SIGINT)
        said, wrong = process.communicate(timeout=240)
    assert process.returncode == 0, wrong
    assert "the study goes on" in said
    assert "data-reload" not in page_of(directory).partition("<main>")[0]


def test_a_study_that_does_not_run_is_reported_once(tmp_path: Path) -> None:
    directory = journals.simulate(tmp_path / "study", SPACE, stops=(90.0,), go_on=False)
    process = watching(directory)
    said, wrong = process.communicate(timeout=240)
    assert process.returncode == 0, wrong
    assert f"stopped; go on with: stormsweep run {directory}" in said
    assert "data-reload" not in page_of(directory).partition("<main>")[0]
