"""The error tree.

::

    StormsweepError
    ├── UserError              a mistake in a command, a file or the data: one line, exit code 2
    │   ├── StudyFileError     the study file or sites.toml: names the file and the key
    │   ├── DataError          storm files, tables or prepared arrays
    │   │   └── DataAwayError  they cannot be opened where a worker is; other nodes may have them
    │   ├── JournalError       a journal that cannot be read or does not fit the study file
    │   │   └── DiskError      it cannot be written: a full disk, say, which passes
    │   ├── ModelError         the model builder cannot be found or does not take the space
    │   ├── StudyBusyError     another driver is at work on the study
    │   └── NoSchedulerError   the commands of a cluster's scheduler are not here
    ├── SchedulerError         a command of a cluster's scheduler failed: shows all of it
    │   ├── SlurmError
    │   └── PbsError
    ├── RunError               one training run failed; the study goes on
    │   └── DivergedError      its loss is no longer a number
    └── StudyInterrupted       stopped by the user; what was finished is kept, exit code 130

A `UserError` ends the command; a `RunError` ends one run only.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable


class StormsweepError(Exception):
    """Root of every error that Stormsweep raises on purpose.

    Attributes
    ----------
    exit_code : int
        What a command that ends with it exits with.
    """

    exit_code = 1


class UserError(StormsweepError):
    """A mistake that the user can mend; its text is one clear line."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the line says all that there is to say."""
        return [f"{type(self).__name__}: {self}"]


class StudyFileError(UserError):
    """A study file or a sites file that is missing, malformed or not allowed."""


class DataError(UserError):
    """Data that is missing, damaged, changed or unfit for the study.

    Parameters
    ----------
    what : str
        What is wrong.
    advice : str
        What whoever wrote the study may do about it.
    """

    def __init__(self, what: str = "", advice: str = "") -> None:
        self.what = what
        super().__init__(f"{what}; {advice}" if advice else what)


class DataAwayError(DataError):
    """Prepared data that a worker cannot open: its node is at fault, and not what it was to do."""


class JournalError(UserError):
    """A journal that is damaged, or does not fit the study file beside it."""


class DiskError(JournalError):
    """The journal cannot be written: the disk is full or away, which passes."""


class ModelError(UserError):
    """A model builder that cannot be imported or does not take the hyperparameters."""


class StudyBusyError(UserError):
    """Another driver is at work on the same study."""


class NoSchedulerError(UserError):
    """The commands of a cluster's scheduler are not on this machine."""


class SchedulerError(StormsweepError):
    """A command of a cluster's scheduler failed, hung, or said what cannot be understood.

    Parameters
    ----------
    what : str
        What happened to it.
    command : str
        As one would type it.
    code : int or None
        Its exit code; None where it was killed or never started.
    out, err : str
        All that it printed.
    refused : bool
        The scheduler said no. False: it may have been in trouble (restarting, overloaded, not to be
        reached), so that the same command may succeed later; and what was killed may have been
        done all the same.
    """

    #: What the scheduler is called.
    scheduler = "the scheduler"

    def __init__(
        self,
        what: str,
        command: str,
        code: int | None = None,
        out: str = "",
        err: str = "",
        refused: bool = False,
    ) -> None:
        self.command, self.code, self.out, self.err = command, code, out, err
        self.refused = refused
        parts = [f"{command}: {what}"]
        if code is not None:
            parts.append(f"exit code {code}")
        parts += [
            f"{name}: {text.strip()}"
            for name, text in (("stderr", err), ("stdout", out))
            if text.strip()
        ]
        super().__init__("; ".join(parts))

    @property
    def passing(self) -> bool:
        """Whether trying again later makes sense."""
        return not self.refused

    @property
    def short(self) -> str:
        """What there is to say to somebody who waits for an answer, in one line."""
        if not self.passing:
            return str(self)
        return f"{self.scheduler} does not answer: {self.said.rpartition('; ')[2]}"

    @property
    def said(self) -> str:
        """The scheduler's own words, in one line, without the name of its command."""
        lines = (self.err.strip() or self.out.strip() or str(self)).splitlines()
        named = re.compile(r"((\w+: )?(error|fatal)|q(sub|stat|del|select)): ")
        return "; ".join(named.sub("", line.strip(), count=1) for line in lines)


class SlurmError(SchedulerError):
    """A command of Slurm failed.

    Attributes
    ----------
    command, code, out, err : str, int or None, str, str
        As one would type it; its exit code, None where it was killed or never started; all that it
        printed.
    refused : bool
        Slurm said no. False: it may have been in trouble, so that the same command may succeed
        later.
    """

    scheduler = "Slurm"


class PbsError(SchedulerError):
    """A command of PBS failed."""

    scheduler = "PBS"


class RunError(StormsweepError):
    """One run failed; the study goes on without it.

    Attributes
    ----------
    kind : str
        What happened, in one word: ``error``, ``diverged``, ``out-of-memory``, ``killed``.
    """

    kind = "error"


class DivergedError(RunError):
    """The training loss is no longer a finite number."""

    kind = "diverged"


class StudyInterrupted(StormsweepError):
    """The user stopped a command; what was finished or downloaded so far is kept."""

    exit_code = 130

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: where it was interrupted is no news."""
        return [f"Interrupted: {self}"]


def typed(*words: object) -> str:
    """Word a command of Stormsweep's for a message, so that a shell reads it back.

    Examples
    --------
    >>> typed("cancel", "my runs/x")
    "stormsweep cancel 'my runs/x'"
    """
    return shlex.join(["stormsweep", *map(str, words)])


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word a misspelt one was probably meant to be.

    Parameters
    ----------
    word : str
        What was given.
    known : iterable of str
        What is allowed.

    Returns
    -------
    str
        ``" (did you mean 'x'?)"``, or an empty string where nothing is near.

    Examples
    --------
    >>> nearest("bach_size", ["batch_size", "epochs"])
    " (did you mean 'batch_size'?)"
    >>> nearest("colour", ["batch_size", "epochs"])
    ''
    """
    hit = closest(word, known)
    return f" (did you mean {hit!r}?)" if hit is not None else ""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one was probably meant to be; None: none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)
