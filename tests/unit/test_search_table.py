"""Losing these: a search of what nobody meant, found out hours later."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from stormsweep.config.load import dump_study, load_study
from stormsweep.config.study import SearchTable
from stormsweep.errors import JournalError, StudyFileError
from stormsweep.scaling.design import Work
from stormsweep.scaling.layouts import Layout
from stormsweep.search.space import Space
from stormsweep.study.audit import audit
from stormsweep.study.ground import Ground
from stormsweep.study.scale import scale
from stormsweep.study.study import Study
from tests import journals

BASE = '[study]\nname = "a"\n[search]\n'
SPACE = "[search.space]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('strategy = "tpee"', "given 'tpee'; must be one of grid, random, sobol, tpe"),
        ('strategy = "tpee"', "(did you mean 'tpe'?)"),
        ('objectives = ["loss"]', "search.objectives: given ['loss'] beside strategy = 'grid'"),
        ("reduction = 4", "search.reduction: given 4 beside strategy = 'grid'"),
        ("trials = 40", 'search.trials: given 40 beside strategy = "grid", which tries all that'),
        (
            'strategy = "asha"\nsampler = "grid"\ntrials = 40\n' + SPACE + "epochs = [1, 2]",
            'search.trials: given 40 beside sampler = "grid"',
        ),
        ('strategy = "tpe"\nfirst_folds = 1', "it is for halving, hyperband, asha; remove it"),
        ('strategy = "tpe"\nsampler = "sobol"', "search.sampler: given 'sobol' beside"),
        (
            'strategy = "nsga2"\nobjectives = ["loss", "los"]',
            "search.objectives: given 'los'; must be of roc_auc",
        ),
        (
            'strategy = "nsga2"\nobjectives = ["loss", "csi"]',
            "search.metric, 'roc_auc', must be among them",
        ),
        (
            'strategy = "nsga2"\nobjectives = ["roc_auc", "roc_auc"]',
            "given 'roc_auc' twice; must be different scores",
        ),
        (
            'strategy = "asha"\nsampler = "hyperband"\n' + SPACE + "epochs = [1, 2]",
            "search.sampler: given 'hyperband'; must be one of grid, random",
        ),
        (
            'strategy = "asha"\n' + SPACE + "x = [1, 2]",
            "search.space.epochs: given nothing; asha needs a list, such as [1, 3, 9]",
        ),
        (
            'strategy = "asha"\n' + SPACE + "epochs = {low = 1, high = 9, integer = true}",
            "search.space.epochs: given a range; asha needs a list",
        ),
        (
            'strategy = "asha"\nconstraints = ["epochs * x < 9"]\n'
            + SPACE
            + "epochs = [1, 2]\nx = [1, 2]",
            "'epochs * x < 9' names epochs, which are many in a trial of asha",
        ),
        (
            'strategy = "asha"\n'
            + SPACE
            + "epochs = [1, 2]\nx = {values = [1], when = {epochs = [1]}}",
            "search.space.x.when: names epochs, which are many in a trial of asha",
        ),
        (
            'strategy = "asha"\nfirst_folds = 4\n' + SPACE + "epochs = [1, 2]",
            "search.first_folds: given 4; must be at most 3, the folds of [validation]",
        ),
        (
            'strategy = "asha"\nsampler = "grid"\n'
            + SPACE
            + "epochs = [1, 2]\nx = {low = 0, high = 1}",
            "search.space.x: given a range; a grid needs a list of values",
        ),
        (
            'strategy = "cma-es"\n' + SPACE + 'kind = ["a", "b"]\nx = [1]',
            'search.strategy: given "cma-es", which moves along numbers',
        ),
        (
            SPACE + "x = {values = [1], when = {opt = [1]}}\noptimizer = [1]",
            "search.space.x.when: names opt; must be another hyperparameter of search.space: opti",
        ),
        (SPACE + "x = {values = [1], when = {x = [1]}}", "search.space.x.when: names x; must be"),
        (
            SPACE + 'x = {values = [1], when = {opt = ["b"]}}\nopt = ["a"]',
            "search.space.x.when.opt: given 'b', which search.space.opt never is",
        ),
        (
            SPACE + "x = {values = [1], when = {opt = [true]}}\nopt = [1]",
            "search.space.x.when.opt: given True, which search.space.opt never is",
        ),
        (
            'strategy = "tpe"\n'
            + SPACE
            + "x = {values = [1], when = {n = [5]}}\nn = {low = 1, high = 4, integer = true}",
            "search.space.x.when.n: given 5, which search.space.n never is",
        ),
        (
            SPACE
            + "x = {values = [1], when = {y = [1]}}\ny = {values = [1], when = {x = [1]}}\nz = [1]",
            "search.space: when: x and y depend on each other; there must be no circle",
        ),
        (SPACE + "x = {values = [1], when = {y = []}}\ny = [1]", "x.when.y: given []; must have"),
        (SPACE + "x = {values = [1, 1], when = {y = [1]}}\ny = [1]", "x.values: given 1 twice"),
        (SPACE + "x = {values = [1]}", "search.space.x.when: is missing"),
        (SPACE + "x = {values = [], when = {y = [1]}}\ny = [1]", "search.space.x.values: given []"),
        (
            SPACE + "x = {values = [1], wen = {y = [1]}}\ny = [1]",
            "unknown key 'search.space.x.wen' (did you mean 'when'?); [search.space.x] takes",
        ),
        (
            SPACE + "epochs = {values = [1, 2], when = {x = [1]}}\nx = [1, 2]",
            "search.space.epochs.when: given {'x': [1]}; every training has epochs, so it cannot",
        ),
        (
            'strategy = "tpe"\n'
            + SPACE
            + "batch_size = {low = 8, high = 64, integer = true, when = {x = [1]}}\nx = [1, 2]",
            "search.space.batch_size.when: given {'x': [1]}; every training has batch_size, so",
        ),
        ('constraints = ["x <="]\n' + SPACE + "x = [1]", "'x <=' is no expression such as"),
        (
            "constraints = [\"__import__('os').system('true')\"]\n" + SPACE + "x = [1]",
            "is not allowed; hyperparameters, numbers and texts",
        ),
        (
            'constraints = ["layer < 3"]\n' + SPACE + "layers = [1]",
            "search.constraints: 'layer < 3' names layer (did you mean 'layers'?); must be of",
        ),
        ('constraints = ["x > 3"]\n' + SPACE + "x = [1, 2]", "none of 2 points of the space"),
        (
            'strategy = "tpe"\nconstraints = ["x > 3"]\n' + SPACE + "x = {low = 1, high = 2}",
            "none of 10,000 points of the space keeps to all of them",
        ),
        ('constraints = ["x * 2"]\n' + SPACE + "x = [1]", "must be a comparison; it is 2, neither"),
        (
            'constraints = ["1 / x < 3"]\n' + SPACE + "x = [1, 0]",
            "'1 / x < 3' cannot be computed (division by zero) at x = 0",
        ),
        (
            "constraints = [\"x < 'a'\"]\n" + SPACE + "x = [1]",
            "cannot be computed ('<' not supported between instances of 'int' and 'str') at x = 1",
        ),
    ],
)
def test_every_mistake_of_a_search_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(BASE + text, encoding="utf-8")
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert len(message.splitlines()) == 1


FULL = """
strategy = "hyperband"
metric = "csi"
trials = 30
sampler = "tpe"
reduction = 4
first_folds = 1
constraints = ["optimizer == 'adam' or momentum * filters < width", "batch_size <= 256"]
[search.space]
epochs = [1, 4, 16]
filters = [4, 8]
optimizer = ["adam", "sgd"]
momentum = {low = 0.5, high = 0.99, when = {optimizer = ["sgd"]}}
nesterov = {values = [true, false], when = {optimizer = ["sgd"], filters = [8]}}
[model.parameters]
width = 6
"""


def test_a_search_with_everything_reads_back_as_it_was(tmp_path: Path) -> None:
    path, copy = tmp_path / "study.toml", tmp_path / "copy.toml"
    path.write_text(BASE + FULL, encoding="utf-8")
    study = load_study(path)
    copy.write_text(dump_study(study), encoding="utf-8")
    assert load_study(copy) == study


def test_a_study_of_before_still_loads(tmp_path: Path) -> None:
    """Losing this: a study written out with all defaults is refused by the very next session."""
    path = tmp_path / "study.toml"
    path.write_text(BASE + SPACE + "epochs = [1, 2]", encoding="utf-8")
    path.write_text(dump_study(load_study(path)), encoding="utf-8")
    assert load_study(path).search.strategy == "grid"
    # Nor one that was begun when `trials` was not refused of a grid.
    path.write_text(path.read_text().replace("trials = 20", "trials = 40"), encoding="utf-8")
    (tmp_path / "journal.jsonl").touch()
    assert load_study(path).search.trials == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'strategy = "asha"\n' + SPACE + "epochs = [9]",
            "search.space.epochs: given [9], where no trial can be dropped; asha needs two or more",
        ),
        (
            'strategy = "hyperband"\nfirst_folds = 3\n' + SPACE + "epochs = [9]",
            "hyperband needs two or more, such as [1, 3, 9], or search.first_folds below 3",
        ),
        (
            SPACE + 'width = [8, "16", 32]',
            "search.space.width: given '16' beside numbers; must be a number without quotes",
        ),
        (
            SPACE + 'x = {values = ["1e-3", 0.1], when = {y = [1]}}\ny = [1]',
            "search.space.x.values: given '1e-3' beside numbers; must be a number without quotes",
        ),
        (
            SPACE + 'norm = [true, "false"]',
            "search.space.norm: given 'false' beside true or false; must be without quotes",
        ),
        (
            SPACE + "norm = [false, true, 2, 3]",
            "search.space.norm: given True beside numbers; must be all numbers, or all true and",
        ),
        (
            SPACE + "norm = [true, false, 1]",
            "search.space.norm: given 1 beside true and false; must be all numbers, or all true",
        ),
        (
            SPACE + "rate = [false, 0.0, 0.5]",
            "search.space.rate: given False beside 0, which is the same; must be one of the two",
        ),
        (
            SPACE + 'width = ["8", "1e1"]',
            "search.space.width: given ['8', '1e1']; must be numbers without quotes",
        ),
        (
            SPACE + 'learning_rate = ["0.003", "0.01"]',
            "search.space.learning_rate: given '0.003'; must be a number above 0, without quotes",
        ),
        (
            SPACE + "learning_rate = [0.01, -0.01]",
            "search.space.learning_rate: given -0.01; must be a number above 0",
        ),
        (
            SPACE + "learning_rate = {values = [0], when = {y = [1]}}\ny = [1]",
            "search.space.learning_rate.values: given 0; must be a number above 0",
        ),
        (
            'strategy = "random"\n' + SPACE + "learning_rate = {low = 0, high = 0.1}",
            "search.space.learning_rate.low: given 0.0; must be a number above 0",
        ),
        (
            "[model.parameters]\nlearning_rate = -0.01",
            "model.parameters.learning_rate: given -0.01; must be a number above 0",
        ),
    ],
)
def test_what_is_hardly_meant_is_refused_in_one_line_before_it_is_begun(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(BASE + text, encoding="utf-8")
    study = Study.from_toml(path, tmp_path / "runs")
    for begin in (Study.check, Study.outline, Study.run, scale, audit):
        with pytest.raises(StudyFileError) as caught:
            begin(study)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert said in message
        assert len(message.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["a.toml"], "something was begun"


SLIPS = 'strategy = "asha"\n' + SPACE + 'epochs = [9]\nx = [8, "16", true]'


def begun(runs: Path, text: str) -> None:
    """Leave what a session of a study leaves."""
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "study.toml").write_text(text, encoding="utf-8")
    with journals.writer(runs / "a" / "journal.jsonl") as write:
        write(0.0, journals.about({"epochs": [9], "x": [8, "16", True]}, 3))


def test_a_study_begun_with_what_is_hardly_meant_goes_on_under_its_name(tmp_path: Path) -> None:
    """Losing this: a new version keeps a user from scores of a study that an old one ran."""
    path, runs = tmp_path / "mine.toml", tmp_path / "runs"
    path.write_text(BASE + SLIPS, encoding="utf-8")
    with pytest.raises(StudyFileError, match="given '16' beside numbers"):
        Study.from_toml(path, runs).check()
    begun(runs, dump_study(load_study(path)))
    for named in (path, runs / "a"):
        study = Study.from_toml(named, runs)
        study.check()
        assert len(study.entries()) == 1
        assert study.file.search.space == {"epochs": [9], "x": [8, "16", True]}
    (runs / "a" / "study.toml").unlink()
    with pytest.raises(JournalError, match="is missing, so that nobody knows"):
        Study.from_toml(path, runs).check()


def test_layouts_measured_with_what_is_hardly_meant_are_measured_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BASE + SLIPS, encoding="utf-8")
    ground = Ground.of(Study.from_toml(path, tmp_path / "runs"))
    ground.folder.mkdir(parents=True)
    about = dict.fromkeys(("site", "node", "runs", "weak", "why", "left_out", "sockets", "engine"))
    about |= {"cells": {}, "machine": ground.machine}
    (ground.folder / "scale.json").write_text(json.dumps(about), encoding="utf-8")
    (ground.folder / "study.toml").write_text(dump_study(ground.whole.file), encoding="utf-8")
    assert ground.kept() == about
    # Each measurement is a study of its own.
    ground.study(Layout(1, 1), work=Work((), 0, ""), runs=0).check()


def test_a_sound_study_grows_by_nothing_that_is_hardly_meant(tmp_path: Path) -> None:
    path, runs = tmp_path / "mine.toml", tmp_path / "runs"
    path.write_text(BASE + SPACE + "x = [8]", encoding="utf-8")
    begun(runs, dump_study(load_study(path)))
    path.write_text(BASE + SPACE + 'x = [8, "16"]', encoding="utf-8")
    with pytest.raises(StudyFileError, match=f"{path}: .* given '16' beside numbers"):
        Study.from_toml(path, runs).check()


@pytest.mark.parametrize(
    "values",
    [
        "[1, 0.5]",
        '["none", 0.5]',
        '["auto", true]',
        '["8", "none"]',
        "[[8], [8, 16]]",
        "[3, [3, 5]]",
        "[false, 0.2]",
    ],
)
def test_kinds_that_may_be_meant_together_stand_together(tmp_path: Path, values: str) -> None:
    """Losing this: a choice of a number or none, which TOML has no other word for."""
    path = tmp_path / "a.toml"
    path.write_text(BASE + SPACE + f"x = {values}", encoding="utf-8")
    study = Study.from_toml(path, tmp_path)
    study.check()
    assert study.file.search.space == tomllib.loads(f"x = {values}")


def test_one_milestone_is_enough_where_folds_come_first(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    text = BASE + 'strategy = "asha"\nfirst_folds = 1\n' + SPACE + "epochs = [9]"
    path.write_text(text, encoding="utf-8")
    Study.from_toml(path, tmp_path).check()


def space(constraints: list[str] | None = None, **values: Any) -> Space:
    table = {"space": values, "strategy": "tpe", "constraints": constraints or []}
    return Space.of(SearchTable.model_validate(table), {"width": 3})


def test_conditions_may_hang_on_conditions() -> None:
    """``c`` hangs on ``b``, which hangs on ``a``: without ``b`` there is no ``c`` either."""
    chained = space(
        c={"values": [1, 2], "when": {"b": [True]}},
        b={"values": [True, False], "when": {"a": ["x"]}},
        a=["x", "y"],
    )
    points = list(chained.grid())
    assert points == [
        {"c": 1, "b": True, "a": "x"},
        {"a": "y"},
        {"b": False, "a": "x"},
        {"c": 2, "b": True, "a": "x"},
    ]
    assert list(chained.names) == ["a", "b", "c"]


def test_a_constraint_that_names_what_is_not_there_holds() -> None:
    found = space(
        ["depth * width < 7 or depth == 9"],
        depth={"values": [1, 2, 3], "when": {"deep": [True]}},
        deep=[True, False],
    )
    points = [tuple(point.values()) for point in found.grid()]
    assert points == [(1, True), (False,), (2, True)]


def test_a_whole_number_stays_one_where_a_list_has_its_equal_too() -> None:
    both = space(x=[1, 1.0, 2])
    assert [type((both.fit({"x": one}) or {})["x"]) for one in (1, 1.0, 2.0)] == [int, float, int]


def test_a_point_fits_as_the_space_would_say_it_or_not_at_all() -> None:
    found = space(
        ["rate < 0.5 or optimizer == 'sgd'"],
        rate={"low": 0, "high": 1},
        optimizer=["sgd", "adam"],
        momentum={"low": 0, "high": 1, "when": {"optimizer": ["sgd"]}},
        layers={"low": 1, "high": 4, "integer": True},
    )
    adam = {"rate": 0, "optimizer": "adam", "layers": 2.0, "width": 3, "momentum": 0.5}
    assert found.fit(adam) == {"rate": 0.0, "optimizer": "adam", "layers": 2}
    assert isinstance((found.fit(adam) or {})["layers"], int)
    for wrong in (
        {"rate": 0.9},
        {"layers": 2.5},
        {"layers": True},
        {"rate": 1.1},
        {"optimizer": "lion"},
        {"optimizer": "sgd", "momentum": "much"},
    ):
        assert found.fit({**adam, **wrong}) is None
    assert found.fit({"rate": 0, "layers": 2}) is None
    assert found.fit({"rate": 0, "layers": 2, "optimizer": "sgd"}) is None


def test_the_tables_of_the_page_load(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "strategies.md"
    blocks = re.findall(r"```toml\n(\[search\].*?)```", page.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    for block in blocks:
        path = tmp_path / "study.toml"
        path.write_text('[study]\nname = "a"\n' + block, encoding="utf-8")
        load_study(path)
