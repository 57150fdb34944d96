"""Losing these: a search that runs for hours, and nothing told of it from another shell."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression

from stormsweep import Study, SweepSearchCV
from stormsweep.cli import searched as words
from stormsweep.cli.show import Format, What, results, status
from stormsweep.errors import StudyFileError, UserError
from stormsweep.results.searched import read
from stormsweep.study.lock import DriverLock

IRIS = load_iris(return_X_y=True)
GRID = {"C": [0.001, 0.1, 1.0], "fit_intercept": [True, False]}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> SweepSearchCV:
    directory = tmp_path_factory.mktemp("search")
    return SweepSearchCV(LogisticRegression(max_iter=500), GRID, cv=4, directory=directory).fit(
        *IRIS
    )


def test_status_says_how_far_a_search_is_and_what_is_best(
    search: SweepSearchCV, capsys: pytest.CaptureFixture[str]
) -> None:
    status(Path(search.directory))
    told = capsys.readouterr().out
    assert told.startswith("SweepSearchCV of LogisticRegression, strategy grid\n")
    assert "24 of 24, on 4 splits" in told
    assert f"{search.best_score_:.4f} mean_test_score: C={search.best_params_['C']}" in told
    assert "  at rest   " in told
    with DriverLock(Path(search.directory)):
        status(Path(search.directory))
    assert f"  running   process {os.getpid()} on " in capsys.readouterr().out


def test_results_are_those_of_cv_results(
    search: SweepSearchCV, capsys: pytest.CaptureFixture[str]
) -> None:
    results(Path(search.directory), format=Format.json)
    rows = json.loads(capsys.readouterr().out)
    assert [row["trial"] for row in rows[:1]] == [search.best_index_]
    theirs = search.cv_results_
    for row in rows:
        assert row["mean_test_score"] == pytest.approx(theirs["mean_test_score"][row["trial"]])
        assert row["std_test_score"] == pytest.approx(theirs["std_test_score"][row["trial"]])
        assert row["param_C"] == repr(theirs["params"][row["trial"]]["C"])
    means = [row["mean_test_score"] for row in rows]
    assert means == sorted(means, reverse=True)


def test_a_search_that_was_cut_short_is_told_as_far_as_it_came(
    search: SweepSearchCV, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (Path(search.directory) / "journal.jsonl").read_bytes().splitlines(keepends=True)
    scored = [number for number, line in enumerate(lines) if b'"split"' in line[:60]]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[: scored[10]]))
    found = read(tmp_path)
    assert found is not None
    assert (found.scored, found.failed) == (10, 0)
    assert sorted(found.candidates["splits"], reverse=True)[:3] == [4, 4, 2]
    assert found.candidates["splits"].iloc[:3].tolist() == [4, 4, 2]
    status(tmp_path)
    assert "10 of " in capsys.readouterr().out


def test_several_scores_and_fits_that_fail(tmp_path: Path) -> None:
    grid = {"solver": ["lbfgs", "no such solver"]}
    with pytest.warns(FitFailedWarning):
        SweepSearchCV(
            LogisticRegression(max_iter=500),
            grid,
            cv=2,
            scoring=["accuracy", "f1_macro"],
            refit=False,
            directory=tmp_path,
        ).fit(*IRIS)
    found = read(tmp_path)
    assert found is not None
    assert (found.failed, found.scored) == (2, 4)
    good, bad = found.candidates.to_dict("records")
    assert 0.9 < good["mean_test_f1_macro"] <= 1
    assert np.isnan(bad["mean_test_accuracy"])
    assert not found.ranked_by
    assert found.candidates["trial"].tolist() == [0, 1]
    assert "best      of several scores refit names none" in "\n".join(words.status(found, None))


def _two_scores(estimator, X, y):
    # A score by which the strongest regularization is best, and one by which it is worst.
    return {"weak": -estimator.C, "strong": estimator.C}


def _one_of_two(name, estimator, X, y):
    return _two_scores(estimator, X, y)[name]


@pytest.mark.parametrize("refit", ["weak", "strong"])
@pytest.mark.parametrize(
    "scoring",
    [
        pytest.param(_two_scores, id="function"),
        pytest.param(
            {name: partial(_one_of_two, name) for name in ("weak", "strong")}, id="scorers"
        ),
    ],
)
def test_of_several_scores_the_one_that_refit_names_ranks(
    scoring: object, refit: str, tmp_path: Path
) -> None:
    """Else whoever takes the first row takes a candidate at random."""
    search = SweepSearchCV(
        LogisticRegression(max_iter=500),
        {"C": [0.5, 2.0, 1.0]},
        cv=2,
        scoring=scoring,
        refit=refit,
        directory=tmp_path,
    ).fit(*IRIS)
    found = read(tmp_path)
    assert found is not None
    assert found.candidates["trial"].iloc[0] == search.best_index_
    means = found.candidates[f"mean_test_{refit}"].tolist()
    assert means == sorted(means, reverse=True)
    told = "\n".join(words.status(found, None))
    assert f"{search.best_score_:.4f} mean_test_{refit}: C={search.best_params_['C']}" in told


def _no_score_of_strong(estimator, X, y):
    if estimator.C > 1:
        raise MemoryError("no room")
    return estimator.score(X, y)


def test_status_says_of_how_many_fits_the_scorer_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else `error_score` passes for their scores: 0.0 is one, and the fits did not fail."""
    with pytest.warns(UserWarning, match="Scoring failed"):
        SweepSearchCV(
            LogisticRegression(max_iter=500),
            {"C": [1.0, 2.0]},
            cv=2,
            scoring=_no_score_of_strong,
            error_score=0.0,
            refit=False,
            directory=tmp_path,
        ).fit(*IRIS)
    found = read(tmp_path)
    assert found is not None
    assert (found.scored, found.failed, found.unscored) == (4, 0, 2)
    status(tmp_path)
    told = capsys.readouterr().out
    assert "\n  unscored         2 fits, whose scorer failed; " in told
    assert "\n  failed " not in told


def test_what_is_of_studies_only_is_refused_in_one_line(search: SweepSearchCV) -> None:
    directory = Path(search.directory)
    with pytest.raises(StudyFileError, match=r"is the directory of a SweepSearchCV, not of a"):
        Study.from_toml(directory)
    with pytest.raises(UserError, match=r"--what workers is of studies"):
        results(directory, what=What.workers)


def test_a_study_or_any_other_folder_is_no_search(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / "journal.jsonl").write_text("")
    assert read(tmp_path) is None
