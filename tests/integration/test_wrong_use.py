"""Losing these: a traceback, a half-written study or a silent nothing for a user's slip."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stormsweep.errors import DataError
from stormsweep.study.audit import audit
from stormsweep.study.study import Study
from stormsweep.study.watching import Silent

from .conftest import MODELS, called, digits_study, stormsweep


def _files(folder: Path) -> set[Path]:
    passed_over = {"data", "__pycache__"}
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {path for path in found if not passed_over & set(path.parts)}


def refused(
    folder: Path,
    *arguments: str | Path,
    by: Callable[..., subprocess.CompletedProcess[str]] = called,
) -> str:
    """Run what must be refused: exit code 2, one line, nothing written but prepared data.

    Python may keep the user's own modules, compiled, beside them.
    """
    before = _files(folder)
    done = by(folder, *arguments)
    after = _files(folder)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert after == before, "something was written"
    lines = [line for line in done.stderr.splitlines() if line.startswith("stormsweep: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_a_missing_study_file(tmp_path: Path) -> None:
    assert "none.toml: there is no such file" in refused(tmp_path, "run", "none.toml")
    (tmp_path / "hail.toml").touch()
    said = "hial.toml: there is no such file (did you mean 'hail.toml'?)"
    assert said in refused(tmp_path, "run", "hial.toml")
    assert "hail: there is no such study (did you mean 'hail.toml'?)" in refused(
        tmp_path, "run", "hail"
    )


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    for name in ("hail-tpe", "hail-asha"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "study.toml").touch()
    (tmp_path / "runs" / "compare-hail").mkdir()
    there = "there are runs/hail-asha, runs/hail-tpe"
    near = "(did you mean 'runs/hail-tpe'?)"
    for verb in ("status", "results", "report", "run"):
        said = refused(tmp_path, verb, "runs/hail-tpex")
        assert said.endswith(f"runs/hail-tpex: there is no such study {near}; {there}")
    assert refused(tmp_path, "status", "runs/nope").endswith(
        f"runs/nope: there is no such study; {there}"
    )
    # Without its folder, as it is called.
    assert refused(tmp_path, "status", "hail-tpe").endswith(
        f"hail-tpe: there is no such study {near}; {there}"
    )
    for number in range(9):
        (tmp_path / "runs" / f"x{number}").mkdir()
        (tmp_path / "runs" / f"x{number}" / "journal.jsonl").touch()
    assert refused(tmp_path, "status", "runs/nope").endswith("and 3 more")
    assert "runs/hail-tpex: there is no such study (did" in refused(
        tmp_path, "compare", "runs/x1", "runs/hail-tpex"
    )


def test_bad_toml(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[study\n")
    # As users meet it: what is said while Python starts and ends would be seen as well.
    message = refused(tmp_path, "run", "bad.toml", by=stormsweep)
    assert "bad.toml: is not valid TOML" in message


@pytest.mark.parametrize(
    ("table", "lines", "said"),
    [
        ("search", 'stategy = "grid"', "unknown key 'search.stategy' (did you mean 'strategy'?)"),
        ("search__space", "batch_size = []", "search.space.batch_size: given []"),
        ("site", 'workers = "two"', "site.workers: given 'two'; must be a whole number"),
        ("search", 'metric = "auc"', "search.metric: given 'auc'; must be one of"),
        ("data", 'source = "npz"\npath = "none.npz"', "none.npz"),
        ("site", 'use = "taki"', "site.use: given 'taki'; known sites are local"),
    ],
)
def test_a_mistake_in_the_study_file(tmp_path: Path, table: str, lines: str, said: str) -> None:
    study = digits_study(tmp_path, **{table: lines})
    message = refused(tmp_path, "run", study)
    assert said in message


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("no_such_package.models:net", "there is no module 'no_such_package'"),
        ("no_such_file.py:net", "there is no file"),
    ],
)
def test_a_builder_that_is_not_there(tmp_path: Path, build: str, said: str) -> None:
    study = digits_study(tmp_path, model=f'build = "{build}"')
    assert said in refused(tmp_path, "run", study)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_misspelt_hyperparameter_is_refused_before_data_are_prepared(
    tmp_path: Path, command: str
) -> None:
    study = digits_study(
        tmp_path,
        data=f'source = "twin"\ncache = "{tmp_path}/data"',
        model=f'build = "{MODELS}:dense"',
        search__space="learning_rat = [0.01]\nepochs = [1]",
    )
    message = refused(tmp_path, command, study)
    assert "dense does not take 'learning_rat' (did you mean 'learning_rate'?)" in message
    assert not (tmp_path / "data").exists()


def test_a_builder_that_only_a_worker_finds_out_about(tmp_path: Path) -> None:
    """Its source alone does not tell; what else a worker may find is in the models' unit tests."""
    (tmp_path / "mine.py").write_text("def net(width): ...\n\n\nnet = [net][0]\n")
    study = digits_study(
        tmp_path,
        model='build = "mine.py:net"',
        search__space="wide = [1]\nepochs = [1]",
        site="workers = 1",
    )
    message = refused(tmp_path, "run", study, by=stormsweep)
    assert "net does not take 'wide'" in message


def test_a_plan_refuses_a_study_that_was_edited(tmp_path: Path) -> None:
    """Losing this: "nothing is left to train" for a study that `run` refuses."""
    study = digits_study(tmp_path)
    begun = tmp_path / "runs" / tomllib.loads(study.read_text())["study"]["name"]
    begun.mkdir(parents=True)
    (begun / "study.toml").write_text(study.read_text().replace("seed = ", "seed = 1"))
    (begun / "journal.jsonl").write_text("begun\n")
    assert "study.seed" in refused(tmp_path, "plan", study)


def table(folder: Path, groups: list[int], labels: list[int]) -> None:
    np.savez(
        folder / "digits.npz",
        inputs=np.linspace(0, 1, len(labels) * 3, dtype="float32").reshape(-1, 3),
        labels=np.array(labels),
        day=np.array(groups),
    )


def test_more_folds_than_groups(tmp_path: Path) -> None:
    study = digits_study(
        tmp_path,
        data=f'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ngroups = {{day = "day"}}\n'
        f'cache = "{tmp_path}/data"',
        validation='folds = 4\ngroup_by = "day"',
    )
    table(tmp_path, [0] * 10 + [1] * 10 + [2] * 10, [0, 1] * 15)
    message = refused(tmp_path, "run", study)
    assert "4" in message
    assert "3" in message
    assert "fold" in message


def test_a_validation_fold_with_one_class(tmp_path: Path) -> None:
    study = digits_study(
        tmp_path,
        data=f'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ngroups = {{day = "day"}}\n'
        f'cache = "{tmp_path}/data"',
        validation='folds = 2\ngroup_by = "day"',
    )
    table(tmp_path, [0] * 10 + [1] * 10, [0] * 10 + [0, 1] * 5)
    message = refused(tmp_path, "run", study)
    assert "fold" in message
    assert "has no event" in message


def test_what_only_the_data_tell_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """Losing this: after hours, a best score that days on both sides made, and no way to verify."""
    (tmp_path / "mine.py").write_text(
        "def load():\n"
        "    days = ['2014-05-01'] * 10 + ['2014-05-02'] * 10 + ['2015-05-01'] * 10\n"
        "    return {'inputs': [[float(case)] for case in range(30)], 'target': [1] + [0] * 29,\n"
        "            'groups': {'run_date': days}}\n"
    )
    study = digits_study(
        tmp_path,
        data=f'source = "{tmp_path}/mine.py:load"\ntest_from = 2015-01-01\n'
        f'cache = "{tmp_path}/data"',
        validation='split = "stratified"\nfolds = 2',
    )
    notes: list[str] = []
    watcher = Silent()
    watcher.note = notes.append  # type: ignore[method-assign]
    # One event is too few for two folds: nothing is trained.
    with pytest.raises(DataError, match="fold"):
        Study.from_toml(study, tmp_path / "runs").run(watcher)
    leaking, unscorable = notes
    assert "cases of one run_date are on both sides of a fold" in leaking
    assert "not verified: the event happened in 0 of 10 cases of the test part" in unscorable
    # An audit would train every protocol, and score none.
    with pytest.raises(DataError, match="0 of 10 cases of the test part"):
        audit(Study.from_toml(study, tmp_path / "runs"))
    assert not (tmp_path / "runs" / "digits" / "audit").exists()


def storms(folder: Path, events: int = 12) -> str:
    """Write a table of 36 storms of 12 days; return what `[data]` says of it."""
    rows = [f"{case / 7},{90 if case % 36 < events else 10},d{case // 3:02}" for case in range(36)]
    (folder / "hail.csv").write_text("\n".join(["cape,hail,day", *rows]) + "\n")
    return (
        f'source = "csv"\npath = "hail.csv"\ninputs = ["cape"]\ntarget = "hail"\nthreshold = 25\n'
        f'groups = {{day = "day"}}\ncache = "{folder}/data"'
    )


@pytest.mark.parametrize(
    ("data", "validation", "said"),
    [
        ({}, "folds = 60", "validation.folds: given 60; the groups of the training part allow at"),
        (
            {"threshold = 25": "threshold = 250"},
            "",
            "data: the training part has no event (0 events",
        ),
        (
            {"cache": "test_fraction = 0.2\ncache"},
            'group_by = "run_date"',
            "validation.group_by: is 'run_date'; must be one that the data have: day, none",
        ),
        (
            {"hail.csv": "hial.csv"},
            "",
            "or folder {here}/hial.csv (did you mean 'hail.csv'?)",
        ),
        ({'"hail"': '"hial"'}, "", "'hial' is no column of {here}/hail.csv (did you mean 'hail'?)"),
        (
            {'source = "csv"': 'source = "npz"', "hail.csv": "digit.npz"},
            "",
            "data.path: there is no file {here}/digit.npz (did you mean 'digits.npz'?)",
        ),
    ],
)
def test_a_plan_refuses_data_as_run_does_before_they_are_prepared(
    tmp_path: Path, data: dict[str, str], validation: str, said: str
) -> None:
    """Losing this: "the data are not prepared yet", for ever, of a slip that `run` names."""
    table = storms(tmp_path)
    if "npz" in str(data):
        table = table.replace('inputs = ["cape"]\n', "")
    for old, new in data.items():
        assert old in table
        table = table.replace(old, new)
    validation = validation if "group_by" in validation else f'{validation}\ngroup_by = "day"'
    study = digits_study(tmp_path, data=table, validation=validation)
    told = refused(tmp_path, "plan", study)
    assert said.format(here=tmp_path) in told
    assert not (tmp_path / "data").exists(), "it prepared them"
    assert refused(tmp_path, "run", study) == told


def test_a_plan_misses_a_function_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('it was imported')\n")
    study = digits_study(tmp_path, data='source = "mnie.py:load"')
    told = refused(tmp_path, "plan", study)
    assert f"there is no file {tmp_path}/mnie.py (did you mean 'mine.py'?)" in told
    study.write_text(study.read_text().replace("mnie.py", "mine.py"))
    assert called(tmp_path, "plan", study).returncode == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            'source = "ncar-storms"\npath = "storms"',
            "data.path: {here}/storms: no such folder of storm files; fetch them with: "
            "stormsweep data fetch {here}/storms",
        ),
        ('source = "twin"\npath = "twin"', "the data are not prepared yet"),
    ],
)
def test_a_plan_needs_no_data_that_can_be_fetched_or_made(
    tmp_path: Path, data: str, said: str
) -> None:
    study = digits_study(tmp_path, data=f'{data}\ncache = "{tmp_path}/data"')
    done = called(tmp_path, "plan", study)
    assert done.returncode == 0, done.stderr
    assert f"time: cannot be foretold: {said.format(here=tmp_path)}" in done.stdout
    study.write_text(study.read_text().replace("folds = 2", 'folds = 2\ngroup_by = "day"'))
    assert "must be one that the data have: run_date, track" in refused(tmp_path, "plan", study)


def test_an_unknown_group(tmp_path: Path) -> None:
    study = digits_study(tmp_path, validation='folds = 2\ngroup_by = "run_date"')
    message = refused(tmp_path, "run", study)
    assert "validation.group_by: is 'run_date'; must be one that the data have: none" in message


def test_an_edited_study_file_no_longer_fits_the_journal(digits: Path, tmp_path: Path) -> None:
    folder = digits.parent.parent
    study = digits_study(
        tmp_path, search__space="batch_size = [32, 64]\nlearning_rate = [0.003]\nepochs = [1, 2]"
    )
    study.write_text(
        study.read_text().replace(f"{tmp_path}/data", f"{folder}/data"), encoding="utf-8"
    )
    message = refused(tmp_path, "run", study, "--runs", digits.parent)
    assert "search.space.learning_rate was [0.003, 0.01], is [0.003]" in message
    assert "'digits-2'" in message


def test_a_damaged_journal(digits: Path, tmp_path: Path) -> None:
    copy = tmp_path / "digits"
    shutil.copytree(digits, copy)
    journal = copy / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace('"', "'", 1)
    journal.write_text("".join(lines))
    for verb in ("run", "status", "results", "report"):
        assert "journal.jsonl: line 4 of" in refused(tmp_path, verb, copy)


def test_a_study_that_was_not_begun(tmp_path: Path) -> None:
    study = digits_study(tmp_path)
    for verb in ("status", "results", "report"):
        assert "the study has not been begun" in refused(tmp_path, verb, study)


def test_a_folder_that_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is no study's directory" in refused(tmp_path, "run", "empty")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rnu",),
        ("run",),
        ("run", "x.toml", "--wrokers", "2"),
        ("run", "x.toml", "--workers", "0"),
        ("run", "x.toml", "--workers", "two"),
        ("results", "x", "--format", "xml"),
        ("data", "synthesize", "folder", "--patches", "3"),
    ],
)
def test_a_mistake_on_the_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused(tmp_path, *arguments, by=stormsweep)
