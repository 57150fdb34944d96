"""Everything that a report is drawn from, read once from the journal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from stormsweep.config.load import load_study
from stormsweep.config.study import cases_of
from stormsweep.errors import StudyFileError
from stormsweep.records import Entry, StudyBegun, TaskDone
from stormsweep.report import words
from stormsweep.report.tested import Tested, tested
from stormsweep.results import audit, contenders, facts, frames, importance
from stormsweep.results.summary import Summary, differences, summary
from stormsweep.results.views import Kept
from stormsweep.scaling import measured
from stormsweep.scaling.accounts import Account, account
from stormsweep.scaling.hindsight import Hindsight, hindsight
from stormsweep.scaling.timings import worker_time


@dataclass(frozen=True)
class Material:
    """The study's frames, each made when first asked for.

    Parameters
    ----------
    entries : list of Entry
        The journal.
    directory : Path, optional
        The study's directory, for ``model/``, ``audit/`` and ``scale/``.
    foretells : bool
        Whether there is time to simulate the study in other layouts: not where the report is
        written again and again.
    """

    entries: Sequence[Entry]
    directory: Path | None = None
    foretells: bool = True

    def __post_init__(self) -> None:
        """Have every view of the journal be made once."""
        object.__setattr__(self, "entries", Kept(self.entries))

    @cached_property
    def study(self) -> StudyBegun:
        """What the study is about."""
        return facts.study(self.entries)

    @cached_property
    def summary(self) -> Summary:
        """The study in one look."""
        return summary(self.entries)

    @cached_property
    def account(self) -> Account:
        """What the study took: time, cores, GPUs, money."""
        return account(self.entries)

    @cached_property
    def audit(self) -> audit.Findings | None:
        """What the protocol flatters, where the study was audited."""
        return None if self.directory is None else audit.read(self.directory)

    @cached_property
    def scaling(self) -> list[measured.Findings]:
        """What was measured of the study's layouts, one of each site."""
        return [] if self.directory is None else measured.read(self.directory)

    @property
    def test_audited(self) -> bool:
        """Whether an audit, finished or not, scored the test set."""
        return self.directory is not None and audit.looked(self.directory)

    def why_no_skill(self, skill: float, on_test: bool = False) -> str:
        """Say why probabilities are worse than climatology, where balancing is a reason."""
        from stormsweep.study.protocol import why_no_skill

        data = self.study.data
        try:
            file = load_study((self.directory or Path()) / "study.toml")
            counts = int(data["train"]), int(data["train_positives"])
        except (StudyFileError, KeyError):
            # Of another version, or taken away: the journal alone does not tell.
            return ""
        return why_no_skill(file, *counts, skill, on_test)

    @cached_property
    def fits(self) -> pd.DataFrame:
        """One row a fit scored."""
        return frames.fits(self.entries)

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """One row a configuration, the best first."""
        return frames.configurations(self.entries)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Every other configuration against the best."""
        return differences(self.entries)

    @cached_property
    def contest(self) -> pd.DataFrame:
        """Every complete configuration against the best, all comparisons counted."""
        return contenders.contest(self.entries)

    @cached_property
    def importance(self) -> importance.Importance:
        """What mattered."""
        return importance.importance(self.entries)

    @cached_property
    def hindsight(self) -> Hindsight | None:
        """What dropping trials early would have missed; None where the study does not tell."""
        return hindsight(self.entries)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row a task done."""
        return frames.tasks(self.entries)

    @cached_property
    def done(self) -> list[TaskDone]:
        """The tasks done, as they are recorded."""
        return facts.tasks_done(self.entries)

    @cached_property
    def workers(self) -> pd.DataFrame:
        """One row a worker and session."""
        return frames.workers(self.entries)

    @cached_property
    def worker_time(self) -> pd.DataFrame:
        """Where the workers' time went."""
        return worker_time(self.entries)

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """One row a session of the driver."""
        return frames.sessions(self.entries)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """One row a failure of a run."""
        return frames.failures(self.entries)

    @cached_property
    def retries(self) -> pd.DataFrame:
        """One row a task given out again."""
        return frames.retries(self.entries)

    @cached_property
    def columns(self) -> dict[str, str]:
        """The column of each hyperparameter."""
        return facts.hyperparameter_columns(self.entries)

    @cached_property
    def metric(self) -> str:
        """The score that ranks configurations."""
        return self.study.metric

    @cached_property
    def metric_label(self) -> str:
        """What that score is called."""
        return words.score_label(self.metric)

    @cached_property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return facts.higher_is_better(self.entries)

    @cached_property
    def points(self) -> dict[str, dict[str, Any]]:
        """The hyperparameters of every planned configuration."""
        return facts.planned_configurations(self.entries)

    @cached_property
    def varied(self) -> list[str]:
        """Names of the hyperparameters that the plan varies, ``epochs`` among them."""
        seen: dict[str, set[str]] = {name: set() for name in self.columns}
        for point in self.points.values():
            for name, values in seen.items():
                values.add(repr(point.get(name)))
        return [name for name, values in seen.items() if len(values) > 1]

    @cached_property
    def continuous(self) -> set[str]:
        """Names of the hyperparameters that are drawn from a range."""
        return {name for name, values in self.study.space.items() if isinstance(values, dict)}

    @cached_property
    def tested(self) -> Tested | None:
        """The last look at the test part; None before there was one."""
        return tested(self.entries, self.directory, self.study.seed)

    @property
    def cases(self) -> str:
        """What the cases are called."""
        return cases_of(str(self.study.data.get("source", "")))

    @property
    def synthetic_note(self) -> str:
        """What stands inside every figure where the data are synthetic, else nothing."""
        if not self.summary.synthetic:
            return ""
        source = words.short(str(self.study.data.get("source", "")), 30)
        return f"synthetic data ({source})" if source else "synthetic data"

    @cached_property
    def study_file(self) -> str:
        """Text of ``study.toml``; empty where it is missing."""
        return self._text("study.toml")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What ``environment.json`` holds; empty where it is missing or damaged."""
        try:
            value = json.loads(self._text("environment.json") or "{}")
        except json.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    def _text(self, name: str) -> str:
        if self.directory is None:
            return ""
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def in_words(self, configuration: str, varied_only: bool = True) -> str:
        """Return a configuration in words; only what the study varies, unless asked otherwise."""
        point = self.points[configuration]
        names = [name for name in self.columns if name in point]
        if varied_only and self.varied:
            names = [name for name in names if name in self.varied]
        return words.point(point, names)
