"""The job that goes on after this one: submitted at its start, cancelled when all is done."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from stormsweep.cluster.slurm import Slurm
from stormsweep.errors import SlurmError, UserError

log = logging.getLogger(__name__)

#: Seconds between attempts of an sbatch that Slurm is in no state to take, and between looks
#: whether the successor is still there: the first, and at most.
_FIRST, _LONGEST = 5.0, 600.0
#: Seconds between attempts to cancel.
_CANCEL = (0.0, 1.0, 5.0, 15.0, 30.0)
#: Seconds between looks whether a chain that got stuck gets on after all.
_HELD = 10.0
#: How soon the thread sees what it is told. It is told by plain values: a signal handler may not
#: wait for the lock of an event.
_NAP = 0.2


class Successor:
    """Keep a successor in the queue while the study goes on.

    Nothing that happens to this job can lose the study then. A thread of its own does it: Slurm may
    take its time, and what it forgets is submitted again.

    Parameters
    ----------
    commands : Slurm
        Slurm's commands.
    submit : callable
        Submits it and returns its number.
    waiting : callable
        Returns the number of one that waits already: this job may have been started again.
    held : callable
        Whether none is to be submitted yet.
    """

    def __init__(
        self,
        commands: Slurm,
        submit: Callable[[], str],
        waiting: Callable[[], str | None],
        held: Callable[[], bool],
    ) -> None:
        self._commands, self._submit, self._waiting, self._held = commands, submit, waiting, held
        #: Its number, once it is submitted.
        self.id: str | None = None
        #: Why there is none, as far as that is known.
        self.none: str | None = None
        self._unwanted = self._over = self._cancelled = False
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._work, name="successor", daemon=True)

    def start(self, patience: float = 20.0) -> None:
        """Begin; return when it was tried to be submitted, or `patience` seconds are over."""
        self._thread.start()
        self._tried.wait(patience)

    def abandon(self) -> None:
        """Have it cancelled, soon; may be called from a signal handler."""
        self._unwanted = True

    def close(self, patience: float = 150.0) -> None:
        """End the thread, and with it what it is doing."""
        self._over = True
        if self._thread.is_alive():
            self._thread.join(patience)

    def _work(self) -> None:
        pause = _FIRST
        while not (self._over or self._unwanted or self._cancelled):
            pause = self._round(pause)
            self._tried.set()
            until = time.monotonic() + pause
            while time.monotonic() < until and not (self._over or self._unwanted):
                time.sleep(_NAP)
        self._tried.set()
        if self._unwanted and self.id is not None:
            self._cancel(self.id)
        elif not (self._unwanted or self._cancelled or self.id):
            self._round(pause)  # The last chance.

    def _round(self, pause: float) -> float:
        """Submit it, or see whether it is still there; return the seconds until the next time."""
        before, longer = self.id, min(2 * pause, _LONGEST)
        try:
            if self._held():
                self.none = "jobs in a row recorded nothing"
                return _HELD
            if self.id is None:
                self._begin()
            else:
                self._look(self.id)
        except SlurmError as error:
            if error.refused:
                self._miss(f"Slurm takes no job that would go on after this one: {error.said}")
                return _LONGEST  # Limits on what one may have in the queue change.
            self._miss(f"Slurm is in trouble: {error}")
        except UserError as error:
            self._miss(str(error))
        return longer if self.id == before else _FIRST

    def _begin(self) -> None:
        waiting = self._waiting()
        self.id = waiting or self._submit()
        self.none = None
        log.info(
            "job %s %s to go on after this one", self.id, "waits" if waiting else "is submitted"
        )

    def _look(self, id: str) -> None:
        job = self._commands.jobs([id]).get(id)
        if job is None:
            log.warning("Slurm does not know job %s any more; another takes its place", id)
            self.id = None
            self._begin()
        elif job.state == "CANCELLED":
            self.id, self._cancelled = None, True
            self._miss(f"job {id}, which was to go on, was cancelled")

    def _miss(self, why: str) -> None:
        if why != self.none:
            log.warning("%s", why)
        if self.id is None:
            self.none = why

    def _cancel(self, id: str) -> None:
        for pause in _CANCEL:
            time.sleep(pause)
            with contextlib.suppress(SlurmError):
                self._commands.cancel([id])
                log.info("job %s, which was to go on, is cancelled", id)
                self.id = None
                return
        log.warning("job %s could not be cancelled; it will find nothing to do", id)
