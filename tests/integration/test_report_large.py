"""The report of a large study: if these fail, it takes all memory, or cannot be mailed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = """
import importlib.util, sys
from pathlib import Path
found = importlib.util.spec_from_file_location("report_benchmark", sys.argv[1])
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
module.build(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), 5, 32)
"""


@pytest.mark.parametrize(
    ("kind", "configurations", "page_mb", "peak_mb"),
    [
        pytest.param("random", 1_000, 3.5, 600, marks=pytest.mark.slow),
        pytest.param("random", 10_000, 6.0, 1024, marks=pytest.mark.slow),
        pytest.param("grid", 10_000, 6.0, 1024, marks=pytest.mark.slow),
    ],
)
def test_a_large_study_fits_into_memory_and_its_page_into_a_mail(
    kind: str, configurations: int, page_mb: float, peak_mb: float, tmp_path: Path
) -> None:
    script, study = ROOT / "benchmarks" / "report.py", tmp_path / "study"
    built = [sys.executable, "-c", BUILD, script, study, kind, str(configurations)]
    subprocess.run(built, check=True)
    done = subprocess.run(
        [sys.executable, script, "--one", study], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["page_mb"] < page_mb
    assert found["peak_mb"] < peak_mb
    text = (study / "report" / "tables" / "configurations.csv").read_text()
    assert text.count("\n") > configurations
