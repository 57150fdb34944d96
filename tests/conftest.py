"""What all tests share."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

# Before anything numerical is imported: tests run beside worker processes on few cores.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from .slurm.cluster import MiniSlurm, why_not  # noqa: E402

T = TypeVar("T")

# The machines that run this are shared and slow at times: no property test fails by the clock.
# Nor by chance: the same examples each time, and new ones where they are asked for
# (HYPOTHESIS_PROFILE=wander, as `make test-slow` does).
_CALM: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, max_examples=30, **_CALM)
settings.register_profile("wander", **_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


#: Files that are begun before others, because they take longest.
_LONG = (
    *("test_submit", "test_site", "test_faults", "test_report", "test_strategies", "test_verify"),
    *("test_remote_pool", "test_prepare", "test_training"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need, and bring them in order.

    Where pytest has several processes (``-n``), each takes a file when it has none: the long ones
    go first, or everybody would wait for them at the end.
    """
    places = {}
    for item in items:
        if "integration" in item.path.parts:
            item.add_marker("integration")
        if "slurm_daemons" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")
        long = [place for place, name in enumerate(_LONG) if item.path.stem.startswith(name)]
        places[item] = not long, *long[:1], "unit" in item.path.parts
    items.sort(key=places.__getitem__)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], T]], T]:
    """Return a function that makes something once for all processes of this test run.

    It is given a name and what makes it in a folder, and hands on what that returned, which JSON
    must be able to say.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Callable[[Path], T]) -> T:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answer = shared / f"{name}.json"
            if not answer.exists():
                folder.mkdir(exist_ok=True)
                answer.write_text(json.dumps(make(folder)), encoding="utf-8")
        made: T = json.loads(answer.read_text(encoding="utf-8"))
        return made

    return once


@pytest.fixture
def only_sections(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that has reports be written with some sections only, named in order.

    For what is not about the others: drawing all their figures takes ten seconds.
    """

    def choose(*names: str) -> None:
        from stormsweep.report.sections import SECTIONS

        few = [section for section in SECTIONS if section.name in names]
        assert [section.name for section in few] == list(names)
        monkeypatch.setattr("stormsweep.report.write.SECTIONS", few)

    return choose


@pytest.fixture(scope="module")
def sketched() -> Iterator[None]:
    """Save the figures of a file's tests with few pixels and not as PDF, in half the time.

    For what is not about these files; the drawings in pages are the same.
    """
    from stormsweep.report import style

    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(style._KINDS, "pdf")
        patch.setattr(style, "_DPI", 50)
        yield


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
