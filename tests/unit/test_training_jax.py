"""Losing this: the JAX engine trains something else than what runs alone would come to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "on_jax"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["not slow", "slow"])
def test_the_jax_engine_in_a_process_of_its_own(which: str) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, str(FOLDER)],
        capture_output=True,
        text=True,
        # Compiling is most of the time, and what is compiled runs for a moment only.
        env=os.environ
        | {"STORMSWEEP_TEST_JAX": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
