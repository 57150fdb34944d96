"""The driver inside a job: what comes before it, what goes on after it, and when it leaves."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stormsweep.cluster import slurm
from stormsweep.cluster.jobscript import job_script
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import locate_site
from stormsweep.config.walltimes import MOST_IDLE, margin, walltime_seconds
from stormsweep.errors import (
    DiskError,
    SlurmError,
    StormsweepError,
    StudyBusyError,
    StudyInterrupted,
    UserError,
)
from stormsweep.results.journal import Follower
from stormsweep.study.chain import Link, tasks_done, was_cancelled
from stormsweep.study.lock import refuse_if_busy
from stormsweep.study.places import Place, as_asked, submit_again
from stormsweep.study.session import Outcome
from stormsweep.study.study import Study
from stormsweep.study.submission import driver_key
from stormsweep.study.successor import Successor

if TYPE_CHECKING:
    from stormsweep.study.watching import Watcher

log = logging.getLogger(__name__)

#: Seconds that Slurm may take for an answer that the study can do without.
_PATIENCE = 20.0
#: Seconds between attempts to ask what became of the job before this one.
_ASK = (0.0, 2.0, 10.0)
#: Seconds that a driver before this one may take to be gone.
_GONE_S = 60.0
#: Exit codes: done; unfinished, or with failed runs; a mistake; interrupted.
_DONE, _UNFINISHED, _MISTAKE, _INTERRUPTED = 0, 1, 2, 130


def drive(
    link: Link,
    watcher: Watcher,
    done: Callable[[Study, Outcome], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Carry a study on in this job, and see to it that the next one does after that.

    Parameters
    ----------
    link : Link
        What the job was submitted with.
    watcher : Watcher
        Shown what goes on.
    done : callable
        What is to be done once nothing is left to train, such as writing the report.
    environment : mapping of str to str, optional
        What the next job is to begin with; none: this process's environment.

    Returns
    -------
    int
        The exit code: as of `run`; 0 also where another job goes on.

    Raises
    ------
    UserError
        If this is no job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise UserError(
            "drive: is what a job runs; submit one: stormsweep submit STUDY --site NAME"
        )
    with Drive(link, job, slurm.Slurm(), environment) as driver:
        return driver.run(watcher, done)


class Drive:
    """One job of a chain at work.

    Parameters
    ----------
    link : Link
        What the job was submitted with.
    job : str
        Its number.
    commands : Slurm
        Slurm's commands.
    environment : mapping of str to str, optional
        What the next job is to begin with; none: this process's environment.
    """

    def __init__(
        self,
        link: Link,
        job: str,
        commands: slurm.Slurm,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._link, self._job, self._commands = link, job, commands
        self._environment = environment
        #: For what the study waits for.
        self._soon = slurm.Slurm(_PATIENCE)
        found = locate_site(link.site, link.sites_file, "--site")
        self._site = as_asked(found, link.nodes, link.walltime)
        self._study = Study.from_toml(link.directory)
        self._journal = Follower(self._study.journal_path)
        #: When the walltime is over, by this process's own clock.
        self._end, self._margin = math.inf, margin(math.inf)
        self._told_to_leave = self._stopped = False
        self._begun_with = self._recorded = 0
        self._successor: Successor | None = None

    def __enter__(self) -> Self:
        # What Slurm's signals would do by themselves is end the process.
        signal.signal(signal.SIGUSR1, self._leave)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._successor is not None:
            self._successor.close()

    def run(self, watcher: Watcher, done: Callable[[Study, Outcome], None]) -> int:
        """Do all of it; see `drive`."""
        link = self._link
        where = os.environ.get("SLURM_JOB_NODELIST", "?")
        log.info(
            "job %s, number %d of at most %d, on %s", self._job, link.number, link.max_jobs, where
        )
        try:
            if was_cancelled(self._predecessor()):
                log.info("job %s was cancelled: this one does not go on", link.after)
                self._cancel_waiting()
                return _INTERRUPTED
            if link.after is None:
                # Another chain's study is no reason to submit anything.
                refuse_if_busy(link.directory)
            self._look_at_clock()
            self._begin_successor()
            if link.after is not None:
                self._await_predecessor()
            count = self._site.site.nodes
            queued, nodes = self._queued(), (count, count)
            place = Place(self._site, nodes, inside=True, queued_seconds=queued, ends=self._end)
            outcome = train(self._study, place, watcher, link.retry_failed, self.leaving)
            if outcome.unfinished:
                code = self._hand_over("the walltime ends soon")
                self._send_ahead()
                return code
            # Before the successor is cancelled: if no time is left for it, that one does it.
            reported = self._report(outcome, done)
        except DiskError as error:
            # No mistake of the study's: the next job may find room again.
            log.error("%s", error)
            self._hand_over("the disk takes nothing")
            return _UNFINISHED
        except UserError as error:
            self._abandon()
            log.error("%s", error)
            return _MISTAKE
        except (KeyboardInterrupt, StudyInterrupted):
            if self._stopped:
                self._abandon()
                log.warning("interrupted; everything finished so far is kept%s", self._go_on())
                return _INTERRUPTED
            return self._hand_over("Slurm ends this job")
        except StormsweepError as error:
            log.error("%s", " ".join(str(error).split()))
            self._hand_over("this job cannot go on")
            return _UNFINISHED
        except Exception:
            log.exception("this job cannot go on")
            self._hand_over("the study is not done")
            return _UNFINISHED
        self._abandon()
        return _UNFINISHED if outcome.failed or not reported else _DONE

    def _report(self, outcome: Outcome, done: Callable[[Study, Outcome], None]) -> bool:
        try:
            done(self._study, outcome)
        except Exception:
            # Training again would not help.
            log.exception("the study is done; `stormsweep report` writes the report")
            return False
        return True

    def leaving(self) -> bool:
        """Whether the job must come to an end: told so by Slurm, or by the clock."""
        return self._told_to_leave or self._left() < self._margin

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _leave(self, *_: Any) -> None:
        self._told_to_leave = True

    def _stop(self, *_: Any) -> None:
        """End the session on SIGTERM, Slurm's or anybody's, or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # The next one would only spoil the end.
        if self._left() > 0 and not self._ended_by_slurm():
            self._stopped = True
            if self._successor is not None:
                self._successor.abandon()
        raise KeyboardInterrupt

    def _ended_by_slurm(self) -> bool:
        """Tell what comes of itself (a walltime, a node, a more urgent job) from a scancel."""
        try:
            restarts = os.environ.get("SLURM_RESTART_COUNT", "")
            known = int(restarts) if restarts.isdecimal() else 0
            return bool(slurm.Slurm(3.0).ended_for(self._job, known))
        except SlurmError:
            # The successor asks again, and does not go on after a job that was cancelled.
            return True

    def _predecessor(self) -> Job | None:
        after = self._link.after
        for pause in _ASK if after is not None else ():
            time.sleep(pause)
            try:
                return self._soon.jobs([after or ""]).get(after or "")
            except SlurmError as error:
                log.warning("what became of job %s is not known: %s", after, error)
        return None

    def _look_at_clock(self) -> None:
        walltime = self._site.site.walltime
        try:
            left = self._soon.time_left(self._job)
        except SlurmError as error:
            left = math.inf if walltime is None else float(walltime_seconds(walltime))
            log.warning("the time left is taken from the site's walltime: %s", error)
        self._end, self._margin = time.monotonic() + left, margin(left)

    def _queued(self) -> float | None:
        """Return how long this job waited in the queue, for those who foretell; None: not known."""
        try:
            return self._soon.waited(self._job)
        except SlurmError as error:
            log.warning("how long this job waited in the queue is not known: %s", error)
            return None

    def _begin_successor(self) -> None:
        link = self._link
        self._begun_with = self._recorded = tasks_done(self._journal.new())
        idle = link.idle_now(self._begun_with)
        if link.last:
            log.warning("this is the last of %d jobs (--max-jobs)", link.max_jobs)
            return
        if idle >= MOST_IDLE:
            log.warning(
                "the last %d jobs recorded nothing: no further one is submitted until this one "
                "does; a longer walltime or more milestones would help",
                idle,
            )
        following = link.successor(self._job, self._begun_with)
        self._successor = Successor(
            self._commands,
            lambda: self._submit(self._commands, following),
            self._waiting,
            lambda: idle >= MOST_IDLE and not self._got_on(),
        )
        self._successor.start()

    def _cancel_waiting(self) -> None:
        """Cancel what was sent ahead to go on after this job."""
        with contextlib.suppress(SlurmError):
            if (id := self._waiting()) is not None:
                self._soon.cancel([id])

    def _waiting(self) -> str | None:
        # Those of another chain are its own: it ends where one of them is cancelled.
        jobs = self._commands.jobs_of(driver_key(self._link.directory, self._job)).items()
        waiting = [id for id, job in jobs if job.state == "PENDING"]
        return min(waiting, key=int, default=None)

    def _got_on(self) -> bool:
        self._recorded += tasks_done(self._journal.new())
        return self._recorded > self._begun_with

    def _await_predecessor(self) -> None:
        """Wait for a driver that Slurm is just ending; one that stays is refused later."""
        until = time.monotonic() + _GONE_S
        while time.monotonic() < until:
            try:
                refuse_if_busy(self._link.directory)
                break
            except StudyBusyError:
                time.sleep(2.0)

    def _abandon(self) -> None:
        """Cancel the successor, and wait for that."""
        if self._successor is not None:
            self._successor.abandon()
            self._successor.close()

    def _hand_over(self, why: str) -> int:
        """Leave the rest to the successor."""
        successor = self._successor
        if successor is not None:
            successor.close()
        if successor is not None and successor.id is not None:
            log.info("%s; job %s goes on", why, successor.id)
            return _DONE
        none = "" if successor is None or successor.none is None else f"; {successor.none}"
        log.warning("%s, and no job goes on after this one%s%s", why, none, self._go_on())
        return _UNFINISHED

    def _send_ahead(self) -> None:
        """Submit the job after the next one too, as that will: it may be over before it can.

        A node on which nothing starts would end the chain otherwise. The next one finds it waiting.
        """
        id = None if self._successor is None else self._successor.id
        self._got_on()
        following = self._link.successor(self._job, self._begun_with)
        if id is None or following.last or following.idle_now(self._recorded) >= MOST_IDLE:
            return
        try:
            ahead = self._submit(self._soon, following.successor(id, self._recorded))
        except (SlurmError, UserError) as error:
            log.info("no job waits after job %s until it begins: %s", id, error)
        else:
            log.info("job %s waits after job %s, should that be over before it begins", ahead, id)

    def _submit(self, commands: slurm.Slurm, link: Link) -> str:
        site = self._site.site
        script = job_script(site, link.order(self._study.file.study.name, site))
        key = driver_key(link.directory, link.after)
        return commands.submit(script, Path.cwd(), key, self._environment)

    def _go_on(self) -> str:
        link = self._link
        return f"; go on with: {submit_again(link.directory, link.site, link.nodes, link.walltime)}"


def train(
    study: Study, place: Place, watcher: Watcher, retry_failed: bool, leaving: Callable[[], bool]
) -> Outcome:
    """Train on the job's nodes."""
    inside = study.with_site(use=place.found.name).at(place)
    return inside.run(watcher, retry_failed, leaving)
