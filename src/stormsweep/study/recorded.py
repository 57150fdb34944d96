"""What is on record of a study: its journal, and what is told from it alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stormsweep.records import Entry, Verified
from stormsweep.study.directory import StudyDirectory

if TYPE_CHECKING:
    import pandas as pd

    from stormsweep.results.summary import Summary
    from stormsweep.scaling.accounts import Account
    from stormsweep.scaling.hindsight import Hindsight


class RecordedStudy:
    """A study as its journal has it.

    Parameters
    ----------
    kept : StudyDirectory
        Where the journal lies.
    """

    def __init__(self, kept: StudyDirectory) -> None:
        self._kept = kept

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self._kept.journal_path

    @property
    def recorded(self) -> bool:
        """Whether anything is recorded of it."""
        return self._kept.recorded

    def entries(self) -> list[Entry]:
        """Read the journal.

        Returns
        -------
        list of Entry
            Its records, in order, with the time of each.

        Raises
        ------
        JournalError
            If there is none, or it is damaged.
        """
        return self._kept.entries()

    def results(self, per_fold: bool = False) -> pd.DataFrame:
        """Return the results so far.

        Parameters
        ----------
        per_fold : bool
            One row a fit instead of one row a configuration.

        Returns
        -------
        DataFrame
            Hyperparameters, scores and times; configurations are ranked, the best first. As
            `stormsweep.results.frames.configurations` and `stormsweep.results.frames.fits` have it.
        """
        from stormsweep.results import frames

        entries = self.entries()
        return frames.fits(entries) if per_fold else frames.configurations(entries)

    def importance(self) -> pd.DataFrame:
        """Return what mattered so far: how much of the spread of the scores belongs to what.

        Returns
        -------
        DataFrame
            As `stormsweep.results.importance.importance_frame` has it.

        Raises
        ------
        UserError
            If there is too little to say anything: it says what is needed.
        """
        from stormsweep.results.importance import importance_frame

        return importance_frame(self.entries())

    def contenders(self) -> pd.DataFrame:
        """Return the best configuration and those that cannot be told from it.

        Returns
        -------
        DataFrame
            As `stormsweep.results.contenders.contenders` has it.

        Raises
        ------
        UserError
            If fewer than two configurations are complete.
        """
        from stormsweep.results.contenders import contenders

        return contenders(self.entries())

    def hindsight(self) -> Hindsight | None:
        """Return what dropping trials early would have missed, and spared.

        Returns
        -------
        Hindsight or None
            None where the study does not tell: it is not done, has one number of epochs or one fold
            only, too few or too many configurations, or dropped trials itself.
        """
        from stormsweep.scaling.hindsight import hindsight

        return hindsight(self.entries())

    def timings(self, of: Literal["tasks", "workers", "sessions"] = "tasks") -> pd.DataFrame:
        """Return where the time went.

        Parameters
        ----------
        of : {"tasks", "workers", "sessions"}
            One row a task that was done or paused; a worker and session; a session of the driver.

        Returns
        -------
        DataFrame
            As `stormsweep.scaling.timings.tasks`, `stormsweep.scaling.timings.workers` and
            `stormsweep.results.frames.sessions` have it.
        """
        from stormsweep.results import frames
        from stormsweep.scaling import timings

        made = {
            "tasks": timings.tasks,
            "workers": timings.workers,
            "sessions": frames.sessions,
        }
        return made[of](self.entries())

    def account(self) -> Account:
        """Return what the study took: time, cores, GPUs, money; finished or not."""
        from stormsweep.scaling.accounts import account

        return account(self.entries())

    def last_look(self) -> Verified | None:
        """Return the last look at the test part; None before there was one."""
        from stormsweep.results.journal import of_kind

        looks = of_kind(self.entries(), Verified)
        return looks[-1] if looks else None

    def awaits_verification(self) -> bool:
        """Tell whether the search is done, and there is a test part that nobody has looked at."""
        from stormsweep.study.choice import awaits_look

        return awaits_look(self.entries())

    def summary(self) -> Summary:
        """Return the study in one look, finished or not."""
        from stormsweep.results.summary import summary

        return summary(self.entries())
