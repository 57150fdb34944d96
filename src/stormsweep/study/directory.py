"""A study's directory: made and taken away, read, and kept from what does not fit it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.config.growth import grew
from stormsweep.config.load import differences, load_study
from stormsweep.config.space_checks import check_meant
from stormsweep.config.study import StudyFile
from stormsweep.errors import (
    JournalError,
    SlurmError,
    StudyFileError,
    StudyInterrupted,
    UserError,
    typed,
)
from stormsweep.files import write_text
from stormsweep.records import Entry, StudyBegun, TaskDone, TaskPaused

if TYPE_CHECKING:
    from stormsweep.data.prepared import PreparedData
    from stormsweep.results.progress import Progress
    from stormsweep.search.proposals import Known


def study_key(directory: Path) -> str:
    """Return what all jobs of a study are known by: the same from every folder and every node.

    Parameters
    ----------
    directory : Path
        The study's directory; it need not exist.

    Returns
    -------
    str
        Twelve hexadecimal digits.

    Examples
    --------
    >>> study_key(Path("/runs/x")) == study_key(Path("/runs/y/../x"))
    True
    """
    return hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]


def no_study(folder: Path) -> str:
    """Say, for an error, what a folder is that has no study file."""
    from stormsweep.results.searched import read

    with contextlib.suppress(JournalError):
        if read(folder) is not None:
            return (
                f"{folder}: is the directory of a SweepSearchCV, not of a study; `stormsweep "
                "status` and `stormsweep results` tell of it"
            )
    return f"{folder}: is no study's directory; it has no study.toml"


class StudyDirectory:
    """The directory of one study.

    Parameters
    ----------
    file : StudyFile
        What the study file says now.
    path : Path
        Where that stands, for messages.
    folder : Path
        The directory; it need not exist.
    """

    def __init__(self, file: StudyFile, path: Path, folder: Path) -> None:
        self._file, self._path, self._folder = file, path, folder
        self._progress: tuple[int, Progress] | None = None

    @property
    def folder(self) -> Path:
        """The directory."""
        return self._folder

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self._folder / "journal.jsonl"

    @property
    def recorded(self) -> bool:
        """Whether the journal has a line."""
        return self.journal_path.is_file() and self.journal_path.stat().st_size > 0

    def entries(self) -> list[Entry]:
        """Read the journal.

        Raises
        ------
        JournalError
            If there is none, or it is damaged.
        """
        from stormsweep.results.journal import read

        if not self.journal_path.is_file():
            own = self._path.parent == self._folder
            raise JournalError(
                f"{self._folder}: the study has not been begun; run "
                f"`{typed('run', self._folder if own else self._path)}`"
            )
        return read(self.journal_path)

    def each(self) -> Iterator[Entry]:
        """Yield what the journal has so far, entry by entry; nothing where there is none.

        Raises
        ------
        JournalError
            If it is damaged.
        """
        from stormsweep.results.journal import each

        return each(self.journal_path) if self.journal_path.is_file() else iter(())

    def begun(self) -> StudyBegun | None:
        """Return what the journal says the study is; None where none is begun."""
        return self._begun_and_trained()[0]

    def _begun_and_trained(self) -> tuple[StudyBegun | None, bool]:
        """Return what the journal says the study is, and whether anything was trained for it."""
        begun: StudyBegun | None = None
        # It is said again only while nothing is trained: no more of a long journal is read.
        for entry in self.each():
            match entry.record:
                case StudyBegun() as begun:
                    pass
                case TaskDone() | TaskPaused():
                    return begun, True
                case _:
                    pass
        return begun, False

    def refuse_unmeant(self) -> None:
        """Refuse what is hardly meant, unless the study was begun with such.

        Raises
        ------
        StudyFileError
            Naming the key.
        """
        said, recorded = _unmeant(self._file), self._folder / "study.toml"
        # Where the file it was begun with is gone, `refuse_edits` says so.
        if self.recorded and (not recorded.is_file() or _unmeant(load_study(recorded))):
            return
        if said:
            raise StudyFileError(f"{self._path}: {said}")

    def refuse_edits(self) -> None:
        """Refuse a study file that no longer fits what was begun under its name.

        Raises
        ------
        JournalError
            Naming what changed, and a name that is free.
        """
        recorded = self._folder / "study.toml"
        if not self.recorded:
            return
        if not recorded.is_file():
            raise JournalError(
                f"{recorded}: is missing, so that nobody knows what {self.journal_path} is about; "
                "put it back"
            )
        changes = differences(load_study(recorded), self._file, growing=True)
        if changes:
            raise JournalError(
                f"{self._path}: {'; '.join(changes)}: since {self._folder} was begun; undo the "
                f"change, or begin another study with study.name = {self._free_name()!r}"
            )

    @property
    def outgrown(self) -> bool:
        """Whether the study has grown since its file was written down here."""
        recorded = self._folder / "study.toml"
        return self.recorded and recorded.is_file() and grew(load_study(recorded), self._file)

    def grown(self) -> Progress | None:
        """Return what is on record, where the study file is not what it was all trained by.

        Returns
        -------
        Progress or None
            None where the study did not grow.
        """
        from stormsweep.results.progress import progress_of

        if not self.outgrown and not (self.recorded and self._earlier()):
            return None
        size = self.journal_path.stat().st_size
        if self._progress is None or self._progress[0] != size:
            self._progress = size, progress_of(self.each())
        return self._progress[1]

    def _earlier(self) -> list[Path]:
        """Return the study files before the study grew, the first one first."""
        files = self._folder.glob("study.*.toml")
        return sorted(
            (path for path in files if path.name.split(".")[1].isdigit()),
            key=lambda path: int(path.name.split(".")[1]),
        )

    def keep_earlier(self) -> None:
        """Keep the study file as it was, where the study has grown since."""
        if self.outgrown:
            text = (self._folder / "study.toml").read_text(encoding="utf-8")
            write_text(self._folder / f"study.{len(self._earlier()) + 1}.toml", text)

    def known(self) -> list[Known]:
        """Return the points whose scores the study's strategy is told at its beginning.

        Raises
        ------
        StudyFileError
            If ``search.known`` is no such file.
        """
        from stormsweep.neighbours.points import known_points
        from stormsweep.search.space import DEFAULT_EPOCHS
        from stormsweep.study.remaining import stops_of

        search = self._file.search
        if search.known is None:
            return []
        own = self._folder / "known.jsonl"
        source = own if self.recorded and own.is_file() else search.known
        epochs = max(stops_of(self._file), default=DEFAULT_EPOCHS)
        try:
            return known_points(source, search.objectives or [search.metric], epochs)
        except UserError as error:
            raise StudyFileError(f"search.known: {error}") from None

    def keep_known(self) -> None:
        """Keep the points that are known: the strategy must find them as they were."""
        own, given = self._folder / "known.jsonl", self._file.search.known
        if given is not None and not (self.recorded and own.is_file()):
            from stormsweep.neighbours.points import read_points, write_points

            write_points(own, read_points(given))

    def refuse_other_data(self, begun: StudyBegun | None, data: PreparedData) -> None:
        """Refuse data that are not those the study was begun with.

        Raises
        ------
        JournalError
            If the fingerprints differ.
        """
        if begun and begun.data["fingerprint"] not in (
            data.fingerprint,
            # As it was written before the file of a function that reads data could be moved.
            data.fingerprint_of(str(begun.data.get("source"))),
        ):
            raise JournalError(
                f"{self._folder}: the data changed since the study was begun (fingerprint "
                f"{data.fingerprint[:12]}, was {begun.data['fingerprint'][:12]}); restore them, "
                f"or begin another study with study.name = {self._free_name()!r}"
            )

    def refuse_other_model(self, model: str) -> None:
        """Refuse a builder whose code is not that which scores on record come from.

        A model that nothing could be trained with may be mended.

        Parameters
        ----------
        model : str
            SHA-256 of the code.

        Raises
        ------
        JournalError
            If the checksums differ.
        """
        begun, trained = self._begun_and_trained()
        if begun and trained and begun.model["sha256"] != model:
            raise JournalError(
                f"{self._file.model.build}: the file, or one that it imports, was edited since "
                f"{self._folder} was begun, and what was trained with it is on record; undo that, "
                f"or begin another study with study.name = {self._free_name()!r}"
            )

    def _free_name(self) -> str:
        number = 2
        while (self._folder.parent / f"{self._file.study.name}-{number}").exists():
            number += 1
        return f"{self._file.study.name}-{number}"

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make the directory; take it away again when a mistake stops the study before it began."""
        from stormsweep.study import lock

        absolute = self._folder.absolute()
        missing = [part for part in (absolute, *absolute.parents) if not part.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except (UserError, SlurmError, StudyInterrupted, KeyboardInterrupt):
            begun = self.journal_path.exists() or (self._folder / lock.FILE).exists()
            if missing and not begun:
                shutil.rmtree(self._folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    for parent in missing[1:]:
                        parent.rmdir()
            raise

    def sweep(self) -> None:
        """Remove what drivers that were killed left to be read by nobody, their certificates first.

        A driver with work to do would make new ones in their place; one that finds nothing left to
        train, or works on this machine, would not.
        """
        shutil.rmtree(self._folder / ".private", ignore_errors=True)
        logs = self._folder / "logs"
        for told in logs.glob(".node-*.err"):
            # What srun said of a step is worth keeping, in the job's own log.
            job = told.name.split("-")[1]
            with contextlib.suppress(OSError):
                text = told.read_bytes()
                told.unlink()
                with open(logs / f"slurm-{job}.out", "ab") as log:
                    log.write(text)
        for told in logs.glob(".worker-*.farewell.json"):
            told.unlink(missing_ok=True)

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Keep what the driver and Dask have to say in ``logs/driver.log``."""
        from stormsweep.cluster.dask_pool import dask_logs

        folder = self._folder / "logs"
        folder.mkdir(exist_ok=True)
        handler = logging.FileHandler(folder / "driver.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        ours = logging.getLogger("stormsweep")
        level, propagate = ours.level, ours.propagate
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False
        try:
            with dask_logs(handler):
                yield
        finally:
            ours.removeHandler(handler)
            ours.setLevel(level)
            ours.propagate = propagate
            handler.close()


def _unmeant(file: StudyFile) -> str:
    """Say what of a study file is hardly meant; empty: nothing."""
    try:
        check_meant(file.search, file.validation.total, file.model.parameters)
    except ValueError as error:
        return str(error)
    return ""
