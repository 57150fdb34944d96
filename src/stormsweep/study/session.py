"""One session of a driver: workers are hired, the journal opened, and training goes on between."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stormsweep import __version__
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import JournalError, StudyInterrupted
from stormsweep.files import write_json
from stormsweep.markup import facts
from stormsweep.records import (
    Entry,
    PlanCut,
    Record,
    RunFailed,
    SessionBegun,
    SessionEnded,
    StudyBegun,
)
from stormsweep.results.journal import JournalWriter
from stormsweep.results.progress import Progress
from stormsweep.search.plan import Plan
from stormsweep.search.search import Search
from stormsweep.study.directory import StudyDirectory
from stormsweep.study.environment import describe, takes_any_batch
from stormsweep.study.execute import Execution, planned
from stormsweep.study.interruption import heard
from stormsweep.study.lock import DriverLock
from stormsweep.study.places import Place
from stormsweep.study.problem import turned_folder
from stormsweep.study.protocol import FoldRows, flaws, fold_sizes
from stormsweep.study.remaining import runs_left
from stormsweep.study.staff import Staff
from stormsweep.study.trial import Hired
from stormsweep.study.watching import Watcher
from stormsweep.work import Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes
    ----------
    directory : Path
        The study's directory.
    failed : list of RunFailed
        Runs that failed, in this session or before.
    trained : int
        Tasks done in this session.
    epochs : int
        Epochs trained in this session, those of paused tasks included.
    unfinished : bool
        Whether work is left: the session was told to leave.
    """

    directory: Path
    failed: list[RunFailed]
    trained: int
    epochs: int = 0
    unfinished: bool = False

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        ended = "work is left" if self.unfinished else "done"
        rows = [("directory", self.directory), ("tasks done now", self.trained)]
        rows += [("epochs trained now", self.epochs), ("failed runs", len(self.failed))]
        failed = [f"run {one.run} ({one.failure}): {one.reason}" for one in self.failed[:10]]
        return facts(f"Session: {ended}", rows, failed)


@dataclass(frozen=True, slots=True)
class About:
    """What a session is about.

    Attributes
    ----------
    file : StudyFile
        The study.
    plan : Plan
        Its runs.
    data : PreparedData
        The prepared arrays.
    folds : sequence of FoldRows
        The cases of each fold.
    place : Place or None
        Where workers run; None: on this machine.
    audited : bool
        Whether this is a protocol of an audit: the test part is scored.
    together : bool
        Whether training begins when all workers are ready, not when the first is: for measuring.
    whole : Plan or None
        All that the study is to train, where the session trains only some of it (`plan`).
    search : Search or None
        Where a strategy learns from scores: what it says is trained, `plan` is what to expect.
    reached : mapping of str to int
        Run to its last milestone on record.
    dropped : mapping of str to int
        Runs that nothing needs any more; see `records.PlanCut`.
    prepared_seconds : float
        How long the data took until they were there.
    path : Path or None
        Where the study file stands.
    """

    file: StudyFile
    plan: Plan
    data: PreparedData
    folds: Sequence[FoldRows]
    place: Place | None
    audited: bool
    together: bool = False
    whole: Plan | None = None
    search: Search | None = None
    reached: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    prepared_seconds: float = 0.0
    path: Path | None = None

    @property
    def planned(self) -> Sequence[Run]:
        """All that the study is to train, as far as it is known before."""
        return () if self.search is not None else (self.whole or self.plan).runs


class Session:
    """One session of a driver.

    Parameters
    ----------
    about : About
        What it is about.
    kept : StudyDirectory
        The study's directory.
    staff : Staff
        Hires the workers.
    watcher : Watcher
        Shown what goes on.
    lock : DriverLock
        Holds the study for this driver.
    write_down : callable
        Writes down what is run, and where.
    """

    def __init__(
        self,
        about: About,
        kept: StudyDirectory,
        staff: Staff,
        watcher: Watcher,
        lock: DriverLock,
        write_down: Callable[[], None],
    ) -> None:
        self._about, self._kept, self._staff = about, kept, staff
        self._watcher, self._lock, self._write_down = watcher, lock, write_down
        self._started = time.time()
        self._processor = time.process_time()

    def run(self, retry_failed: bool, leaving: Callable[[], bool]) -> Outcome:
        """Train what is not on record yet; see `stormsweep.study.study.Study.run`."""
        about, watcher = self._about, self._watcher
        patches = [len(fold.train) for fold in about.folds]
        with heard(), contextlib.ExitStack() as workers, self._ending():
            turned = turned_folder(about.file, about.data)
            try:
                hired = self._staff.hire(watcher, about.data, turned, patches, workers)
            except KeyboardInterrupt:
                raise self._early() from None
            self._lock.tell(dashboard=hired.pool.dashboard, work={})
            watcher.stage("starting workers", 0.0)
            execution = Execution(
                self._staff.in_layout(hired.layout),
                about.plan,
                self._kept.folder,
                about.data,
                patches,
                hired.pool,
                watcher,
                turned,
                score_test=about.audited,
                search=about.search,
                reached=about.reached,
            )
            try:
                count = hired.layout.workers if about.together else 1
                within = about.place.gathering if about.together and about.place else math.inf
                execution.await_workers(count, self._lock.check, within)
                watcher.stage("starting workers", 1.0)
                self._kept.refuse_other_model(execution.model)
            except KeyboardInterrupt:
                raise self._early() from None
            # Nothing was written until now, and another driver may have begun meanwhile.
            self._lock.look()
            self._write_down()
            with JournalWriter(self._kept.journal_path, execution.recall) as journal:
                progress = execution.progress
                session = progress.session + 1
                outcome = "error"
                try:
                    self._begin_study(journal, execution.model, progress)
                    self._begin(journal, session, hired, execution.devices)
                    execution.train(
                        journal,
                        session,
                        retry_failed,
                        self._lock.check,
                        leaving,
                        lambda work: self._lock.tell(work=work),
                    )
                    outcome = "failed" if progress.failed else "done"
                    unfinished = execution.unfinished or self._more(progress)
                    if unfinished:
                        outcome = "walltime"
                except KeyboardInterrupt:
                    outcome = "interrupted"
                    raise StudyInterrupted("everything finished so far is kept") from None
                finally:
                    if not self._lock.lost:
                        with contextlib.suppress(JournalError):
                            journal.append(SessionEnded(session, outcome, self._taken()))
        return Outcome(
            self._kept.folder,
            list(progress.failed.values()),
            execution.trained,
            execution.epochs,
            unfinished,
        )

    def _early(self) -> StudyInterrupted:
        """Word what Ctrl-C cost before this session trained anything."""
        if self._kept.recorded:
            return StudyInterrupted("what was trained so far is kept")
        return StudyInterrupted("stopped before the first run began")

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Say in the end, before workers are waited for, that this driver need not be told to."""
        try:
            yield
        finally:
            self._lock.tell(ending=True)

    def _more(self, progress: Progress) -> bool:
        """Tell whether runs are left that were not for this session."""
        return bool(runs_left(self._about.planned, progress))

    def _taken(self) -> float:
        """Return the processor seconds that this process took for the session."""
        return round(time.process_time() - self._processor, 3)

    def _begin_study(self, journal: JournalWriter, model: str, progress: Progress) -> None:
        """Write down what the study is, as far as the journal does not have it yet."""
        file, data, search = self._about.file, self._about.data, self._about.search
        records: list[Record] = []
        begun = StudyBegun(
            name=file.study.name,
            seed=file.study.seed,
            version=__version__,
            strategy=file.search.strategy,
            metric=file.search.metric,
            folds=file.validation.total,
            group_by=file.validation.group_by,
            space=file.search.model_dump(mode="json")["space"],
            model={"build": file.model.build, "sha256": model},
            data=data.summary(),
            fold_sizes=fold_sizes(
                data.part("train"), list(self._about.folds), file.validation.group_by
            ),
            split=str(file.validation.split),
            flaws=flaws(file, data.manifest),
            rounds=file.validation.rounds,
            objectives=list(file.search.objectives),
        )
        last = progress.begun
        # Said again where the study grew, and where the builder was mended before anything could be
        # trained with it.
        if last is None or _said(last) != _said(begun):
            records.append(begun)
        if self._about.dropped:
            records.append(PlanCut(dict(self._about.dropped)))
        known = progress.planned
        records += [
            planned(run)
            # Of a search: those that came in because the study got more folds.
            for run in (self._about.planned if search is None else search.runs.values())
            if run.id not in known or not set(run.milestones) <= set(known[run.id].milestones)
        ]
        if records:
            journal.append(*records)
        for record in records:
            progress.take(Entry(time.time(), record))
            if search is not None:
                search.take(record)

    def _begin(self, journal: JournalWriter, session: int, hired: Hired, devices: set[str]) -> None:
        """Write down what this session works with."""
        file = self._staff.in_layout(hired.layout)
        now = describe(file, session, devices, self._about.path)
        path = self._kept.folder / "environment.json"
        if session == 1 or not path.is_file():
            write_json(path, now)
        else:
            first = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, first | {"later": [*first.get("later", []), now]})
        begun = SessionBegun(
            session,
            now["host"],
            os.getpid(),
            file.site.use,
            *file.site.layout,
            self._staff.allotment(hired.layout, self._started, self._about.prepared_seconds),
            opened=time.time(),
            driver_seconds=self._taken(),
            any_batch=takes_any_batch(file),
        )
        journal.append(begun, when=self._started)
        if hired.record is not None:
            journal.append(hired.record)


def _said(begun: StudyBegun) -> tuple[Any, ...]:
    """Return what of a study may change, and is said again then."""
    return begun.model["sha256"], begun.strategy, begun.space, begun.folds, begun.objectives
