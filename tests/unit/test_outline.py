"""Losing these: minutes to plan a long study; a plan that `run` does not refuse afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormsweep.cli.run import plan
from stormsweep.errors import DataError
from stormsweep.files import sha256
from stormsweep.models.source import check_source
from stormsweep.results import journal
from stormsweep.study import remaining
from stormsweep.study.study import Study
from tests.journals import simulate as write_study

SPACE = {"batch_size": [128, 512], "learning_rate": [0.001, 0.005], "epochs": [5, 10]}
BUILD = "stormsweep.models:storm_cnn"


@pytest.mark.parametrize("strategy", ["tpe", "asha"])
def test_plan_reads_the_journal_and_has_a_strategy_learn_from_it_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    source = check_source(BUILD, [*SPACE])
    assert source is not None
    directory = write_study(
        tmp_path / "runs" / "taki-2019",
        SPACE,
        stops=(60.0,),
        go_on=False,
        strategy=strategy,
        model={"build": BUILD, "sha256": sha256(source)},
        fold_sizes=[{"epoch_patches": 38_000}] * 3,
    )
    space = "".join(f"{name} = {json.dumps(values)}\n" for name, values in SPACE.items())
    with (directory / "study.toml").open("a") as file:
        file.write(f'\n[search]\nstrategy = "{strategy}"\n[search.space]\n{space}')
    lines = (directory / "journal.jsonl").read_bytes().count(b"\n")
    decode, search_of = journal.decode, remaining.search_of
    read: list[str] = []
    learned: list[Any] = []

    def decoded(line: str) -> Any:
        read.append(line)
        return decode(line)

    def searching(*arguments: Any) -> Any:
        learned.append(arguments)
        return search_of(*arguments)

    monkeypatch.setattr(journal, "decode", decoded)
    monkeypatch.setattr(remaining, "search_of", searching)
    plan(directory)
    told = capsys.readouterr().out
    assert "at most; scores decide which" in told
    assert "\ntime: " in told
    assert len(learned) == 1
    # Whether an edited builder was trained with is seen from the journal's first lines alone.
    first = next(number for number, line in enumerate(read) if '"kind":"task"' in line)
    assert len(read) == lines + first + 1


def test_a_range_of_whole_numbers_is_told_in_whole_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losing this: a user checks for a mistake of kinds that is none."""
    path = tmp_path / "a.toml"
    path.write_text(
        f'[study]\nname = "a"\n[data]\ncache = "{tmp_path}"\n[search]\nstrategy = "random"\n'
        "[search.space]\nwidth = {low = 4, high = 32, integer = true}\n"
        "learning_rate = {low = 0.001, high = 1, log = true}\n"
    )
    plan(path, tmp_path)
    told = capsys.readouterr().out
    assert "width: whole numbers 4 to 32\n" in told
    assert "learning_rate: 0.001 to 1.0, log\n" in told


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        ('folds = 50\ngroup_by = "day"', "validation.folds: given 50; the groups of the training"),
        (
            'folds = 50\ngroup_by = "none"\nsplit = "stratified"',
            "validation.folds: given 50; the rarer class of the training part has 10 of 60 cases",
        ),
        (
            'folds = 3\ngroup_by = "none"\nsplit = "consecutive"',
            "search.metric: given 'roc_auc', which needs both classes",
        ),
    ],
)
def test_plan_refuses_folds_that_the_data_do_not_allow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], validation: str, said: str
) -> None:
    cases = np.arange(60)
    np.savez(
        tmp_path / "cases.npz",
        inputs=np.zeros((60, 8, 8), np.float32),
        labels=(cases % 40 < 5).astype(np.uint8),
        day=cases % 6,
    )
    file = tmp_path / "study.toml"
    file.write_text(
        f'[study]\nname = "a"\n[data]\nsource = "npz"\npath = "{tmp_path / "cases.npz"}"\n'
        f'cache = "{tmp_path / "data"}"\ngroups = {{day = "day"}}\n[validation]\n{validation}\n'
    )
    # Before they are prepared as well: the file is small.
    for _ in range(2):
        with pytest.raises(DataError, match=re.escape(said)):
            plan(file, tmp_path / "runs")
        assert capsys.readouterr().out == ""
        Study.from_toml(file).prepare()


def test_what_is_large_is_not_read_for_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losing this: minutes to plan with a table of gigabytes."""
    (tmp_path / "t.csv").write_text("x,y\n" + "1,0\n" * 9)
    np.savez(tmp_path / "t.npz", inputs=np.zeros((9, 2), np.float32), labels=np.zeros(9))
    for source, more in (("csv", 'inputs = ["x"]\ntarget = "y"\n'), ("npz", "")):
        file = tmp_path / f"{source}.toml"
        file.write_text(
            f'[study]\nname = "{source}"\n[data]\nsource = "{source}"\n'
            f'path = "{tmp_path}/t.{source}"\n{more}cache = "{tmp_path}/data"\n'
        )
        with pytest.raises(DataError, match=r"has no event \(0 events in 9 cases\)"):
            plan(file, tmp_path / "runs")
        with monkeypatch.context() as patch:
            patch.setattr("stormsweep.data.tables.QUICK", 20)
            patch.setattr("stormsweep.data.npz.QUICK", 20)
            plan(file, tmp_path / "runs")
        assert "the data are not prepared yet" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plan_says_where_this_machine_emulates_the_precision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    """Losing this: a night of training that takes fifty times as long as it need."""
    monkeypatch.setattr("stormsweep.cluster.machine.instruction_sets", lambda: ["avx2", "fma"])
    file = tmp_path / "s.toml"
    file.write_text(
        f'[study]\nname = "s"\n[engine]\nprecision = "{precision}"\n'
        "[search.space]\nbatch_size = [128]\nepochs = [1]\n"
    )
    plan(file, tmp_path / "runs")
    said = capsys.readouterr().out
    assert ("engine.precision: " in said) == (precision == "bfloat16")
