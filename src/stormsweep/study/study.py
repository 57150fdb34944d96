"""A study: one TOML file and the directory of what came of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stormsweep.config.load import load_study
from stormsweep.config.sites import LOCAL
from stormsweep.config.study import StudyFile
from stormsweep.errors import StudyFileError, StudyInterrupted, UserError
from stormsweep.files import sha256, within_group
from stormsweep.records import (
    Entry,
    LayoutTried,
    PlanCut,
    Record,
    SearchEnded,
    SessionBegun,
    Verified,
)
from stormsweep.search.plan import Plan
from stormsweep.study.chain import MAX_JOBS
from stormsweep.study.directory import StudyDirectory, no_study

if TYPE_CHECKING:
    import pandas as pd

    from stormsweep.cluster.pool import Pool
    from stormsweep.cluster.scheduler import Job
    from stormsweep.data.export import Format
    from stormsweep.data.prepared import PreparedData
    from stormsweep.neighbours.export import Exported, To
    from stormsweep.results.summary import Summary
    from stormsweep.scaling.accounts import Account
    from stormsweep.scaling.advice import Advice, Budget
    from stormsweep.scaling.design import Part
    from stormsweep.scaling.foretold import Foretold
    from stormsweep.scaling.hindsight import Hindsight
    from stormsweep.study.forecast import Forecast
    from stormsweep.study.foretelling import Circumstances
    from stormsweep.study.layout import Layout
    from stormsweep.study.places import Place
    from stormsweep.study.remaining import Remaining
    from stormsweep.study.session import Outcome
    from stormsweep.study.staff import Staff
    from stormsweep.study.submission import Submission
    from stormsweep.study.watching import Watcher

log = logging.getLogger(__name__)
RUNS = Path("runs")


class Study:
    """One study file and its directory.

    Parameters
    ----------
    file : StudyFile
        What the study file says.
    path : Path
        Where it stands, for messages.
    directory : Path
        Where everything that comes of the study goes.
    audited : PreparedData, optional
        For a protocol of an audit only: the data of the audited study. The test part is scored.
    nodes : tuple of int and int, optional
        On a site of a cluster: how many nodes at least, and at most; none: as the site says.
    walltime : str, optional
        On a site of a cluster: of each job; none: as ``[site]`` or the site says.
    at : Place, optional
        Where workers run, instead of what ``[site]`` says.
    measured : Part, optional
        For a measurement of a layout only: the runs that are trained, instead of all; training
        begins when all workers are ready.
    """

    def __init__(
        self,
        file: StudyFile,
        path: Path,
        directory: Path,
        audited: PreparedData | None = None,
        nodes: tuple[int, int] | None = None,
        walltime: str | None = None,
        at: Place | None = None,
        measured: Part | None = None,
    ) -> None:
        self.file = file
        self.path = path
        self.directory = directory
        self._nodes, self._walltime, self._at = nodes, walltime, at
        self._kept = StudyDirectory(file, path, directory)
        self._audited, self._measured = audited, measured

    @classmethod
    def from_toml(cls, path: Path | str, runs: Path | str = RUNS) -> Study:
        """Read a study file, or the directory of a study that was begun.

        Parameters
        ----------
        path : path
            A TOML file, or ``runs/<name>``.
        runs : path
            The folder of all studies' directories.

        Raises
        ------
        StudyFileError
            If the file is missing, malformed or says what is not allowed.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "study.toml").is_file():
                raise StudyFileError(no_study(path))
            return cls(load_study(path / "study.toml"), path / "study.toml", path)
        file = load_study(path)
        return cls(file, path, Path(runs) / file.study.name)

    def __repr__(self) -> str:
        return f"<Study {self.file.study.name!r} in {self.directory}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from stormsweep.study.notebook import study_html

        return study_html(self)

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self._kept.journal_path

    @property
    def recorded(self) -> bool:
        """Whether anything is recorded of it."""
        return self._kept.recorded

    def with_site(self, **changes: Any) -> Study:
        """Return the same study with other keys of ``[site]``."""
        site = self.file.site.model_copy(
            update={key: value for key, value in changes.items() if value is not None}
        )
        return self._but(file=self.file.model_copy(update={"site": site}))

    def on_nodes(self, least: int, most: int) -> Study:
        """Return the same study on a number of nodes of its site, each of them a job of its own.

        Parameters
        ----------
        least, most : int
            Nodes there are whatever there is to do, and nodes at most.
        """
        return self._but(nodes=(least, most))

    def with_walltime(self, walltime: str) -> Study:
        """Return the same study with jobs of its site that take so long, and no longer.

        Parameters
        ----------
        walltime : str
            As Slurm writes it, such as ``"01:30:00"``; at most the site's.
        """
        return self._but(walltime=walltime)

    def at(self, place: Place) -> Study:
        """Return the same study with its workers in a place."""
        return self._but(nodes=None, walltime=None, at=place)

    def _but(self, **changes: Any) -> Study:
        known = {
            "file": self.file,
            "audited": self._audited,
            "nodes": self._nodes,
            "walltime": self._walltime,
            "at": self._at,
            "measured": self._measured,
        }
        return Study(path=self.path, directory=self.directory, **(known | changes))

    def plan(self) -> Plan:
        """Return what would run; touches neither data nor workers.

        Where the strategy learns from scores, it is about what the study will come to.
        """
        from stormsweep.study.remaining import plan_of

        return self._part(plan_of(self.file, self._kept.grown()))

    def known(self) -> tuple[int, int]:
        """Return how many known points (``search.known``) there are, and how many of the space.

        Raises
        ------
        StudyFileError
            If they cannot be read.
        """
        from stormsweep.study.remaining import of_the_space

        points = self._kept.known()
        return len(points), of_the_space(self.file, points)

    def _part(self, plan: Plan) -> Plan:
        """Return what of a plan is to be trained."""
        return plan if self._measured is None else self._measured.of(plan)

    def check(self, source: bool = False) -> None:
        """Refuse what can be seen before data are prepared and workers are started.

        Parameters
        ----------
        source : bool
            Read the builder's source too, where there is anything left to train; `run` does in any
            case.

        Raises
        ------
        UserError
            If the study file or the builder is no longer what scores on record come from, or there
            is no such engine or builder, or it does not take the hyperparameters.
        """
        from stormsweep.models.build import check_place
        from stormsweep.study.environment import check_engine

        self._kept.refuse_edits()
        check_place(self.file.model.build)
        check_engine(self.file)
        if source and self.remaining().left(retry_failed=True):
            self._check_source()

    def _check_source(self) -> None:
        from stormsweep.models.source import check_source
        from stormsweep.study.remaining import names_of

        path = check_source(self.file.model.build, names_of(self.file))
        if path is not None:
            self._kept.refuse_other_model(sha256(path))

    def remaining(self) -> Remaining:
        """Read from the journal what is left to train."""
        from stormsweep.results.journal import each
        from stormsweep.study.remaining import remaining

        there = self.journal_path.is_file()
        entries = each(self.journal_path) if there else ()
        try:
            found = remaining(self.file, entries, self._kept.known)
        except StudyFileError as error:
            # What a strategy lacks is told by its key alone.
            raise StudyFileError(f"{self.path}: {error}") from None
        part = self._part(found.plan)
        if part is found.plan:
            return found
        return replace(found, plan=part, whole=found.plan, search=None, dropped={})

    def _whole(self, plan: Plan) -> Plan | None:
        """Return all that the study is to train, where only a part of it (`_part`) is trained."""
        return None

    def prepare(self, watcher: Watcher | None = None, again: bool = False) -> PreparedData:
        """Open the study's prepared data, made first where missing.

        Raises
        ------
        DataError
            If data are missing, unfit or changed.
        """
        from stormsweep.study.problem import prepare, prepare_turned

        told = watcher.stage if watcher else None
        data = prepare(self.file, told, again)
        prepare_turned(self.file, data, told, again)
        return data

    def export(
        self, folder: Path | str, format: Format = "npy", watcher: Watcher | None = None
    ) -> list[Path]:
        """Write the study's data for other tools; see `stormsweep.data.export.export`.

        The balanced arrays of ``npy`` follow ``[balance]``, drawn from the whole training part.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        DataError
            If data are missing, unfit or changed, or the folder exists or has no room.
        """
        from stormsweep.study.problem import export

        return export(self.file, Path(folder), format, watcher.stage if watcher else None)

    def export_to(self, to: To, output: Path | str | None = None) -> Exported:
        """Write the study, finished or not, for a tool of others.

        What an earlier call wrote is replaced at one stroke; nothing else is touched.

        Parameters
        ----------
        to : str
            ``mlflow``, ``tensorboard`` or ``optuna``; ``csv`` or ``parquet``: all frames; ``onnx``:
            the verified model.
        output : path or str, optional
            A file or folder, for ``mlflow`` also the URI of a tracking store; default: in
            ``export/`` of the study's directory.

        Returns
        -------
        Exported
            Where it is, and the command that opens it.

        Raises
        ------
        UserError
            If a package is missing, something else is in the way, or nothing is on record.
        """
        from stormsweep.study.interchange import export_to

        return export_to(self, to, output)

    def entries(self) -> list[Entry]:
        """Read the journal.

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
            Hyperparameters, scores and times; configurations are ranked, the best first.
        """
        from stormsweep.results import frames

        entries = self.entries()
        return frames.fits(entries) if per_fold else frames.configurations(entries)

    def importance(self) -> pd.DataFrame:
        """Return what mattered so far; see `stormsweep.results.importance.importance_frame`."""
        from stormsweep.results.importance import importance_frame

        return importance_frame(self.entries())

    def contenders(self) -> pd.DataFrame:
        """Return what cannot be told from the best; see `stormsweep.results.contenders`."""
        from stormsweep.results.contenders import contenders

        return contenders(self.entries())

    def hindsight(self) -> Hindsight | None:
        """Return what dropping trials early would have missed; see `stormsweep.scaling.hindsight`.

        None where the study does not tell.
        """
        from stormsweep.scaling.hindsight import hindsight

        return hindsight(self.entries())

    def timings(self, of: Literal["tasks", "workers", "sessions"] = "tasks") -> pd.DataFrame:
        """Return where the time went; see `stormsweep.scaling.timings`.

        Parameters
        ----------
        of : ``tasks``, ``workers`` or ``sessions``
            ``tasks``: one row a task that was done or paused; ``workers``: one row a worker and
            session; ``sessions``: one row a session of the driver.
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

    @within_group()
    def run(
        self,
        watcher: Watcher | None = None,
        retry_failed: bool = False,
        leaving: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Train everything that is not on record yet.

        Parameters
        ----------
        watcher : Watcher, optional
            Shown what goes on; default: in a notebook bars in the cell's output, else nobody.
        retry_failed : bool
            Try runs again that failed in an earlier session.
        leaving : callable, optional
            Asked again and again whether the time of this driver is over. Then nothing more is
            given out, and the session ends when the workers are done with what they have.

        Returns
        -------
        Outcome

        Raises
        ------
        UserError
            For any mistake in the study file or the data; nothing is written then.
        StudyInterrupted
            On Ctrl-C; everything finished is kept.
        """
        from stormsweep.study.execute import never
        from stormsweep.study.lock import DriverLock, refuse_if_busy
        from stormsweep.study.notebook import usual_watcher
        from stormsweep.study.protocol import check_metric, flaws, fold_rows, protocol_of
        from stormsweep.study.session import About, Outcome, Session

        watcher = watcher or usual_watcher()
        file = self.file
        gone = self.check_site()
        refuse_if_busy(self.directory)
        self.check()
        if gone:
            watcher.note(f"site {file.site.use}: {gone}; jobs wait in the queue.")
        for flaw in flaws(file) if self._audited is None else ():
            watcher.note(f"The validation is not honest: {flaw}.")
        with self._kept.made(), DriverLock(self.directory) as lock:
            self._kept.refuse_edits()
            if not self._kept.recorded:
                # The study may wait for data or in a queue for hours, and be asked after meanwhile.
                self._write_down()
            self._kept.sweep()
            found = self.remaining()
            plan, before = found.plan, found.progress
            left = found.left(retry_failed)
            if left:
                self._check_source()
                self._staff(plan).prepare()
            data = self._audited or self.prepare(watcher)
            part = data.part("train")
            folds = fold_rows(part, protocol_of(file))
            check_metric(part, folds, file.search.metric)
            begun = self._kept.begun()
            self._kept.refuse_other_data(begun, data)
            # Data may have taken hours.
            lock.look()
            if begun and not left:
                self._close(found)
                return Outcome(self.directory, list(before.failed.values()), 0)
            audited, together = self._audited is not None, self._measured is not None
            whole = self._whole(found.whole)
            about = About(
                file,
                plan,
                data,
                folds,
                self._place(),
                audited,
                together,
                whole,
                search=found.search,
                reached=before.reached,
                dropped=found.dropped,
            )
            with self._kept.logging():
                staff = self._staff(plan)
                session = Session(about, self._kept, staff, watcher, lock, self._write_down)
                return session.run(retry_failed, leaving or never)

    def _close(self, found: Remaining) -> None:
        """Say what nothing needs any more, and that nothing more will be proposed."""
        from stormsweep.results.journal import JournalWriter

        search = found.search
        records: list[Record] = [PlanCut(dict(found.dropped))] if found.dropped else []
        if search is not None and not search.ended:
            records.append(SearchEnded(search.trials))
        if records:
            with JournalWriter(self.journal_path) as journal:
                journal.append(*records)

    @within_group()
    def submit(
        self,
        site: str | None = None,
        *,
        max_jobs: int = MAX_JOBS,
        retry_failed: bool = False,
        nodes: int | None = None,
        walltime: str | None = None,
        dry_run: bool = False,
    ) -> Submission:
        """Submit the study as a Slurm job, which carries it on in further jobs until it is done.

        Parameters
        ----------
        site : str, optional
            A site of sites.toml; default: ``site.use`` of the study file.
        max_jobs : int
            How many jobs there may be, one after another.
        retry_failed : bool
            Have every job try runs again that failed in an earlier one.
        nodes : int, optional
            Nodes of each job, instead of the site's.
        walltime : str, optional
            Of each job, such as ``"01:30:00"``; at most the site's.
        dry_run : bool
            Only make the job script, and see whether it would be taken.

        Returns
        -------
        Submission

        Raises
        ------
        UserError
            For any mistake that can be seen here, in one line; nothing is written then.
        SlurmError
            If Slurm is in trouble.
        """
        from stormsweep.study.submission import submit

        return submit(
            self,
            site,
            max_jobs=max_jobs,
            retry_failed=retry_failed,
            nodes=nodes,
            walltime=walltime,
            dry_run=dry_run,
        )

    def jobs(self) -> dict[str, Job] | None:
        """Return the study's Slurm jobs by number, those just over too.

        Returns
        -------
        dict or None
            None where there is no Slurm, or it does not answer at once.
        """
        from stormsweep.study.jobs import jobs_of

        return jobs_of(self.directory)

    def cancel(self) -> list[str]:
        """End the study's jobs and its driver, wherever they are.

        Returns
        -------
        list of str
            A line for each that was ended.

        Raises
        ------
        StormsweepError
            If the driver does not end: within a minute, or two on another machine.
        SlurmError
            If Slurm cannot be asked, or does not cancel them.
        """
        from stormsweep.study.jobs import cancel

        return cancel(self.directory)

    @within_group()
    def verify(
        self, watcher: Watcher | None = None, again: bool = False, unfinished: bool = False
    ) -> Verified:
        """Train the best configuration on all training cases and score it on the test part, once.

        The model and its test predictions go to ``model/``, the scores into the journal. A study
        that was verified already returns the recorded scores.

        Parameters
        ----------
        watcher : Watcher, optional
            Shown what goes on; default: in a notebook bars in the cell's output, else nobody.
        again : bool
            Score the test part another time; the journal counts how often.
        unfinished : bool
            Verify the best configuration so far.

        Returns
        -------
        Verified

        Raises
        ------
        UserError
            If there is no test part, no configuration to verify, or the study is not finished.
        RunError
            If the model cannot be trained on the whole training part.
        StudyInterrupted
            On Ctrl-C; the same call goes on where it stopped.
        """
        from stormsweep.results.journal import JournalWriter
        from stormsweep.study.choice import Choice, choose
        from stormsweep.study.environment import check_engine
        from stormsweep.study.layout import Layout
        from stormsweep.study.lock import DriverLock, refuse_if_busy
        from stormsweep.study.notebook import usual_watcher
        from stormsweep.study.verify import Verification

        watcher = watcher or usual_watcher()
        self.check_site()
        choice = choose(self.directory, self.entries(), again, unfinished)
        if not isinstance(choice, Choice):
            return choice
        check_engine(self.file)
        refuse_if_busy(self.directory)
        self._kept.refuse_edits()
        try:
            with DriverLock(self.directory) as lock:
                # Another driver may have been quicker.
                choice = choose(self.directory, self.entries(), again, unfinished)
                if not isinstance(choice, Choice):
                    return choice
                data = self.prepare(watcher)
                # Data may have taken hours.
                lock.look()
                self._kept.refuse_other_data(self._kept.begun(), data)
                one = self.without_trial().with_site(workers=1)
                workers = one._staff(self.plan()).pool(Layout(*one.file.site.layout))
                with self._kept.logging(), workers as pool:
                    look = Verification(one.file, self.directory, data, choice, pool, watcher)
                    with JournalWriter(self.journal_path) as journal:
                        return look.carry_out(journal, self._kept.refuse_other_model, lock.check)
        except KeyboardInterrupt:
            raise StudyInterrupted("what was trained so far is kept") from None

    def layout(self) -> Layout | None:
        """Return the layout of the next session: workers x threads of each.

        Returns
        -------
        Layout or None
            None where ``[site]`` leaves it open, and a short trial will find it.
        """
        return self._staff(self.plan()).layout()

    def without_trial(self) -> Study:
        """Return the study with its layout in numbers; where it is open, one thread a worker."""
        return self._in(self._staff(self.plan()).without_trial())

    @contextlib.contextmanager
    def workers(self, plan: Plan, layout: Layout, data: PreparedData) -> Iterator[Pool]:
        """Start workers that train nothing for the study's journal: to find out what they can do.

        Parameters
        ----------
        plan : Plan
            The study's runs.
        layout : Layout
            Workers and threads.
        data : PreparedData
            What they will read.
        """
        with self._kept.logging(), self._staff(plan).pool(layout, [data.path]) as pool:
            yield pool

    def forecast(self) -> Forecast:
        """Foretell how long the rest of the study takes, from journals of this machine."""
        from stormsweep.study.forecast import forecast

        return forecast(self.without_trial().file, self.directory, self.remaining().ahead())

    def simulate(
        self,
        *,
        workers: int | None = None,
        nodes: int | None = None,
        threads: int | None = None,
        site: str | None = None,
        repeats: int | None = None,
        whole: bool = False,
        circumstances: Circumstances | None = None,
    ) -> Foretold:
        """Foretell what the study takes in a layout, from its own journal, by simulating it.

        Parameters
        ----------
        workers, nodes, threads : int, optional
            The layout: workers on this machine, or on a site whole nodes of them; threads of each.
        site : str, optional
            Instead of ``site.use``.
        repeats : int, optional
            Simulations.
        whole : bool
            All of the study, also where some of it is on record already. A study that is finished
            is simulated whole in any case.
        circumstances : Circumstances, optional
            Failures, waits in the queue, how fast the site's cores are.

        Returns
        -------
        Foretold
            Percentiles of time, core-hours, GPU-hours, money and utilisation.

        Raises
        ------
        UserError
            If the journal has no finished run, or there is no such layout.
        """
        from stormsweep.study.foretelling import Outlook, in_layout

        outlook = Outlook(self, whole, circumstances)
        return outlook.foretell(in_layout(self, outlook, site, workers, nodes, threads), repeats)

    def advise(
        self,
        *,
        sites: Sequence[str] = (),
        deadline: float | None = None,
        budget: Budget | None = None,
        repeats: int | None = None,
        most_nodes: int | None = None,
        whole: bool = False,
        circumstances: Circumstances | None = None,
    ) -> Advice:
        """Compare layouts, numbers of nodes and sites, and choose.

        Parameters
        ----------
        sites : sequence of str
            Instead of ``site.use``.
        deadline : float, optional
            Seconds in which it must be done; the cheapest that is is chosen.
        budget : Budget, optional
            What it may cost; the fastest that keeps to it is chosen.
        repeats, whole, circumstances
            As for `simulate`.
        most_nodes : int, optional
            Nodes to try at most.

        Returns
        -------
        Advice

        Raises
        ------
        UserError
            If the journal has no finished run, or nothing keeps to deadline and budget.
        """
        from stormsweep.study.foretelling import Outlook, advise

        outlook = Outlook(self, whole, circumstances)
        return advise(self, outlook, sites, deadline, budget, repeats, most_nodes)

    def node_script(self) -> str:
        """Return the job script of a node of the study's site; see `check_site`.

        Raises
        ------
        UserError
            If the study runs on this machine.
        """
        if self._place() is None:
            raise UserError("--dry-run: there is no job script on this machine; name a --site")
        return self._staff(self.plan()).script()

    def _staff(self, plan: Plan) -> Staff:
        from stormsweep.results.journal import each
        from stormsweep.study.staff import Staff

        site = self.file.site
        open_ = "auto" in (site.workers, site.threads_per_worker)
        begun = open_ and self.journal_path.is_file()
        # Only an open layout depends on what was: a long journal is not read for nothing.
        records = (entry.record for entry in (each(self.journal_path) if begun else ()))
        kept = [one for one in records if isinstance(one, LayoutTried | SessionBegun)]
        return Staff(self.file, self.directory, plan, kept, self._place())

    def _in(self, layout: Layout) -> Study:
        return self.with_site(workers=layout.workers, threads_per_worker=layout.threads)

    def _write_down(self) -> None:
        """Write down what is run, and where: `run DIR` and all else that is given it know both."""
        from stormsweep.config.load import dump_study
        from stormsweep.files import write_text
        from stormsweep.study.places import remember, was_submitted

        self._kept.keep_earlier()
        self._kept.keep_known()
        write_text(self.directory / "study.toml", dump_study(self.file))
        place = self._place()
        # What `submit` wrote down stays: a job knows less of what was asked for.
        if place is not None and not (place.inside and was_submitted(self.directory)):
            remember(place.found, self.directory, place.inside, place.asked)

    def _place(self) -> Place | None:
        from stormsweep.study.places import place_of

        if self._at is not None:
            return self._at
        site, nodes = self.file.site, self._nodes
        walltime, said = self._walltime, "--walltime"
        if nodes is None and site.nodes is not None and site.use != LOCAL:
            nodes = site.nodes, site.nodes
        if walltime is None and site.use != LOCAL:
            walltime, said = site.walltime, f"{self.path}: site.walltime"
        return place_of(site.use, self.path, self.directory, nodes, walltime, said)

    def check_site(self) -> str:
        """See whether the study can run on its site, as far as can be seen before it does.

        Returns
        -------
        str
            What is out of service that jobs of the study have to wait for; else empty.

        Raises
        ------
        UserError
            If the site is not as the cluster, or the cluster is not to be seen from here.
        SchedulerError
            If its scheduler is in trouble.
        """
        from stormsweep.study.admission import refuse_unfit

        place = self._place()
        # A job that runs was taken by its scheduler, which need not be asked again.
        if place is None or place.inside:
            return ""
        return refuse_unfit(place, self.directory, self._staff(self.plan()).script())
