"""Losing these: two workers on one GPU while another is idle, or on a GPU that is another job's."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.cluster import machine
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import Finished, WorkerReady
from stormsweep.config.load import dump_study, load_study
from stormsweep.config.study import StudyFile


@pytest.mark.parametrize(
    ("said", "found"),
    [("0,2", ["0", "2"]), ("GPU-8a", ["GPU-8a"]), ("", []), ("-1", []), ("1,-1,2", ["1"])],
)
def test_gpus_are_those_that_the_job_may_use(
    monkeypatch: pytest.MonkeyPatch, said: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert machine.gpus() == found


def test_without_a_word_nvidias_tool_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n", encoding="utf-8")
    tool.chmod(0o755)
    assert machine.gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\necho no driver; exit 9\n", encoding="utf-8")
    assert machine.gpus() == []


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (None, ["NVIDIA A", "NVIDIA B"]),
        ("1", ["NVIDIA B"]),
        ("GPU-8a", ["NVIDIA A"]),
        ("", []),
        ("MIG-8a", None),
    ],
)
def test_gpus_are_known_by_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str | None, kinds: list[str] | None
) -> None:
    tool = tmp_path / "nvidia-smi"
    lines = r"0, GPU-8a1, NVIDIA A\n1, GPU-9b1, NVIDIA B\n"
    tool.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"--query-gpu=index) printf '0\\n1\\n' ;;\n*) printf '{lines}' ;;\nesac\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if said is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert machine.gpu_names() == kinds


@pytest.mark.parametrize(
    ("engine", "site", "gpus", "layout"),
    [
        ("jax", "", "0,1,2", (3, 4)),
        ("jax", "workers = 1", "0,1,2", (1, 12)),
        ("jax", "workers = 8\nthreads_per_worker = 2", "0,1,2", (3, 2)),
        ("jax", "", "", (1, 12)),
        ("jax", "workers = 2", "", (2, 6)),
        ("tensorflow", "", "0,1,2", (2, 1)),
    ],
)
def test_a_study_gets_a_worker_for_each_gpu(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    engine: str,
    site: str,
    gpus: str,
    layout: tuple[int, int],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(machine, "cores", lambda: 12)
    path = tmp_path / "a.toml"
    path.write_text(f'[study]\nname = "a"\n[engine]\nuse = "{engine}"\n[site]\n{site}\n')
    found = Study.from_toml(path).layout()
    assert found is not None
    assert (found.workers, found.threads) == layout
    # What a session writes down decides the same when it goes on.
    again = StudyFile.model_validate(tomllib.loads(dump_study(load_study(path))))
    assert again == load_study(path)


def test_each_worker_sees_a_gpu_of_its_own(tmp_path: Path) -> None:
    pool = LocalPool(2, 1, 4.0, tmp_path, [], gpus=["3", "GPU-b"])
    seen: dict[str, str] = {}
    end = time.monotonic() + 60
    try:
        while len(seen) < 2:
            assert time.monotonic() < end, "nothing happened in time"
            for event in pool.events(0.1):
                match event:
                    case WorkerReady(name, _, pid):
                        pool.submit(name, pid, "gpu", os.getenv, "CUDA_VISIBLE_DEVICES")
                    case Finished(name, _, found):
                        seen[name] = found
    finally:
        pool.close()
    assert seen == {"0": "3", "1": "GPU-b"}
