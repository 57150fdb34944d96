"""SweepSearchCV on a real Slurm: losing this, a search stays on the machine that asked for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

from stormsweep import StudyFileError, SweepSearchCV
from stormsweep.records import SplitScored
from stormsweep.results.journal import of_kind, read
from tests.slurm.cluster import MiniSlurm

SITE = """
[site.two]
scheduler = "slurm"
partition = "batch"
walltime = "00:10:00"
nodes = 2
memory_gb = 2
workers_per_node = 1
"""


@pytest.mark.slow
def test_a_search_on_two_nodes_gives_the_scores_of_grid_search(
    tmp_path: Path, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sites.toml").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    X, y = load_breast_cancer(return_X_y=True)
    forest = RandomForestClassifier(n_estimators=60, random_state=0)
    grid = {"max_depth": [2, 4, 8], "max_features": [2, 4]}

    def first_letter(estimator, X, y):  # Known to nobody but this process.
        return estimator.score(X, y)

    search = SweepSearchCV(forest, grid, scoring=first_letter, site="two", directory="kept")
    search.fit(X, y)
    theirs = GridSearchCV(forest, grid).fit(X, y)
    for key in ("mean_test_score", "rank_test_score", "split3_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], theirs.cv_results_[key])
    scored = of_kind(read(tmp_path / "kept" / "journal.jsonl"), SplitScored)
    assert len({one.worker for one in scored}) == 2
    assert "" not in {one.worker for one in scored}
    assert slurm.run("squeue", "--noheader").split() == []
    # Nothing of the data, nor a key, is left in the folder that the nodes share.
    left = {path.name for path in (tmp_path / "kept").iterdir()}
    assert left == {"journal.jsonl", "logs"}


def test_a_site_that_is_not_known_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(StudyFileError, match="given 'tow'; known sites are local; looked at"):
        SweepSearchCV(RandomForestClassifier(), {}, site="tow", directory="kept").fit(X, y)
