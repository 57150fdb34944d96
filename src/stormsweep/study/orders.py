"""What every driver asks of its workers: to be set up, then to carry out tasks."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from stormsweep.cluster.pool import (
    NO_FAULT,
    Broken,
    Event,
    Finished,
    NodeChanged,
    Pool,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import DataAwayError, ModelError, StormsweepError
from stormsweep.records import node_of
from stormsweep.study.protocol import protocol_of
from stormsweep.study.setup import Question, welcome
from stormsweep.work import Task, TaskOrder

log = logging.getLogger(__name__)

#: How many workers, for each that there should be, may die before any of them can work, or lose the
#: data while they do; and how many of one name, one after the other, where others can work.
_LOSSES = 3
#: For how long a node that is ours is taken to be on its way to its first worker, and a worker to
#: being set up, in seconds: it may hang, on a file system say, and nothing waits for it for ever.
_COMING_SECONDS = 600.0
_WELCOME = "welcome"


class Orders:
    """Makes what workers are sent from what a study is.

    Parameters
    ----------
    study : StudyFile
        The study.
    data : PreparedData
        The prepared arrays.
    checkpoints : Path
        Folder of the checkpoints.
    turned : Path or None
        Folder of the patches turned ahead of training.
    score_test : bool
        Whether the test part is scored too: for an audit only.
    """

    def __init__(
        self,
        study: StudyFile,
        data: PreparedData,
        checkpoints: Path,
        turned: Path | None,
        score_test: bool = False,
    ) -> None:
        self._study, self._data, self._checkpoints = study, data, checkpoints
        self._turned, self._score_test = str(turned or ""), score_test
        self._protocol = protocol_of(study)

    @property
    def build(self) -> str:
        """The model builder."""
        return self._study.model.build

    def question(self, names: Iterable[str]) -> Question:
        """Return what `setup.welcome` is asked; `names` are those of all hyperparameters."""
        (_, threads), engine = self._study.site.layout, self._study.engine
        return Question(
            build=self.build,
            names=sorted(set(names)),
            threads=threads,
            engine=engine.use,
            precision=engine.precision,
            packing=engine.packing,
            data=str(self._data.path),
            fingerprint=self._data.fingerprint,
            turned=self._turned,
            test=self._score_test,
            seed=self._protocol.seed,
        )

    def order(
        self, task: Task, model: str, name: str, session: int, foreseen: float = 0.0
    ) -> TaskOrder:
        """Return a task with all that a worker needs to carry it out.

        Parameters
        ----------
        task : Task
            The task.
        model : str
            SHA-256 of the builder's code.
        name, session : str, int
            Who is asked, in which session of the driver.
        foreseen : float
            About how many seconds an epoch takes; 0: unknown.
        """
        study = self._study
        return TaskOrder(
            task=task,
            build=study.model.build,
            model=model,
            data=str(self._data.path),
            fingerprint=self._data.fingerprint,
            protocol=self._protocol,
            turned=self._turned,
            score_test=self._score_test,
            engine=study.engine.use,
            precision=study.engine.precision,
            packing=study.engine.packing,
            checkpoints=str(self._checkpoints),
            threads=study.site.layout[1],
            worker=name,
            session=session,
            submitted=time.time(),
            foreseen=foreseen,
        )


class Reception:
    """Sets workers up as they join; sees that they have the data, and all the same builder.

    What keeps a worker from being set up is the study's fault as long as none could be, on two
    nodes where there are several. Else it is the fault of its node: the others work on, and another
    node is asked for.

    Parameters
    ----------
    pool : Pool
        The workers.
    orders : Orders
        What they are asked.
    names : iterable of str
        Names of all hyperparameters.
    workers : int
        How many workers there should be.
    note : callable
        Told of nodes whose workers are let go.
    record : callable
        Told of them too: the node or GPU, and why.
    """

    def __init__(
        self,
        pool: Pool,
        orders: Orders,
        names: Iterable[str],
        workers: int,
        note: Callable[[str], object] = lambda _: None,
        record: Callable[[str, str], object] = lambda *_: None,
    ) -> None:
        self._pool, self._build = pool, orders.build
        self._question = orders.question(names)
        self._allowed, self._note, self._record = _LOSSES * workers, note, record
        self._losses = self._late = 0
        #: Whether any worker could be set up; the node where that failed first, before; how many of
        #: a name died in a row that could not, and why those of a name are given no work.
        self._begun, self._unready = False, ""
        self._deaths: Counter[str] = Counter()
        self._unfit: dict[str, str] = {}
        #: Places where no worker gets work any more, and why; workers that have a GPU each.
        self._shut: dict[str, str] = {}
        self._on_gpu: set[str] = set()
        #: Nodes that are ours and have no worker yet, and since when, by the clock.
        self._coming: dict[str, float] = {}
        #: Workers that are being set up, and since when; what the first said that could not be.
        self._settling: dict[str, float] = {}
        self._problem: StormsweepError | None = None
        #: The workers that joined and live, set up or not, by name.
        self.joined: dict[str, WorkerReady] = {}
        #: SHA-256 of the builder's code, as the first worker found it.
        self.model = ""
        #: What the workers compute on, as they say.
        self.devices: set[str] = set()
        #: Workers that were let go because they cannot work where they are, and why.
        self.refused: dict[tuple[str, int], str] = {}
        self._noted: set[str] = set()

    def take(self, event: Event) -> tuple[WorkerReady, float] | None:
        """Handle an event if it is about setting a worker up.

        Returns
        -------
        tuple of WorkerReady and float, or None
            The worker that can work from now on, and when it said so.

        Raises
        ------
        ModelError
            If the builder cannot be imported or does not take the hyperparameters, and no worker
            could be set up yet; if it was edited.
        StormsweepError
            If no worker could be set up yet, nor this one, or no workers will come.
        """
        if isinstance(event, Finished | Broken) and event.token == _WELCOME:
            self._settling.pop(event.worker, None)
        match event:
            case NodeChanged(node, "granted") if node not in map(node_of, self.joined):
                self._coming[node] = time.monotonic()
            case NodeChanged(node, "ended"):
                self._coming.pop(node, None)
            case WorkerReady(name, _, pid):
                self.joined[name] = event
                self._coming.pop(node_of(name), None)
                if why := self._unfit.get(name) or self._shut.get(self.place(event)):
                    self._refuse(name, why)
                else:
                    self._settling[name] = time.monotonic()
                    self._pool.submit(name, pid, _WELCOME, welcome, self._question)
            case Finished(name, token) | Broken(name, token) if token == _WELCOME and (
                (name, self.joined[name].pid) in self.refused
            ):
                log.info("worker %s was refused while it was set up", name)
            case Finished(name, token, said) if token == _WELCOME:
                if said.problem:
                    self._not_set_up(name, said.problem, ModelError(said.problem))
                    return None
                if self.model and said.model != self.model:
                    raise ModelError(
                        f"model.build: the file of {self._build}, or one that it imports, was "
                        "edited while the study runs; undo that, or begin another study"
                    )
                self.model, self._begun = said.model, True
                self._deaths.pop(name, None)
                self.devices |= {said.device} - {""}
                if said.gpu:
                    self._on_gpu.add(name)
                    # Its node may have started anew: which GPU it has was not known until now.
                    if why := self._shut.get(self.place(self.joined[name])):
                        self._refuse(name, why)
                        return None
                if said.emulated:
                    self._note_once(f"engine.precision: {said.emulated}")
                log.info("worker %s is set up%s", name, f" on {said.device}" * bool(said.device))
                return replace(self.joined[name], processor=said.processor), event.when
            case Broken(name, token, DataAwayError() as error) if token == _WELCOME:
                self._refuse(name, str(error))
            case Broken(name, token, error) if token == _WELCOME:
                why = f"could not be set up: {error!r}"
                self._not_set_up(name, f"a worker {why}", StormsweepError(f"worker {name} {why}"))
            case PoolBroken(reason):
                raise StormsweepError(f"no workers: {reason}")
        return None

    def let_go(self, name: str, error: DataAwayError) -> None:
        """Let a worker go that had the data when it was set up, and cannot open them any more.

        Parameters
        ----------
        name : str
            The worker.
        error : DataAwayError
            What it says.

        Raises
        ------
        StormsweepError
            If that happens to one worker after the other.
        """
        self._refuse(name, str(error))
        self._late += 1
        if self._late >= self._allowed:
            raise StormsweepError(f"no workers: {error}")

    def place(self, who: WorkerReady | WorkerLost) -> str:
        """Return what may be at fault besides what a worker did: its node, or its GPU there."""
        if who.worker in self._on_gpu:
            return f"worker {who.worker.rpartition('-')[2]} of {who.host}"
        return who.host

    def places(self, gone: Collection[tuple[str, int]] = ()) -> set[str]:
        """Return the places that have workers, without those that are gone or get no work.

        Those that take too long to be set up do not count either.
        """
        stuck = self._stuck
        return {
            self.place(who)
            for name, who in self.joined.items()
            if name not in stuck
            and (name, who.pid) not in self.refused
            and (name, who.pid) not in gone
        }

    def others(self, place: str, gone: Collection[tuple[str, int]] = ()) -> bool:
        """Whether there is another place, or soon will be: a node that is ours has no worker yet.

        Parameters
        ----------
        place : str
            Not this one.
        gone : collection of (str, int)
            As of `places`.
        """
        return self.expected or bool(self.places(gone) - {place})

    @property
    def expected(self) -> bool:
        """Whether there is a node whose first worker is on its way."""
        since = time.monotonic() - _COMING_SECONDS
        return any(granted > since for granted in self._coming.values())

    @property
    def _stuck(self) -> set[str]:
        """The workers that should long have been set up; as a rule there is none."""
        since = time.monotonic() - _COMING_SECONDS
        return {name for name, joined in self._settling.items() if joined <= since}

    def shut(self, place: str, why: str) -> None:
        """Give the workers of a place no more work, nor those that come there later."""
        self._shut[place] = why
        for name, who in list(self.joined.items()):
            if self.place(who) == place and (name, who.pid) not in self.refused:
                self._refuse(name, why)

    def _not_set_up(self, name: str, why: str, error: StormsweepError) -> None:
        """Take it as the fault of its node that a worker cannot be set up, where another could.

        Where none was yet, the first of another node tells. What all workers of a node would say
        is told of it once, so `why` does not name the worker.
        """
        host = self.joined[name].host
        if not self._begun and (self._unready not in ("", host) or not self.others(host)):
            raise error
        self._unready, self._problem = self._unready or host, self._problem or error
        self._refuse(name, f"{host}: {why}")

    def _refuse(self, name: str, why: str) -> None:
        """Give a worker no work: another node may have what it lacks, if the pool finds one."""
        who = self.joined[name]
        log.error("worker %s (process %d) gets no work: %s", name, who.pid, why)
        # Others of its node may work on, unless all of that is shut.
        shut = self.place(who) in self._shut
        if self._note_once(f"{why}; {'' if shut else 'such '}workers there get no work"):
            self._record(self.place(who), why)
        self.refused[name, who.pid] = why
        # A place that is shut stays so, while a file system may come back, say.
        self._pool.refuse(name, who.pid, why, for_good=shut)

    def _note_once(self, text: str) -> bool:
        """Note what many workers would say; return whether it is new."""
        new = text not in self._noted
        if new:
            self._noted.add(text)
            self._note(text)
        return new

    def lost(self, event: WorkerLost, excused: bool) -> None:
        """Take note that a worker is gone.

        Parameters
        ----------
        event : WorkerLost
            Which one, and why.
        excused : bool
            Whether it had a task, so that the loss may be the task's fault, or was let go.

        Raises
        ------
        StormsweepError
            If one worker after the other dies before it can work, and none could be set up yet.
        """
        if event.worker in self.joined and self.joined[event.worker].pid == event.pid:
            del self.joined[event.worker]
            self._settling.pop(event.worker, None)
        if excused or event.failure in NO_FAULT or (event.worker, event.pid) in self.refused:
            return
        why = f"workers die before they can work: {event.reason}; see logs/worker-*.log"
        self._losses += 1
        self._deaths[event.worker] += 1
        # Those of another node may live.
        tried = self._stuck | {name for name, deaths in self._deaths.items() if deaths}
        untried = {who.host for name, who in self.joined.items() if name not in tried}
        if (
            not self._begun
            and self._losses >= self._allowed
            and not (self.expected or untried - {event.host})
        ):
            raise StormsweepError(why)
        if self._begun and self._deaths[event.worker] >= _LOSSES:
            # The next one that takes its name, and so its cores or GPU, is let go.
            # What a first one said is told of its node, not the last words of each.
            told = (known for known in self._unfit.values() if known.startswith(f"{event.host}: "))
            self._unfit[event.worker] = next(told, f"{event.host}: {why}")

    def wait(self, ready: Callable[[], bool], poll: Callable[[], None]) -> None:
        """Wait until a worker is ready.

        Parameters
        ----------
        ready : callable
            Whether one is.
        poll : callable
            Waits a moment for events, and handles them.

        Raises
        ------
        ModelError, StormsweepError
            If none is ready within the pool's patience; if one could not be set up, and the others
            hang while they are.
        """
        deadline = time.monotonic() + self._pool.patience
        while not ready():
            # Until now, those that hang while they are set up might have been.
            if self._problem and not self._begun and self._stuck and not self.others(self._unready):
                raise self._problem
            if time.monotonic() > deadline:
                raise StormsweepError(
                    f"no worker was ready within {self._pool.patience:.0f} s; see logs/driver.log"
                )
            poll()
