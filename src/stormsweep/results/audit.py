"""What an audit's journals say: scores on the validation beside those on the test part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from stormsweep.config.study import METRICS
from stormsweep.errors import DataError
from stormsweep.records import Entry
from stormsweep.results import journal
from stormsweep.results.facts import planned_runs, score_names, study, tasks_done
from stormsweep.results.frames import CONFIDENCE

FOLDER, FILE = "audit", "audit.json"


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes
    ----------
    about : dict
        What ``audit.json`` says: study, metric, configuration, synthetic, source, protocols.
    folds, table : DataFrame
        From `folds` and `flattery`.
    """

    about: dict[str, Any]
    folds: pd.DataFrame
    table: pd.DataFrame

    @property
    def scores(self) -> list[str]:
        """The scores that are shown: the study's metric, accuracy as in 2019, and F1.

        A fold of events only, as the last of 2019 is, has no ranking score, and its accuracy is
        that of the cases that a model is trained to find; of those that tell how well events
        are found, F1 is the one that it has.
        """
        wanted = dict.fromkeys([str(self.about["metric"]), "accuracy", "f1"])
        return [name for name in wanted if name in set(self.table["score"])]

    @property
    def note(self) -> str:
        """What stands in the figure where the data are synthetic."""
        return f"synthetic data ({self.about['source']})" if self.about["synthetic"] else ""


def read(directory: Path) -> Findings | None:
    """Read the audit of a study's directory; None where there is no finished one.

    Raises
    ------
    DataError
        If ``audit.json`` is damaged.
    JournalError
        If a protocol's journal is missing or damaged.
    """
    folder = directory / FOLDER
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        titles, _ = dict(about["protocols"]), str(about["folder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder / FILE}: is damaged; run the audit again") from None
    journals = {
        title: journal.read(folder / about["folder"] / name / "journal.jsonl")
        for name, title in titles.items()
    }
    return Findings(about, folds(journals), flattery(journals))


def looked(directory: Path) -> bool:
    """Say whether an audit of a study, finished or not, may have scored the test part."""
    return any((directory / FOLDER).glob("*/*/journal.jsonl"))


def folds(journals: Mapping[str, Sequence[Entry]]) -> pd.DataFrame:
    """Return one row a protocol, fold and score.

    Parameters
    ----------
    journals : mapping of str to list of Entry
        The journal of each protocol, by its title.

    Returns
    -------
    DataFrame
        ``protocol``, ``fold``, ``score``, ``validation`` and ``test`` (the same model's score on
        its validation and on the test part; NaN where it has none), ``test_error`` (the standard
        error of the latter), and ``flattery``: by how much the validation looks better than the
        test part.
    """
    rows = []
    for title, entries in journals.items():
        fold_of = {run: plan.fold for run, plan in planned_runs(entries).items()}
        scored = sorted(tasks_done(entries), key=lambda task: fold_of[task.run])
        for name in (name for name in score_names(entries) if name in METRICS):
            sign = 1 if METRICS[name] == "maximize" else -1
            for task in scored:
                validation = float(task.scores.get(name, np.nan))
                test = float(task.test_scores.get(name, np.nan))
                error = float(task.test_errors.get(name, np.nan))
                gain = sign * (validation - test)
                rows.append((title, fold_of[task.run], name, validation, test, error, gain))
    columns = ["protocol", "fold", "score", "validation", "test", "test_error", "flattery"]
    return pd.DataFrame(rows, columns=columns)


def flattery(journals: Mapping[str, Sequence[Entry]]) -> pd.DataFrame:
    """Return by how much each protocol's validation flatters its models against the test part.

    The variance of the mean over folds has two parts. That of the folds is widened because their
    training sets overlap (Nadeau and Bengio, 2003, as in `summary.differences`). All folds share
    one test part, whose sampling error therefore is in every difference alike and in their spread
    not at all. The interval is a t-interval with the degrees of freedom of Welch (1947) and
    Satterthwaite (1946): few for the folds, without end for the test part's, which comes from some
    hundred resamples.

    Parameters
    ----------
    journals : mapping of str to list of Entry
        The journal of each protocol, by its title.

    Returns
    -------
    DataFrame
        One row a protocol and score: ``protocol``, ``score``, ``folds`` scored of
        ``folds_expected``, ``validation``, ``validation_sd``, ``test``, ``test_sd`` (mean and
        standard deviation over folds), ``flattery``, and ``flattery_low`` and ``flattery_high``,
        its 95 % interval. NaN where a fold has no such score; the interval is NaN, too, where
        nobody knows the error of the test part (fewer than five groups).
    """
    single = folds(journals)
    rows = []
    about = {str(title): study(entries) for title, entries in journals.items()}
    for (title, score), part in single.groupby(["protocol", "score"], sort=False):
        count = len(part)
        means = {name: part[name].mean(skipna=False) for name in ("validation", "test")}
        spread = {f"{name}_sd": part[name].std(skipna=False) for name in ("validation", "test")}
        gain, sd = part["flattery"].mean(skipna=False), part["flattery"].std(skipna=False)
        splits = min(count, about[str(title)].splits)
        overlap = 1 / (splits - 1) if splits > 1 else np.nan
        shared = part["test_error"].mean(skipna=False)
        half = half_width((1 / count + overlap) * sd**2, count - 1, shared**2)
        rows.append(
            {"protocol": title, "score": score, "folds": count}
            | {"folds_expected": about[str(title)].folds}
            | means
            | spread
            | {"flattery": gain, "flattery_low": gain - half, "flattery_high": gain + half}
        )
    order = "protocol score folds folds_expected validation validation_sd test test_sd flattery"
    return pd.DataFrame(rows, columns=[*order.split(), "flattery_low", "flattery_high"])


def half_width(scatter: float, freedom: int, shared: float) -> float:
    """Return half the 95 % interval of a mean whose variance has two parts.

    Parameters
    ----------
    scatter : float
        The part that was estimated from the scatter of few values.
    freedom : int
        Its degrees of freedom, at least one.
    shared : float
        The other part, taken as known.
    """
    variance = scatter + shared
    if freedom < 1 or not np.isfinite(variance):
        return float("nan")
    if scatter == 0:
        return float(ndtri(0.5 + CONFIDENCE / 2) * np.sqrt(variance))
    effective = freedom * (variance / scatter) ** 2
    return float(stdtrit(effective, 0.5 + CONFIDENCE / 2) * np.sqrt(variance))
