"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# Before anything numerical is imported: tests run beside worker processes on few cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from .slurm.cluster import MiniSlurm, why_not  # noqa: E402

# The machines that run this are shared and slow at times: no property test fails by the clock.
# Nor by chance: the same examples each time, and new ones where they are asked for
# (HYPOTHESIS_PROFILE=wander, as `make test-slow` does).
_CALM: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, max_examples=30, **_CALM)
settings.register_profile("wander", **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on Slurm, and those through the command line: they run beside each other."""
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker("integration")
        if "slurm_daemons" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def slurm_daemons() -> Iterator[MiniSlurm]:
    """Start a real Slurm of four small nodes, once for all tests."""
    reason = why_not()
    if reason is not None:
        pytest.skip(f"no Slurm can be started here: {reason}")
    with MiniSlurm() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_daemons: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniSlurm]:
    """Give a test the real Slurm, idle, as the one that commands meet; end the test's jobs."""
    for name, value in slurm_daemons.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_daemons
    slurm_daemons.cancel_all()
