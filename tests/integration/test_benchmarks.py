"""Losing these: benchmarks that break in silence, so that no figure can be taken again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import limit, sweepcv

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


def test_searches_are_compared_within_a_round_and_a_bit_that_differs_is_told() -> None:
    def taken(way: str, number: int, seconds: float, scores: str = "a") -> dict[str, Any]:
        case = {"case": "long fits", "way": way, "round": number, "seconds": seconds}
        return case | {"load_before": 0.1, "fits": 100, "fit_seconds": 20.0, "scores": scores}

    slow = [taken(way, 1, 40.0) for way in sweepcv.WAYS]
    quick = [taken(way, 0, 20.0) for way in sweepcv.WAYS[:2]]
    found = [*slow, *quick, taken(sweepcv.KEPT, 0, 25.0, "b")]
    lines = sweepcv.page(found, small=False).splitlines()
    rows = [line.split(" | ")[3:] for line in lines if line.startswith("| long fits")]
    # The machine was twice as slow in one round: of that no ratio tells.
    assert rows[1][2:] == ["1.00 (1.00 to 1.00)", "+0.0 (+0.0 to +0.0)", "equal to the bit |"]
    assert rows[2][2:] == ["1.12 (1.00 to 1.25)", "+25.0 (+0.0 to +50.0)", "**differ** |"]
