"""SweepSearchCV with workers: if these fail, a long search is lost, or says what it should not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from stormsweep import StudyBusyError, SweepSearchCV, UserError
from stormsweep.records import SplitScored
from stormsweep.results.journal import of_kind, read
from stormsweep.sweepcv import driving
from tests.integration.conftest import gone

IRIS = load_iris(return_X_y=True)
GRID = {"C": [0.01, 0.1, 1.0, 10.0]}


@pytest.fixture
def workers_at_once(monkeypatch):
    """Have workers do all but the first task, however short the search is."""
    monkeypatch.setattr(driving, "hire", lambda spent, done, left, workers: left > 0)
    monkeypatch.setattr(driving, "_SHORT_SECONDS", 0.0)
    # Data of any size go in parts.
    monkeypatch.setattr(driving, "PART_BYTES", 3000)


class Told:
    """A callback of scikit-learn's that notes what it is told."""

    def __init__(self):
        self.heard = []

    def setup(self, estimator, context):
        pass

    teardown = setup

    def on_fit_task_begin(self, estimator, context):
        self.heard.append(f"{context.task_name} begins")

    def on_fit_task_end(self, estimator, context):
        self.heard.append(f"{context.task_name} ends")


class Deadly(ClassifierMixin, BaseEstimator):
    """Takes its process with it."""

    def __init__(self, dies=False):
        self.dies = dies

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_workers_give_the_same_scores_and_say_what_one_process_would(workers_at_once, capfd):
    few = LogisticRegression(max_iter=3)
    with pytest.warns(ConvergenceWarning):
        theirs = GridSearchCV(few, GRID, return_train_score=True).fit(*IRIS)
    # A scorer of this very function must reach the workers, too.
    scoring = {"acc": "accuracy", "one": lambda estimator, X, y: estimator.score(X, y)}
    told = Told()
    ours = SweepSearchCV(
        few, GRID, return_train_score=True, n_jobs=2, verbose=2, scoring=scoring, refit="acc"
    )
    if hasattr(ours, "set_callbacks"):  # Since scikit-learn 1.9.
        ours.set_callbacks(told)
    with pytest.warns(ConvergenceWarning):
        ours.fit(*IRIS)
    for key in theirs.cv_results_:
        if "score" in key and "time" not in key:
            for name in ("acc", "one"):
                mine = ours.cv_results_[key.replace("score", name)]
                np.testing.assert_array_equal(mine, theirs.cv_results_[key])
    if hasattr(ours, "set_callbacks"):
        for what in ("begins", "ends"):
            assert told.heard.count(f"candidate-split-evaluation {what}") == 20
            assert told.heard.count(f"fit {what}") == 1
    printed = capfd.readouterr().out
    assert "Fitting 5 folds for each of 4 candidates, totalling 20 fits" in printed
    assert printed.count("[CV] END") == 20
    assert "distributed" not in printed


@pytest.mark.slow
def test_a_fit_that_kills_its_worker_is_one_failed_fit(workers_at_once, tmp_path):
    search = SweepSearchCV(
        Deadly(), {"dies": [False, True]}, cv=2, n_jobs=2, directory=tmp_path, scoring="accuracy"
    )
    with pytest.warns(FitFailedWarning, match="its worker process died without a word"):
        search.fit(*IRIS)
    assert np.isfinite(search.cv_results_["mean_test_score"][0])
    assert np.isnan(search.cv_results_["mean_test_score"][1])


class Homebound(LogisticRegression):
    """Cannot be taken up by another process."""

    def __setstate__(self, state):
        raise ModuleNotFoundError("No module named 'only_here'")


@pytest.mark.slow
def test_what_a_worker_lacks_is_said_in_one_line(workers_at_once):
    with pytest.raises(UserError, match=r"which may lack a module .*No module named 'only_here'$"):
        SweepSearchCV(Homebound(max_iter=500), GRID, n_jobs=2).fit(*IRIS)


SCRIPT = """
    import sys, time
    from pathlib import Path

    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    from stormsweep import SweepSearchCV

    # A script as people write them: without `if __name__ == "__main__"`.
    class Slow(LogisticRegression):
        def fit(self, X, y):
            with open("fits", "a") as told:
                told.write("x")
            time.sleep(float(Path("seconds").read_text()))
            return super().fit(X, y)

    X, y = load_iris(return_X_y=True)
    search = SweepSearchCV(
        Slow(max_iter=500), {"C": [0.01, 0.1, 1.0, 10.0]}, cv=5, directory="kept",
        n_jobs=int(sys.argv[1]), return_train_score=True,
    )
    search.fit(X, y)
    print(repr([float(score) for score in search.cv_results_["mean_test_score"]]))
"""


def start(folder: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "script.py", str(workers)]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Background jobs of a script (this test run may be one) hand down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def on_record(folder: Path) -> list[SplitScored]:
    journal = folder / "kept" / "journal.jsonl"
    return of_kind(read(journal), SplitScored) if journal.exists() else []


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_goes_on_after_kill_9(tmp_path, workers):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "seconds").write_text("0.7")
    with start(tmp_path, workers) as first:
        until = time.monotonic() + 120
        while len(on_record(tmp_path)) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        if workers == 1:
            with pytest.raises(StudyBusyError, match=r"kept is in use by process \d+ on"):
                SweepSearchCV(LogisticRegression(), GRID, directory=tmp_path / "kept").fit(*IRIS)
        # Stopped, it starts nobody between the look and the end.
        first.send_signal(signal.SIGSTOP)
        orphans = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
    known = on_record(tmp_path)
    assert 4 <= len(known) < 20
    # Workers may be at their last task, of which they would leave a trace.
    assert gone(orphans) == []
    (tmp_path / "fits").unlink()
    (tmp_path / "seconds").write_text("0.0")
    with start(tmp_path, workers) as second:
        printed, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    every = on_record(tmp_path)
    assert every[: len(known)] == known
    assert len({(one.key, one.split) for one in every}) == len(every) == 20
    # What is on record was not fitted again; the best was, once, on all data.
    assert len((tmp_path / "fits").read_text()) == 20 - len(known) + 1
    theirs = GridSearchCV(LogisticRegression(max_iter=500), GRID).fit(*IRIS)
    scores = [float(score) for score in theirs.cv_results_["mean_test_score"]]
    assert printed.strip() == repr(scores)


def interrupted(process: subprocess.Popen[str], when: Callable[[], bool]) -> str:
    """Press Ctrl-C, which all processes of a terminal hear; return what was said of it."""
    until = time.monotonic() + 120
    while not when():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.endswith("\nKeyboardInterrupt\n")
    assert said.count("Traceback") == 1
    assert "During handling" not in said
    return said


def test_ctrl_c_says_what_is_kept_and_the_same_script_goes_on(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "seconds").write_text("0.3")
    with start(tmp_path, 1) as first:
        said = interrupted(first, lambda: len(on_record(tmp_path)) >= 3)
    kept = len(on_record(tmp_path))
    assert 3 <= kept < 20
    line = f"interrupted: {kept} of 20 fits are kept in kept; the same script goes on from there"
    assert said.startswith(f"{line}\nTraceback")
    # Of the way through our own modules, the least that Python shows.
    assert said.count("stormsweep/sweepcv") <= 2
    (tmp_path / "seconds").write_text("0.0")
    with start(tmp_path, 1) as second:
        printed, said = second.communicate(timeout=120)
    assert (second.returncode, said) == (0, "")
    assert len(on_record(tmp_path)) == 20
    theirs = GridSearchCV(LogisticRegression(max_iter=500), GRID).fit(*IRIS)
    assert printed.strip() == repr(list(map(float, theirs.cv_results_["mean_test_score"])))


@pytest.mark.slow
def test_ctrl_c_while_workers_start_is_told_of_once(tmp_path):
    """Without a directory nothing is kept, and nothing is said of it."""
    script = textwrap.dedent(SCRIPT).replace('directory="kept"', "directory=None")
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "seconds").write_text("0.7")

    def one_imports() -> bool:
        return any(map(imports, psutil.Process(process.pid).children(recursive=True)))

    def imports(child: psutil.Process) -> bool:
        try:
            begun = "spawn_main" in " ".join(child.cmdline())
            return begun and child.cpu_times().user > 0.1
        except psutil.NoSuchProcess:
            return False

    with start(tmp_path, 2) as process:
        said = interrupted(process, one_imports)
    assert said.startswith("Traceback")


DEADLY_SCRIPT = """
import os
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from stormsweep import SweepSearchCV
from stormsweep.sweepcv import driving

# How often a fit may lose its worker is not the matter here.
driving._ATTEMPTS["killed"] = 1

class Deadly(ClassifierMixin, BaseEstimator):
    def __init__(self, a=0):
        self.a = a
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if self.a == 1:
            os._exit(7)
        return self
    def predict(self, X):
        return np.full(len(X), self.classes_[0])

space, cv = {"a": [0, 1, 2]}, [(range(100), range(100, 150))]
search = SweepSearchCV(Deadly(), space, cv=cv, n_jobs=1, directory="kept", refit=False)
search.fit(*load_iris(return_X_y=True))
print(search.cv_results_["mean_test_score"])
"""


def test_a_fit_that_kills_the_process_of_the_search_does_so_once(tmp_path):
    """Losing this: whoever runs the script again dies of the same fit, again and again."""
    (tmp_path / "s.py").write_text(DEADLY_SCRIPT)
    command = [sys.executable, "s.py"]
    codes = []
    # Once more when all is done: what failed is tried again, by a worker.
    for _ in range(3):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
        codes.append(done.returncode)
    assert codes == [7, 0, 0]
    assert "nan" in done.stdout
    scored = on_record(tmp_path)
    assert {one.trial for one in scored if one.sound} == {0, 2}
    assert {one.trial for one in scored if one.lost} == {1}


def test_a_directory_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match=r"directory: given '.*x'; no such folder can be made"):
        SweepSearchCV(LogisticRegression(), GRID, directory=tmp_path / "x").fit(*IRIS)
