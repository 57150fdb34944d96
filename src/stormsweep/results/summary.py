"""Summary: a study in one look, and how sure its best configuration is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stormsweep.markup import facts as facts_html
from stormsweep.records import Entry, RunFailed
from stormsweep.results import facts, frames
from stormsweep.results.journal import of_kind
from stormsweep.results.views import view
from stormsweep.wording import counted, duration, point


@dataclass(frozen=True, slots=True)
class Best:
    """The best configuration: complete if any is, else the best so far.

    Attributes
    ----------
    configuration : str
        Its id.
    hyperparameters : dict
        All of them, ``epochs`` included, as the study file gives them.
    folds, folds_expected, complete : int, int, bool
        How many folds were scored.
    rounds : int
        How many rounds these are, if it is complete.
    mean, sd, low, high : float
        Of the study's metric over folds; `low` and `high` bound the 95 % t-interval of the mean.
    scores : dict of str to (float, float)
        Mean and standard deviation of every score over folds.
    seconds : float
        Time that the tasks of its folds took.
    """

    configuration: str
    hyperparameters: dict[str, Any]
    folds: int
    folds_expected: int
    complete: bool
    mean: float
    sd: float
    low: float
    high: float
    scores: dict[str, tuple[float, float]]
    seconds: float
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """A study in one look; what it cost is `stormsweep.scaling.accounts.Account`.

    Attributes
    ----------
    name, metric, synthetic : str, str, bool
        What the study is called, is ranked by, and whether its data are synthetic.
    runs_planned, runs_finished, runs_failed : int
        A failed run is one that failed and did not get through later.
    configurations_planned, configurations_complete : int
        Complete ones are scored on all folds.
    fits_planned, fits_scored : int
        Configurations times folds.
    epochs_planned, epochs_trained, epochs_separate : int
        Epochs of training: planned, done, and what the fits scored so far would have needed if
        each had been trained alone.
    best : Best or None
        None where no fit has a score that is a number.
    sessions : int
        How often a driver was started.
    wall_seconds : float
        Sum over the sessions, pauses between them left out.
    task_seconds, train_seconds : float
        Sum over the workers: in tasks, and in their training phase.
    patches_per_second : float
        Patches trained per second of wall time, all workers together.
    fits_per_hour : float
        Fits scored per hour of wall time.
    retries : int
        Tasks given out again after a worker was lost.
    finished : bool
        Every planned run is finished or failed, and no more will be planned.
    """

    name: str
    metric: str
    synthetic: bool
    runs_planned: int
    runs_finished: int
    runs_failed: int
    configurations_planned: int
    configurations_complete: int
    fits_planned: int
    fits_scored: int
    epochs_planned: int
    epochs_trained: int
    epochs_separate: int
    best: Best | None
    sessions: int
    wall_seconds: float
    task_seconds: float
    train_seconds: float
    patches_per_second: float
    fits_per_hour: float
    retries: int
    finished: bool

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows: list[tuple[str, Any]] = [
            ("state", "finished" if self.finished else "unfinished"),
            ("runs", f"{self.runs_finished:,} of {self.runs_planned:,}"),
            ("fits", f"{self.fits_scored:,} of {self.fits_planned:,}"),
            ("epochs", f"{self.epochs_trained:,} of {self.epochs_planned:,}"),
            ("failed runs", self.runs_failed),
            ("time", f"{duration(self.wall_seconds)} in {counted(self.sessions, 'session')}"),
        ]
        if self.best is not None:
            best = self.best
            rows += [
                (
                    "best",
                    f"{self.metric} {best.mean:.4f} over {best.folds} of {best.folds_expected} "
                    f"folds: {point(best.hyperparameters)}",
                )
            ]
        notes = ["The data are synthetic (the twin)."] if self.synthetic else []
        return facts_html(self.name, rows, notes)


@view
def summary(entries: Sequence[Entry]) -> Summary:
    """Return the study in one look, finished or not.

    Raises
    ------
    JournalError
        If no study is recorded yet.
    """
    about = facts.study(entries)
    runs = facts.planned_runs(entries)
    table = frames.configurations(entries)
    scored, done, sessions = frames.fits(entries), frames.tasks(entries), frames.sessions(entries)
    finished = facts.finished_runs(entries)
    failed = ({record.run for record in of_kind(entries, RunFailed)} & runs.keys()) - finished
    wall = float(sessions["seconds"].sum())
    return Summary(
        name=about.name,
        metric=about.metric,
        synthetic=bool(about.data.get("synthetic", False)),
        runs_planned=len(runs),
        runs_finished=len(finished),
        runs_failed=len(failed),
        configurations_planned=len(facts.planned_configurations(entries)),
        configurations_complete=int(table["complete"].sum()),
        fits_planned=sum(len(plan.milestones) for plan in runs.values()),
        fits_scored=len(scored),
        epochs_planned=sum(max(plan.milestones, default=0) for plan in runs.values()),
        epochs_trained=int((done["to_epoch"] - done["from_epoch"]).sum()),
        epochs_separate=int(scored["epochs"].sum()),
        best=_best(entries, table),
        sessions=len(sessions),
        wall_seconds=wall,
        task_seconds=float(done["seconds"].sum()),
        train_seconds=float(done["train_seconds"].sum()),
        patches_per_second=float(done["patches"].sum()) / wall if wall > 0 else float("nan"),
        fits_per_hour=len(scored) / wall * 3600 if wall > 0 else float("nan"),
        retries=len(frames.retries(entries)),
        finished=bool(runs)
        and len(finished) + len(failed) == len(runs)
        and facts.search_over(entries),
    )


@view
def differences(entries: Sequence[Entry]) -> pd.DataFrame:
    """Compare every other complete configuration with the best, fold by fold.

    Both were validated on the same folds, so their scores are paired. The difference of the means
    gets a t-interval whose variance is widened by ``1/n + 1/(k - 1)`` in place of ``1/n``, because
    the training sets of the `n` folds overlap: `k` folds a round, 1 case validated for ``k - 1``
    that train (the corrected resampled t-test: Nadeau and Bengio, 2003, Inference for the
    generalization error, Machine Learning 52, 239-281; for repeated cross-validation: Bouckaert and
    Frank, 2004, Evaluating the replicability of significance tests, PAKDD, 3-12).

    Returns
    -------
    DataFrame
        ``configuration``, ``difference`` (how much the best is better, positive in either
        direction of the metric), ``low`` and ``high`` (95 % interval), ``apart``: whether the
        interval leaves out zero. In the order of the ranks; empty without two configurations to
        compare. The interval is for one comparison, not for all of them at once.
    """
    about, table = facts.study(entries), frames.configurations(entries)
    names = table.loc[table["complete"] & table[f"{about.metric}_mean"].notna(), "configuration"]
    scored = frames.fits(entries)
    paired = scored.pivot_table(index="configuration", columns="fold", values=about.metric)
    paired = paired.reindex(list(names))
    columns = ["configuration", "difference", "low", "high", "apart"]
    count = paired.shape[1]
    if len(paired) < 2 or count < 2:
        empty = {column: pd.Series(dtype="float64") for column in columns}
        return pd.DataFrame(empty | {"configuration": pd.Series(dtype="str")}).astype(
            {"apart": "bool"}
        )
    sign = 1.0 if facts.higher_is_better(entries) else -1.0
    values = paired.to_numpy(dtype=float)
    gaps = sign * (values[0] - values[1:])
    mean, sd = gaps.mean(axis=1), gaps.std(axis=1, ddof=1)
    half = frames.t_quantile(count) * sd * np.sqrt(1 / count + 1 / (about.splits - 1))
    low, high = mean - half, mean + half
    return pd.DataFrame(
        {
            "configuration": list(names)[1:],
            "difference": mean,
            "low": low,
            "high": high,
            "apart": (low > 0) | (high < 0),
        }
    )


def _best(entries: Sequence[Entry], table: pd.DataFrame) -> Best | None:
    about = facts.study(entries)
    metric = about.metric
    sound = table[np.isfinite(table[f"{metric}_mean"].to_numpy(dtype=float))]
    if sound.empty:
        return None
    row = sound.iloc[0].to_dict()
    points = facts.planned_configurations(entries)
    return Best(
        configuration=str(row["configuration"]),
        hyperparameters=points[str(row["configuration"])],
        folds=int(row["folds"]),
        folds_expected=int(row["folds_expected"]),
        complete=bool(row["complete"]),
        mean=float(row[f"{metric}_mean"]),
        sd=float(row[f"{metric}_sd"]),
        low=float(row[f"{metric}_low"]),
        high=float(row[f"{metric}_high"]),
        scores={
            name: (float(row[f"{name}_mean"]), float(row[f"{name}_sd"]))
            for name in facts.score_names(entries)
        },
        seconds=float(row["seconds"]),
        rounds=about.rounds if row["complete"] else 1,
    )
