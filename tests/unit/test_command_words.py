"""Losing these: a printed command that does something else, or nothing, when it is typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import stormsweep
from stormsweep.cli.begin import init
from stormsweep.cli.words import failures
from stormsweep.records import RunFailed


def test_init_prints_a_command_that_a_shell_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init(Path("my study"))
    line = capsys.readouterr().out.strip().rpartition(": ")[2]
    assert shlex.split(line) == ["stormsweep", "run", "my study/study.toml"]


def test_no_command_is_worded_with_a_path_as_it_stands() -> None:
    """`errors.typed` quotes; a path put into a text by hand breaks at its first space."""
    bare = re.compile(r"stormsweep( [a-z-]+)+ \{(?!typed|shlex)")
    found = [
        f"{path.name}: {hit.group()}"
        for path in Path(stormsweep.__file__).parent.rglob("*.py")
        for hit in bare.finditer(path.read_text(encoding="utf-8"))
        if "import" not in hit.group()
    ]
    assert not found


def failed(run: str, reason: str, detail: str = "") -> RunFailed:
    return RunFailed(run, 0, 5, "error", reason, "worker-1", 1, detail)


def test_a_reason_is_said_once_for_all_runs_that_failed_for_it() -> None:
    """Losing this: 54 lines of one mistake in a builder, and nothing seen of the other."""
    many = [failed(f"a-f{fold}", "net raised ValueError (m.py:2)", "...") for fold in range(5)]
    assert list(failures([*many, failed("b-f0", "diverged")], Path("runs/x"))) == [
        "Failed: 5 runs (error): net raised ValueError (m.py:2)",
        "  a-f0, a-f1, a-f2 and 2 more",
        "Failed: run b-f0 (error): diverged",
        "Traceback: runs/x/logs/driver.log",
    ]
    assert list(failures([failed("b-f0", "diverged")], Path("runs/x"))) == [
        "Failed: run b-f0 (error): diverged"
    ]
