"""A study as its file describes it: where it runs, what it is to train, what of that is left."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stormsweep.config.load import load_study, no_such_study
from stormsweep.config.study import StudyFile
from stormsweep.errors import StudyFileError, UserError
from stormsweep.records import Entry
from stormsweep.search.plan import Plan
from stormsweep.study.directory import StudyDirectory, no_study
from stormsweep.study.recorded import RecordedStudy

if TYPE_CHECKING:
    from stormsweep.data.prepared import PreparedData
    from stormsweep.scaling.design import Part
    from stormsweep.study.forecast import Forecast
    from stormsweep.study.known import KnownPoints
    from stormsweep.study.layout import Layout
    from stormsweep.study.outline import Outline
    from stormsweep.study.places import Place
    from stormsweep.study.problem import Ready
    from stormsweep.study.remaining import Remaining
    from stormsweep.study.staff import Staff

RUNS = Path("runs")


class DescribedStudy(RecordedStudy):
    """What can be said of a study before it does anything; see `stormsweep.study.study.Study`."""

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
        super().__init__(StudyDirectory(file, path, directory))
        self.file = file
        self.path = path
        self.directory = directory
        self._nodes, self._walltime, self._at = nodes, walltime, at
        self._audited, self._measured = audited, measured
        self._said_site = "site.use"

    @classmethod
    def from_toml(cls, path: Path | str, runs: Path | str = RUNS) -> Self:
        """Read a study file, or the directory of a study that was begun.

        Parameters
        ----------
        path : path
            A TOML file, or ``runs/<name>``.
        runs : path
            The folder of all studies' directories.

        Returns
        -------
        Study
            Nothing is made or changed yet.

        Raises
        ------
        StudyFileError
            If the file or directory is missing, or says what is not allowed.
        """
        path = Path(path)
        if path.is_dir():
            if not (path / "study.toml").is_file():
                raise StudyFileError(no_study(path))
            return cls(load_study(path / "study.toml"), path / "study.toml", path)
        if path.suffix != ".toml" and not path.exists():
            raise StudyFileError(no_such_study(path, Path(runs)))
        file = load_study(path)
        return cls(file, path, Path(runs) / file.study.name)

    def __repr__(self) -> str:
        return f"<Study {self.file.study.name!r} in {self.directory}>"

    def with_site(self, **changes: Any) -> Self:
        """Return the same study with other keys of ``[site]``.

        Parameters
        ----------
        **changes : object
            Keys and their values; None leaves a key as it is.
        """
        site = self.file.site.model_copy(
            update={key: value for key, value in changes.items() if value is not None}
        )
        said = self._said_site if changes.get("use") is None else "--site"
        return self._but(file=self.file.model_copy(update={"site": site}), _said_site=said)

    def on_nodes(self, least: int, most: int) -> Self:
        """Return the same study on a number of nodes of its site, each of them a job of its own.

        Parameters
        ----------
        least, most : int
            Nodes there are whatever there is to do, and nodes at most.
        """
        return self._but(_nodes=(least, most))

    def with_walltime(self, walltime: str) -> Self:
        """Return the same study with jobs of its site that take so long, and no longer.

        Parameters
        ----------
        walltime : str
            As Slurm writes it, such as ``"01:30:00"``; at most the site's.
        """
        return self._but(_walltime=walltime)

    def at(self, place: Place) -> Self:
        """Return the same study with its workers on the nodes of a site.

        Parameters
        ----------
        place : Place
            A site, and how its nodes become the study's.
        """
        return self._but(_nodes=None, _walltime=None, _at=place)

    def _but(self, **changes: Any) -> Self:
        """Return the same study with other attributes."""
        one = copy.copy(self)
        vars(one).update(changes)
        one._kept = StudyDirectory(one.file, one.path, one.directory)
        return one

    def plan(self) -> Plan:
        """Return what would run; touches neither data nor workers.

        Where the strategy learns from scores, it is about what the study will come to.
        """
        from stormsweep.study.remaining import plan_of

        return self._part(plan_of(self.file, self._kept.grown()))

    def named(self) -> list[Path | str]:
        """Return the arguments by which this study was named on the command line.

        A file that has grown since the study was begun is not yet what its directory holds.

        Returns
        -------
        list of path or str
            The directory, or the study file and where it is needed ``--runs``.
        """
        if self.is_record:
            return [self.directory]
        runs = self.directory.parent
        return [self.path] if runs == RUNS else [self.path, "--runs", runs]

    @property
    def is_record(self) -> bool:
        """Whether it was opened by its directory, not by a study file."""
        return self.path.resolve() == (self.directory / "study.toml").resolve()

    def again(self) -> list[Path | str]:
        """Return the arguments by which a command goes on with the study.

        Returns
        -------
        list of path or str
            The directory, once all that the study is now is written down there.
        """
        begun = (self.directory / "study.toml").exists() and not self._kept.outgrown
        return [self.directory] if begun else self.named()

    def known(self) -> KnownPoints:
        """Say how many known points (``search.known``) the study's space takes.

        Returns
        -------
        KnownPoints
            How many there are (``count``), how many of them the space takes (``inside``), and if it
            takes none, why not (``why``).

        Raises
        ------
        StudyFileError
            If they cannot be read.
        """
        from stormsweep.study.known import beside

        return beside(self.file, self._kept.known())

    def outline(self) -> Outline:
        """Return what `stormsweep plan` tells: all of it from one reading of the journal.

        Raises
        ------
        UserError
            As `check` does, which reads the builder's source too; or if data cannot be prepared, or
            do not allow the folds or the metric.
        """
        from stormsweep.study.outline import outline
        from stormsweep.study.problem import ready

        self.check()
        entries = list(self._kept.each())
        found = self._remaining(entries)
        there: Ready | str = ""
        model = ""
        if found.left(retry_failed=True):
            model = self._check_source()
            there = ready(self.file)
        staff = self._staff(found.plan, entries)
        return outline(self.directory, found, staff, entries, there, model)

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
            If the study file or the builder is no longer what scores on record come from, or the
            file says what is hardly meant, or there is no such engine or builder, or it does not
            take the hyperparameters.
        """
        from stormsweep.models.build import check_place
        from stormsweep.study.environment import check_engine

        self.check_meant()
        self._kept.refuse_edits()
        check_place(self.file.model.build)
        check_engine(self.file)
        if source and self.remaining().left(retry_failed=True):
            self._check_source()

    def check_meant(self) -> None:
        """Refuse what could be carried out, but is hardly meant, before it is begun.

        Raises
        ------
        StudyFileError
            For the first of it; not where the study was begun with such already.
        """
        # A part of a study, or one way to validate it, is checked with the whole.
        if self._measured is None and self._audited is None:
            self._kept.refuse_unmeant()

    def _check_source(self) -> str:
        """Return the checksum of the builder's code; empty where that is not certain."""
        from stormsweep.models.checksum import checksum
        from stormsweep.models.source import check_source
        from stormsweep.study.remaining import names_of

        path = check_source(self.file.model.build, names_of(self.file))
        if path is None:
            return ""
        model = checksum(self.file.model.build, path)
        self._kept.refuse_other_model(model)
        return model

    def remaining(self) -> Remaining:
        """Read from the journal what is left to train.

        Returns
        -------
        Remaining
            The plan, and what of it is on record.
        """
        return self._remaining(self._kept.each())

    def _remaining(self, entries: Iterable[Entry]) -> Remaining:
        from stormsweep.study.remaining import remaining

        try:
            found = remaining(self.file, entries, self._kept.known)
        except StudyFileError as error:
            # What a strategy lacks is told by its key alone.
            raise StudyFileError(f"{self.path}: {error}") from None
        part = self._part(found.plan)
        if part is found.plan:
            return found
        return replace(found, plan=part, whole=found.plan, search=None, dropped={})

    def layout(self) -> Layout | None:
        """Return the layout of the next session: workers x threads of each.

        Returns
        -------
        Layout or None
            None where ``[site]`` leaves it open, and a short trial will find it.
        """
        return self._staff(self.plan()).layout()

    def without_trial(self) -> Self:
        """Return the study with its layout in numbers; where it is open, one thread a worker."""
        return self._in(self._staff(self.plan()).without_trial())

    def forecast(self) -> Forecast:
        """Foretell how long the rest takes, from journals of this kind of machine; see `outline`.

        Returns
        -------
        Forecast
            From how many seconds to how many, and what that is based on.
        """
        return self.outline().forecast

    def place(self) -> Place | None:
        """Return where its workers run, as `[site]` and what is asked for instead say.

        Returns
        -------
        Place or None
            None: on this machine.

        Raises
        ------
        UserError
            If there is no such site, or its jobs are not as long as is asked for.
        """
        from stormsweep.study.places import asked_for, place_of

        if self._at is not None:
            return self._at
        site = self.file.site
        asked = asked_for(site, self.path, site.use, self._nodes, self._walltime)
        return place_of(site.use, self.path, self.directory, asked, self._said_site)

    def node_script(self) -> str:
        """Return the job script of a node of the study's site; see `check_site`.

        Raises
        ------
        UserError
            If the study runs on this machine.
        """
        if self.place() is None:
            raise UserError("--dry-run: there is no job script on this machine; name a --site")
        return self._staff(self.plan()).script()

    def _staff(self, plan: Plan, entries: Iterable[Entry] | None = None) -> Staff:
        from stormsweep.study.layout import telling
        from stormsweep.study.staff import Staff

        site = self.file.site
        open_ = "auto" in (site.workers, site.threads_per_worker)
        # Only an open layout depends on what was: a long journal is not read for nothing.
        told = () if not open_ else self._kept.each() if entries is None else entries
        kept = telling(entry.record for entry in told)
        return Staff(self.file, self.directory, plan, kept, self.place())

    def _in(self, layout: Layout) -> Self:
        return self.with_site(workers=layout.workers, threads_per_worker=layout.threads)

    def check_site(self, nodes: tuple[int, int] | None = None) -> str:
        """See whether the study can run on its site, as far as can be seen before it does.

        Parameters
        ----------
        nodes : tuple of int and int, optional
            Nodes there are to be at least, and at most; none: as many as the study has.

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

        place = self.place()
        # A job that runs was taken by its scheduler, which need not be asked again.
        if place is None or place.inside:
            return ""
        if nodes is not None:
            place = replace(place, nodes=nodes)
        return refuse_unfit(place, self.directory, self._staff(self.plan()).script())
