"""`SweepSearchCV`: a search over an estimator's parameters, where `GridSearchCV` stood."""

from __future__ import annotations

import contextlib
import numbers
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._split import check_cv
from sklearn.model_selection._validation import (
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params, indexable

from stormsweep import __version__
from stormsweep.config.sites import LOCAL
from stormsweep.errors import JournalError, StudyBusyError, UserError
from stormsweep.files import within_group
from stormsweep.records import SearchBegun, SplitScored
from stormsweep.study.lock import DriverLock, driver_of
from stormsweep.sweepcv.callbacks import Callbacks
from stormsweep.sweepcv.candidates import chooser, known_space
from stormsweep.sweepcv.crew import crew
from stormsweep.sweepcv.driving import drive
from stormsweep.sweepcv.fingerprint import fingerprint
from stormsweep.sweepcv.searching import (
    Memory,
    NoMemory,
    OnRecord,
    Search,
    mean_scores,
    say_what_is_kept,
)
from stormsweep.sweepcv.tasks import Materials

JOURNAL = "journal.jsonl"


class SweepSearchCV(BaseSearchCV):  # type: ignore[misc]
    """Search over an estimator's parameters with cross-validation, on workers, to be gone on with.

    It takes the place of scikit-learn's `GridSearchCV` (and `RandomizedSearchCV`): attributes and
    methods are those of `GridSearchCV`, ``predict``, ``predict_proba``, ``decision_function``,
    ``transform``, ``score`` and others of the best estimator among them, and so are the scores, to
    the bit, on the same splits.

    Parameters
    ----------
    estimator : estimator
        Any of scikit-learn's interface.
    param_grid : dict or list of dict
        Parameters by name, each a list of values; with ``strategy="random"`` also distributions of
        SciPy's; with any strategy but a grid also an `Interval`.
    strategy : str
        ``"grid"`` tries every combination. ``"random"`` draws `trials` candidates, without
        `constraints` the same as `RandomizedSearchCV` draws. ``"sobol"`` spreads them evenly;
        ``"tpe"``, ``"cma-es"`` and ``"gp"`` learn from the scores where to look next (Optuna's),
        ``"nsga2"`` from several.
    trials : int, optional
        How many candidates are tried at most; of a grid all, else 10.
    constraints : sequence of str
        What must hold among parameters, such as ``"min_samples_leaf < min_samples_split"``; for any
        strategy but a grid.
    random_state : int, RandomState or None
        Of the strategy. None: another search each time, unless `directory` holds it. With a
        `directory` a number is drawn of a RandomState and kept, so that a random search draws
        others with it than `RandomizedSearchCV`.
    scoring : str, callable, list, tuple or dict, optional
        As in `GridSearchCV`: one score or several; None: the estimator's own ``score``.
    refit : bool, str or callable
        As in `GridSearchCV`: whether the best candidate is fitted on all data at the end; of
        several scores, the name of the one that tells which is best, or a function that does.
    cv : int, splitter or iterable, optional
        As in `GridSearchCV`: how the data are split; None: five folds.
    verbose : int
        As in `GridSearchCV`: how much is printed.
    error_score : float or "raise"
        As in `GridSearchCV`: the score of a fit that failed.
    return_train_score : bool
        As in `GridSearchCV`: whether the training side of each split is scored too.
    n_jobs : int, optional
        Workers, processes on this machine: None is one (unless a `joblib.parallel_config` says
        otherwise), -1 one for each core. One needs no workers at all: this process does the work,
        and it begins in any case, because a short search is over before workers come. On another
        site: workers at most; None or -1: as many as it has.
    site : str
        Where workers run: ``"local"``, or a site of sites.toml.
    directory : str or Path, optional
        Folder in which every score is written down as it comes. After a crash or a kill the same
        fit does only what is not on record. None: nothing is kept.
    pre_dispatch : object
        Taken for the sake of calls that were `GridSearchCV`'s; without effect, since the data
        travel once to each worker and tasks wait in one queue.

    Attributes
    ----------
    cv_results_ : dict of str to array
        One element a candidate: parameters, scores of every split, their means, standard deviations
        and ranks, times of fits and scores; as of `GridSearchCV`, like all that follow.
    best_estimator_ : estimator
        The best candidate, fitted on all data.
    best_score_, best_params_, best_index_ : float, dict, int
        Its mean score, its parameters, and its place in `cv_results_`.
    scorer_ : callable or dict
        What scores.
    n_splits_ : int
        Splits of the cross-validation.
    refit_time_ : float
        Seconds that the last fit took.
    multimetric_ : bool
        Whether there are several scores.
    classes_, n_features_in_, feature_names_in_ : ndarray, int, ndarray
        Of the best estimator, where it has them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> search = SweepSearchCV(LogisticRegression(max_iter=500), {"C": [0.01, 1.0]}).fit(X, y)
    >>> search.best_params_
    {'C': 1.0}
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSearchCV._parameter_constraints,
        "param_grid": [dict, list],
        "strategy": [str],
        "trials": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "constraints": ["array-like"],
        "random_state": ["random_state"],
        "site": [str],
        "directory": [str, os.PathLike, None],
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        strategy: str = "grid",
        trials: int | None = None,
        constraints: Sequence[str] = (),
        random_state: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        site: str = LOCAL,
        directory: str | os.PathLike[str] | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid
        self.strategy = strategy
        self.trials = trials
        self.constraints = constraints
        self.random_state = random_state
        self.site = site
        self.directory = directory

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> SweepSearchCV:
        """Try the candidates, and fit the best on all data.

        Parameters
        ----------
        X : array-like, sparse matrix or frame, of shape (n, ...)
            The data.
        y : array-like, optional
            The target.
        **params : object
            ``groups`` for the splitter, and what the estimator's ``fit``, the scorers and the
            splitter take; as in `GridSearchCV`, metadata routing included.

        Returns
        -------
        SweepSearchCV
            Itself, searched.

        Raises
        ------
        ValueError, TypeError
            As `GridSearchCV`.
        UserError
            In one line: a site that is not known, a directory that holds another search or that
            another process is at work on, a strategy that does not take the space.
        """
        scorers, metric = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        callbacks = Callbacks(self, X, y, params)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        self.n_splits_ = splitter.get_n_splits(X, y, **routed.splitter.split)
        splits = list(splitter.split(X, y, **routed.splitter.split))
        if len(splits) != self.n_splits_:
            raise ValueError(
                "cv.split and cv.get_n_splits return inconsistent results. Expected "
                f"{self.n_splits_} splits, got {len(splits)}"
            )
        materials = Materials(
            clone(self.estimator),
            X,
            y,
            splits,
            {
                "scorer": scorers,
                "fit_params": routed.estimator.fit,
                "score_params": routed.scorer.score,
                "return_train_score": self.return_train_score,
                "error_score": self.error_score,
                "verbose": self.verbose,
            },
            get_config(),
            list(warnings.filters),
        )
        candidates, scored = self._search(materials, params, metric, callbacks)
        try:
            self._conclude(candidates, scored, metric, scorers, materials)
            if self.refit:
                self._fit_the_best(X, y, routed.estimator.fit, callbacks)
        except KeyboardInterrupt:
            kept = sum(one.sound for one in scored)
            say_what_is_kept(self.directory, kept, len(scored))
            raise KeyboardInterrupt from None
        callbacks.close()
        return self

    def _search(
        self,
        materials: Materials,
        params: Mapping[str, Any],
        metric: Any,
        callbacks: Callbacks,
    ) -> tuple[list[dict[str, Any]], list[SplitScored]]:
        """Have all candidates scored; return them with their scores."""
        folder = None if self.directory is None else Path(self.directory)
        who = crew(self.site, self.n_jobs, folder)
        with self._memory(folder) as (memory, check):
            seed = self._seed(memory)
            wanted = self._objectives(materials.options["scorer"], metric)
            space = chooser(
                self.strategy,
                self.param_grid,
                self.trials,
                seed,
                self.n_splits_,
                max(1, len(wanted)),
                self.constraints,
            )
            search = Search(
                space,
                self.n_splits_,
                lambda scored: self._told(scored, wanted),
                memory,
                self.return_train_score,
            )
            if isinstance(memory, OnRecord):
                assert isinstance(seed, int)
                search.replay(
                    memory.begin(self._begun(materials, params, seed, metric)), memory.scored
                )
            if self.verbose > 0:
                print(
                    f"Fitting {self.n_splits_} folds for each of {space.most} candidates, "
                    f"totalling {space.most * self.n_splits_} fits"
                    + (f", {search.left} of them not on record" if folder is not None else "")
                )
            try:
                with callbacks.search(search.left):
                    drive(search, materials, who, check, callbacks)
            except KeyboardInterrupt:
                say_what_is_kept(folder, search.kept, search.tasks)
                # Where in all this it came is of no use to who pressed Ctrl-C.
                raise KeyboardInterrupt from None
            return search.results()

    @contextlib.contextmanager
    def _memory(self, folder: Path | None) -> Iterator[tuple[Memory, Callable[[], None]]]:
        """Open the search's directory for this process alone, if it has one."""
        if folder is None:
            yield NoMemory(), lambda: None
            return
        if (folder / "study.toml").exists():
            raise JournalError(
                f"directory: {folder} is a study's; give a search a directory of its own"
            )
        with contextlib.ExitStack() as open_:
            # Until the search is over: its workers' and jobs' logs follow too.
            open_.enter_context(within_group())
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"directory: given {str(folder)!r}; no such folder can be made: "
                    f"{error.strerror or error}"
                ) from None
            try:
                lock = open_.enter_context(DriverLock(folder))
            except StudyBusyError:
                at_work = driver_of(folder) or {}
                raise StudyBusyError(
                    f"directory: {folder} is in use by process {at_work.get('pid', '?')} on "
                    f"{at_work.get('host', '?')}; wait for it, or choose another directory"
                ) from None
            yield open_.enter_context(contextlib.closing(OnRecord(folder / JOURNAL))), lock.check

    def _seed(self, memory: Memory) -> int | np.random.RandomState:
        """Return the seed of the strategy; a number, which can be written down, for a journal.

        There, where none is given, that of an earlier session.
        """
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        random: np.random.RandomState = check_random_state(self.random_state)
        if not isinstance(memory, OnRecord):
            return random
        return int(random.randint(2**31)) if memory.first is None else memory.first.seed

    def _objectives(self, scorers: Any, metric: Any) -> list[str]:
        """Return the scores that the strategy is told of; none: the first, whatever it is called.

        Several for ``nsga2``; else the one that `refit` names.
        """
        if self.strategy == "nsga2" and isinstance(scorers, _MultimetricScorer):
            return list(scorers._scorers)
        return self._ranking(metric)

    def _ranking(self, metric: Any) -> list[str]:
        """Return the score that tells which candidate is best, if it is known by name."""
        if callable(self.scoring):
            # It may return several; only when it is called it is known which.
            metric = self.refit
        return [metric] if isinstance(metric, str) else []

    def _told(self, scored: Sequence[SplitScored], wanted: Sequence[str]) -> tuple[float, ...]:
        """Return what the strategy is told of a candidate.

        Raises
        ------
        UserError
            If it trades scores off against each other, but was not told how many there are.
        """
        if self.strategy == "nsga2" and callable(self.scoring):
            several = scored[0].test_scores
            if isinstance(several, dict) and len(several) > 1:
                raise UserError(
                    f"scoring: given a function that returns {', '.join(several)}; "
                    "strategy='nsga2' trades scorers off that it knows from the first: give a dict "
                    "of them"
                )
        return mean_scores(scored, wanted)

    def _begun(
        self, materials: Materials, params: Mapping[str, Any], seed: int, metric: Any
    ) -> SearchBegun:
        """Return what is written down of a session."""
        space = list(known_space(self.param_grid))
        return SearchBegun(
            estimator=type(self.estimator).__qualname__,
            version=__version__,
            about={
                "estimator": fingerprint(self.estimator),
                "data": fingerprint(materials.X, materials.y, dict(params)),
                "splits": fingerprint(materials.splits),
                "scoring": fingerprint(self.scoring),
            },
            search=fingerprint(self.strategy, space, self.trials, list(self.constraints), seed),
            strategy=self.strategy,
            seed=seed,
            splits=self.n_splits_,
            ranked_by=next(iter(self._ranking(metric)), ""),
        )

    def _conclude(
        self,
        candidates: list[dict[str, Any]],
        scored: list[SplitScored],
        metric: Any,
        scorers: Any,
        materials: Materials,
    ) -> None:
        """Set what is known after the search, as `GridSearchCV` does."""
        if not scored:
            raise ValueError(
                "No fits were performed. Was the CV iterator empty? Were there no candidates?"
            )
        out = [_as_scikit_learn_has_it(each, self.return_train_score) for each in scored]
        _warn_or_raise_about_fit_failures(out, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(out, self.error_score)
        results = self._format_results(candidates, self.n_splits_, out)
        first = out[0]["test_scores"]
        self.multimetric_ = isinstance(first, dict)
        if callable(self.scoring) and self.multimetric_:
            # Only now is it known what a callable returns.
            self._check_refit_for_multimetric(first)
            metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        self.scorer_ = scorers._scorers if isinstance(scorers, _MultimetricScorer) else scorers
        self.cv_results_ = results

    def _fit_the_best(
        self, X: Any, y: Any, fit_params: Mapping[str, Any], callbacks: Callbacks
    ) -> None:
        """Fit the best candidate on all data, in this process."""
        # Parameters may be estimators themselves.
        best = clone(self.best_params_, safe=False)
        self.best_estimator_ = clone(self.estimator).set_params(**best)
        with callbacks.refit(self.best_estimator_):
            began = time.time()
            if y is None:
                self.best_estimator_.fit(X, **fit_params)
            else:
                self.best_estimator_.fit(X, y, **fit_params)
            self.refit_time_ = time.time() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_


def _as_scikit_learn_has_it(scored: SplitScored, trained: bool) -> dict[str, Any]:
    """Return a result as scikit-learn's `_fit_and_score` does."""
    found = {
        "test_scores": scored.test_scores,
        "n_test_samples": scored.test_cases,
        "fit_time": scored.fit_seconds,
        "score_time": scored.score_seconds,
        "fit_error": scored.error or None,
    }
    if trained:
        found["train_scores"] = scored.train_scores
    return found
