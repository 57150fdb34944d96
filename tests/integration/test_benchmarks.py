"""Losing these: benchmarks that break in silence, so that no figure can be taken again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
