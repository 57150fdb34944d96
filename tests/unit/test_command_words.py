"""Losing these: a printed command that does something else, or nothing, when it is typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import stormsweep
from stormsweep.cli.begin import init
from stormsweep.cli.show import status
from stormsweep.cli.words import failures
from stormsweep.records import RunFailed
from stormsweep.results import facts, journal
from tests.journals import simulate, task, writer


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


def test_status_says_what_is_still_failed_and_each_reason_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losing this: fifty lines of one mistake, and a run listed that was trained since."""
    wrong = ("error", "no such layer", "")
    fail = {0: ("diverged", "loss is nan", ""), 1: wrong, 2: wrong}
    directory = simulate(tmp_path / "study", {"x": [1, 2], "epochs": [3]}, fail=fail)
    runs = facts.planned_runs(journal.read(directory / "journal.jsonl"))
    first, second, third = list(runs.values())[:3]
    status(directory)
    told = capsys.readouterr().out
    assert f"  failed  run {first.run} (diverged): loss is nan" in told.splitlines()
    assert "  failed  2 runs (error): no such layer" in told.splitlines()
    assert f"            {second.run}, {third.run}" in told.splitlines()
    with writer(directory / "journal.jsonl") as append:
        later = task(first, 0, 3, started=2e9)
        append(later.stopped, later)
    status(directory)
    told = capsys.readouterr().out
    assert "diverged" not in told
    assert told.count("no such layer") == 1
