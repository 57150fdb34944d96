"""What a `SweepSearchCV` has done so far, from the journal of its directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stormsweep.records import CandidateProposed, Entry, SearchBegun, SplitScored
from stormsweep.results import journal

#: Before the name of a parameter, as in ``cv_results_``.
PARAMETER = "param_"


@dataclass(frozen=True)
class Searched:
    """A search, finished or not.

    Attributes
    ----------
    begun : SearchBegun
        What was searched last: another space in the same directory is another search.
    candidates : DataFrame
        One row a candidate: ``trial``; ``param_<name>``, as Python writes it; ``splits``, how many
        are scored; ``mean_test_score`` and ``std_test_score`` (n in the denominator), of several
        scores one pair each (``mean_test_<name>``), as in scikit-learn's ``cv_results_``;
        ``mean_fit_time``, s. The best first, of several scores by the one that `refit` names, those
        not scored on all splits last; where it names none, in the order of the proposals.
    failed : int
        Fits that raised an error.
    unscored : int
        Sound fits whose scorer raised one: its ``error_score`` stands for what it did not say.
    """

    begun: SearchBegun
    candidates: pd.DataFrame
    failed: int
    unscored: int

    @property
    def scored(self) -> int:
        """Fits that were scored, those that failed among them."""
        return int(self.candidates["splits"].sum())

    @property
    def proposed(self) -> int:
        """Fits of all candidates so far."""
        return len(self.candidates) * self.begun.splits

    @property
    def ranked_by(self) -> str:
        """The column by which candidates are ranked; empty: none."""
        return _ranked_by(self.begun, self.candidates)


def read(directory: Path) -> Searched | None:
    """Return what a search's directory holds; None where it is not one.

    Raises
    ------
    JournalError
        If the journal is damaged.
    """
    path = directory / "journal.jsonl"
    if (directory / "study.toml").exists() or not path.is_file():
        return None
    entries = journal.read(path)
    if not entries or not isinstance(entries[0].record, SearchBegun):
        return None
    return searched(entries)


def searched(entries: Sequence[Entry]) -> Searched:
    """Return what a search has done, from its journal.

    Raises
    ------
    ValueError
        If no search was begun.
    """
    begun: SearchBegun | None = None
    proposed: dict[str, dict[int, CandidateProposed]] = {}
    scored: dict[tuple[str, int], SplitScored] = {}
    for entry in entries:
        match entry.record:
            case SearchBegun() as begun:
                proposed.setdefault(begun.search, {})
            case CandidateProposed() as candidate if begun is not None:
                proposed[begun.search][candidate.trial] = candidate
            case SplitScored() as split:
                # What was scored for an earlier search is not done again.
                scored[split.key, split.split] = split
            case _:
                pass
    if begun is None:
        raise ValueError("no search was begun")
    rows, failed, unscored = [], 0, 0
    for trial, candidate in sorted(proposed[begun.search].items()):
        fits = [
            scored[candidate.key, split]
            for split in range(begun.splits)
            if (candidate.key, split) in scored
        ]
        failed += sum(bool(fit.error) for fit in fits)
        unscored += sum(bool(fit.unscored) for fit in fits)
        values = {f"{PARAMETER}{name}": text for name, text in candidate.parameters.items()}
        row: dict[str, object] = {"trial": trial, **values, "splits": len(fits)}
        rows.append(row | _scores(fits))
    table = pd.DataFrame(rows)
    if table.empty:
        table = pd.DataFrame(columns=["trial", "splits"])
    if by := _ranked_by(begun, table):
        whole = table["splits"] == begun.splits
        table = table.assign(_whole=~whole).sort_values(
            ["_whole", by], ascending=[True, False], kind="stable"
        )
        table = table.drop(columns="_whole").reset_index(drop=True)
    return Searched(begun, table, failed, unscored)


def _ranked_by(begun: SearchBegun, table: pd.DataFrame) -> str:
    # A scorer that is a function may return one score, whatever `refit` says.
    wanted = (f"mean_test_{begun.ranked_by}", "mean_test_score")
    return next((name for name in wanted if name in table), "")


def _scores(fits: Sequence[SplitScored]) -> dict[str, float]:
    if not fits:
        return {}
    told: list[Mapping[str, float]] = [
        fit.test_scores if isinstance(fit.test_scores, dict) else {"score": fit.test_scores}
        for fit in fits
    ]
    found = {}
    # A failed fit may have one score, its `error_score`, where others have several.
    for name in max(told, key=len):
        values = np.array([scores.get(name, np.nan) for scores in told], dtype=float)
        found[f"mean_test_{name}"] = float(values.mean())
        found[f"std_test_{name}"] = float(values.std())
    return found | {"mean_fit_time": float(np.mean([fit.fit_seconds for fit in fits]))}
