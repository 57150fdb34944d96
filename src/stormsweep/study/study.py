"""A study: one TOML file and the directory of what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.errors import StudyInterrupted
from stormsweep.files import within_group
from stormsweep.records import PlanCut, Record, SearchEnded, Verified
from stormsweep.search.plan import Plan
from stormsweep.study.chain import MAX_JOBS
from stormsweep.study.described import DescribedStudy

if TYPE_CHECKING:
    from stormsweep.cluster.pool import Pool
    from stormsweep.cluster.scheduler import Job
    from stormsweep.data.export import Format
    from stormsweep.data.prepared import PreparedData
    from stormsweep.neighbours.export import Exported, To
    from stormsweep.scaling.advice import Advice, Budget
    from stormsweep.scaling.foretold import Foretold
    from stormsweep.study.foretelling import Circumstances
    from stormsweep.study.layout import Layout
    from stormsweep.study.remaining import Remaining
    from stormsweep.study.session import Outcome
    from stormsweep.study.submission import Submission
    from stormsweep.study.watching import Watcher


class Study(DescribedStudy):
    """One study file and its directory.

    `Study.from_toml` makes one. Everything that the commands do is a method here.

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
    measured : scaling.design.Part, optional
        For a measurement of a layout only: the runs that are trained, instead of all; training
        begins when all workers are ready.
    """

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from stormsweep.study.notebook import study_html

        return study_html(self)

    def _whole(self, plan: Plan) -> Plan | None:
        """Return all that the study is to train, where only a part of it (`_part`) is trained."""
        return None

    def prepare(self, watcher: Watcher | None = None, again: bool = False) -> PreparedData:
        """Open the study's prepared data, made first where missing.

        Parameters
        ----------
        watcher : Watcher, optional
            Shown how far that is.
        again : bool
            Make them anew, also where they are there.

        Returns
        -------
        PreparedData
            Scaled arrays on disk, with their manifest.

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
        """Write the study's prepared data as files that other tools read.

        Memory stays small whatever the size: arrays go from disk to disk in blocks.

        Parameters
        ----------
        folder : path or str
            A folder that does not exist; it appears when all is written.
        format : {"npy", "netcdf", "zarr"}
            ``npy``: ``train_norm_2d`` and ``test_norm_2d`` (float32, scaled inputs, shape (n,
            height, width, channels) or (n, columns)), ``train_out`` and ``test_out`` (uint8, shape
            (n,)), and of the training part balanced as ``[balance]`` says ``train_norm_2d_new`` and
            ``train_out_new`` (none with the methods ``none`` and ``class-weight``): the names that
            the scripts of the 2019 study use. ``netcdf``: ``train.nc`` and ``test.nc`` with inputs,
            labels, targets, groups, and the mean and standard deviation that inputs were scaled
            with. ``zarr``: the same as ``train.zarr`` and ``test.zarr``, format 2 with consolidated
            metadata, which `xarray.open_zarr` and older tools read.
        watcher : Watcher, optional
            Shown how far that is.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        DataError
            If data are missing, unfit or changed, the folder exists, the disk has no room, or the
            format is not known or lacks its package.
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
            What failed, and whether work is left.

        Raises
        ------
        UserError
            For any mistake in the study file or the data; nothing is written then.
        StudyInterrupted
            On Ctrl-C; everything finished is kept.
        """
        from stormsweep.study.execute import never
        from stormsweep.study.held_out import unscorable
        from stormsweep.study.lock import DriverLock, refuse_if_busy
        from stormsweep.study.notebook import usual_watcher
        from stormsweep.study.protocol import check_metric, flaws, folds_of
        from stormsweep.study.session import About, Outcome, Session

        watcher = watcher or usual_watcher()
        file = self.file
        gone = self.check_site()
        refuse_if_busy(self.directory)
        self.check()
        self._note_away(watcher, gone)
        said = flaws(file)
        for flaw in said if self._audited is None else ():
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
            prepares = time.monotonic()
            data = self._audited or self.prepare(watcher)
            prepared = time.monotonic() - prepares
            # Groups that a function brings are not known before.
            for flaw in flaws(file, data.manifest) if self._audited is None else ():
                if flaw not in said:
                    watcher.note(f"The validation is not honest: {flaw}.")
            if why := unscorable(data.summary()):
                watcher.note(f"The study can be run, but not verified: {why}.")
            part = data.part("train")
            folds = folds_of(part, file)
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
                self.place(),
                audited,
                together,
                whole,
                search=found.search,
                reached=before.reached,
                dropped=found.dropped,
                prepared_seconds=prepared,
                path=self.path,
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
            The job script, the job, and where its output goes.

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
        dict of str to Job, or None
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
            The record of the look: scores with their intervals, the decision threshold.

        Raises
        ------
        UserError
            If there is no test part, it is of one class, there is no configuration to verify, or
            the study is not finished.
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
        # One worker trains the best configuration.
        gone = self.check_site(nodes=(1, 1))
        choice = choose(self.directory, self.entries(), again, unfinished)
        if not isinstance(choice, Choice):
            return choice
        check_engine(self.file)
        refuse_if_busy(self.directory)
        self._kept.refuse_edits()
        self._note_away(watcher, gone)
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

        Yields
        ------
        Pool
            The workers; they end with the block.
        """
        with self._kept.logging(), self._staff(plan).pool(layout, [data.path]) as pool:
            yield pool

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
            All that was simulated, and what of it is advised.

        Raises
        ------
        UserError
            If the journal has no finished run, or nothing keeps to deadline and budget.
        """
        from stormsweep.study.foretelling import Outlook, advise

        outlook = Outlook(self, whole, circumstances)
        return advise(self, outlook, sites, deadline, budget, repeats, most_nodes)

    def _write_down(self) -> None:
        """Write down what is run, and where: `run DIR` and all else that is given it know both."""
        from stormsweep.config.load import dump_study
        from stormsweep.files import write_text
        from stormsweep.study.places import remember, was_submitted

        self._kept.keep_earlier()
        self._kept.keep_known()
        write_text(self.directory / "study.toml", dump_study(self.file))
        place = self.place()
        # What `submit` wrote down stays: a job knows less of what was asked for.
        if place is not None and not (place.inside and was_submitted(self.directory)):
            remember(place.found, self.directory, place.inside, place.asked)

    def _note_away(self, watcher: Watcher, gone: str) -> None:
        """Say what is out of service that jobs wait for."""
        if gone:
            watcher.note(f"site {self.file.site.use}: {gone}; jobs wait in the queue.")
