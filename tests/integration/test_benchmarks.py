"""Losing these: benchmarks that break in silence, so that no figure can be taken again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import limit

MEASURE = """
import dataclasses, json, sys
from pathlib import Path
from benchmarks.driver.session import Case, measure
measured = measure(Case(2, 80, 0.001, 0.002), Path(sys.argv[1]))
print(json.dumps(dataclasses.asdict(measured)))
"""


def test_the_driver_is_measured_on_workers_that_sleep(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["tasks"] == 80
    assert 80 * 0.001 <= measured["asleep"] <= 80 * 0.002
    assert 0 < measured["efficiency"] < 1


def test_the_limit_is_not_waited_for_where_a_process_died() -> None:
    """A process kept on no core ends at once, as one for which there is no memory does."""
    with pytest.raises(SystemExit, match="a process died at 1 x 0 memory; for want of memory"):
        limit.measure([("memory",)], {"1 x 0": [[]]}, 1, 0.1)


def test_the_limit_is_refused_on_one_core_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(sys, "argv", ["limit.py"])
    with pytest.raises(SystemExit):
        limit.main()
    assert "error: one core: " in capsys.readouterr().err
