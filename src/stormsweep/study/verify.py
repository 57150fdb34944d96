"""The test part, looked at once: the best configuration, trained on all training data, scored."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.cluster.pool import (
    NO_FAULT,
    Broken,
    Event,
    Finished,
    Pool,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.config.study import StudyFile
from stormsweep.config.walltimes import MUCH
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import DataAwayError, RunError, StormsweepError
from stormsweep.files import replacing_folder
from stormsweep.records import RunFailed, TaskDone, TaskPaused, Verified
from stormsweep.results.journal import JournalWriter
from stormsweep.study import worker
from stormsweep.study.choice import Choice
from stormsweep.study.delivery import FOLDER, fold_of_whole, group_columns, write_delivery
from stormsweep.study.orders import Orders, Reception
from stormsweep.study.patience import Patience
from stormsweep.study.problem import turned_folder
from stormsweep.study.watching import Watcher
from stormsweep.training import checkpoint
from stormsweep.verification.forecasts import Forecasts, forecasts
from stormsweep.verification.resampling import LEVEL, RESAMPLES
from stormsweep.verification.scores import estimate
from stormsweep.work import Delivered, Delivery, Run, Task, TaskOrder, identity

log = logging.getLogger(__name__)

#: How often the one worker may be lost before the fit is given up.
_ATTEMPTS = 3
_TRAINING = "training on the whole training part"


def test_forecasts(probabilities: Any, data: PreparedData, group_by: str) -> Forecasts:
    """Put probabilities of the test part beside what happened there.

    Whole run dates are resampled, where the data have them, else the groups of the folds, else
    single cases.
    """
    part, train = data.part("test"), data.part("train")
    climatology = float(np.mean(train.labels))
    name = next((name for name in ("run_date", group_by) if name in part.groups), None)
    if name is None:
        return forecasts(probabilities, part.labels, climatology)
    column = group_columns(part.groups)[name]
    return forecasts(probabilities, part.labels, climatology, part.groups[name], column)


def _taken(folder: Path) -> NDArray[np.float32]:
    """Take the probabilities that a worker left."""
    raw = folder / "probabilities.npy"
    probabilities: NDArray[np.float32] = np.load(raw)
    raw.unlink()
    return probabilities


class Verification:
    """One look at the test part.

    Parameters
    ----------
    study : StudyFile
        The study.
    directory : Path
        Its directory.
    data : PreparedData
        The prepared arrays.
    choice : Choice
        What to verify.
    pool : Pool
        One worker.
    watcher : Watcher
        Who shows what goes on.
    """

    def __init__(
        self,
        study: StudyFile,
        directory: Path,
        data: PreparedData,
        choice: Choice,
        pool: Pool,
        watcher: Watcher,
    ) -> None:
        self._study, self._directory, self._data = study, directory, data
        self._choice, self._pool, self._watcher = choice, pool, watcher
        structure = {n: v for n, v in choice.hyperparameters.items() if n != "epochs"}
        # The fold decides over chance alone; which run this is stands in its name.
        number = fold_of_whole(study)
        key = f"{identity(structure)}-whole"
        self._run = Run(key, structure, number, choice.stops, whole=True)
        self._checkpoints = directory / "checkpoints"
        self._orders = Orders(study, data, self._checkpoints, turned_folder(study, data))
        self._reception = Reception(
            pool, self._orders, choice.hyperparameters, workers=1, note=watcher.note
        )
        self._worker: WorkerReady | None = None
        self._patience = Patience()
        self._dismissed: set[tuple[str, int]] = set()
        self._asked = 0
        self._events: deque[Event] = deque()

    def carry_out(
        self,
        journal: JournalWriter,
        known_model: Callable[[str], None],
        still_ours: Callable[[], None],
    ) -> Verified:
        """Train, predict, write ``model/`` and record the scores, or make a lost model again.

        Parameters
        ----------
        journal : JournalWriter
            Where the look is recorded.
        known_model : callable
            Given the SHA-256 of the builder's file; raises if the study was begun with another.
        still_ours : callable
            Raises if another driver took the study over.

        Raises
        ------
        RunError
            If the model cannot be trained on the whole training part.
        """
        self._still_ours = still_ours
        self._watcher.stage("starting a worker", 0.0)
        self._await_worker()
        known_model(self._reception.model)
        losses: list[float] = []
        seconds, start = 0.0, 0
        for epoch in self._run.milestones:
            self._watcher.stage(_TRAINING, start / self._run.milestones[-1])
            done, spent = self._reach(start, epoch)
            losses += done.epoch_loss
            seconds += spent
            start = epoch
        self._watcher.stage(_TRAINING, 1.0)
        with replacing_folder(self._directory / FOLDER) as folder:
            self._watcher.stage("predicting the test part", 0.0)
            delivery = Delivery(self._order(start, start), str(folder.resolve()))
            delivered: Delivered = self._do(worker.deliver_task, delivery, delivery.order.task)
            self._watcher.stage("predicting the test part", 1.0)
            if delivered.problem:
                self._watcher.note(
                    f"{self._directory / FOLDER / delivered.file} cannot be loaded to predict what "
                    f"is scored here ({delivered.problem}); the scores stand, but predicting with "
                    "this model is refused as long as that is so"
                )
            seconds += delivered.seconds
            known = self._choice.recorded
            record = known or self._record(folder, delivered, losses, seconds)
            if known:
                self._compare(folder, delivered, known)
            still_ours()
        if not known:
            journal.append(record)
        checkpoint.remove(self._checkpoints, self._run.id)
        checkpoint.remove_unfinished(self._checkpoints)
        return record

    def _record(
        self, folder: Path, delivered: Delivered, losses: list[float], seconds: float
    ) -> Verified:
        probabilities = _taken(folder)
        choice, group_by = self._choice, self._study.validation.group_by
        known = test_forecasts(probabilities, self._data, group_by)
        self._watcher.stage("scoring the test part", 0.0)
        found = estimate(known, choice.threshold, seed=self._study.study.seed)
        self._watcher.stage("scoring the test part", 1.0)
        written = self._write(folder, delivered, probabilities)
        return Verified(
            look=choice.look,
            configuration=choice.configuration,
            hyperparameters=choice.hyperparameters,
            finished=choice.finished,
            threshold=choice.threshold,
            threshold_folds=list(choice.threshold_folds),
            climatology=known.climatology,
            cases=len(known),
            events=known.events,
            block=known.block_name,
            blocks=known.groups,
            resamples=RESAMPLES,
            level=LEVEL,
            scores={name: [e.value, e.low, e.high] for name, e in found.items()},
            model_sha256=written["model_sha256"],
            predictions_sha256=written["predictions_sha256"],
            epoch_loss=losses,
            seconds=round(seconds, 3),
        )

    def _compare(self, folder: Path, delivered: Delivered, known: Verified) -> None:
        """Write a model that was lost, and say whether it is the one of the look."""
        written = self._write(folder, delivered, _taken(folder))
        if written["predictions_sha256"] == known.predictions_sha256:
            told = "its predictions of the test part are those of the recorded look"
        else:
            told = (
                "its predictions of the test part are not those of the recorded look, as on "
                "another processor or with other packages; the recorded scores stand"
            )
        self._watcher.note(
            f"{self._directory / FOLDER} was lost or changed, and made again: {told}"
        )

    def _write(
        self, folder: Path, delivered: Delivered, probabilities: NDArray[np.float32]
    ) -> dict[str, Any]:
        return write_delivery(
            folder,
            self._study,
            self._data,
            self._choice,
            delivered,
            probabilities,
            self._reception.model,
            made_again=self._choice.recorded is not None,
        )

    def _await_worker(self) -> None:
        self._reception.wait(lambda: self._worker is not None, self._welcome)

    def _welcome(self) -> None:
        event = self._next()
        if isinstance(event, WorkerLost):
            self._gone(event)
        elif event is not None and (found := self._reception.take(event)) is not None:
            self._worker, _ = found

    def _gone(self, event: WorkerLost) -> None:
        """Take note of a worker that went without a task, or was let go."""
        self._reception.lost(event, excused=(event.worker, event.pid) in self._dismissed)

    def _reach(self, from_epoch: int, to_epoch: int) -> tuple[TaskDone, float]:
        """Train to a milestone, by as many workers as it takes; return the seconds it took."""
        order, seconds = self._order(from_epoch, to_epoch), 0.0
        while True:
            result: TaskDone | TaskPaused = self._do(worker.fit_task, order, order.task)
            seconds += sum(result.phases.values())
            if isinstance(result, TaskDone):
                return result, seconds
            if result.submitted == order.submitted:
                given_up = ""
                if result.had >= MUCH:
                    given_up = self._patience.paused(order.task, result.to_epoch, alone=True)
                if given_up:
                    raise RunError(f"{self._directory}: {given_up}")
                self._let_go()
            if result.to_epoch != order.task.start:
                checkpoint.discard(self._checkpoints, self._run.id, [order.task.start])
            order = self._order(from_epoch, to_epoch, result.to_epoch)

    def _let_go(self) -> None:
        ready = self._worker
        assert ready is not None
        self._dismissed.add((ready.worker, ready.pid))
        self._pool.dismiss(ready.worker, ready.pid)
        self._worker = None

    def _do(self, function: Callable[[Any], Any], argument: Any, task: Task) -> Any:
        """Have the worker do something; begin again from the last checkpoint when it is lost."""
        losses = 0
        while True:
            if self._worker is None:
                self._await_worker()
            ready = self._worker
            assert ready is not None
            self._asked += 1
            token = f"{self._run.id}-{function.__name__}-{self._asked}"
            self._pool.submit(ready.worker, ready.pid, token, function, argument)
            outcome = self._outcome(token)
            if isinstance(outcome, RunFailed):
                log.error("%s\n%s", outcome.reason, outcome.detail)
                raise RunError(
                    f"{self._directory}: the best configuration failed on the whole training part "
                    f"({outcome.failure}): {outcome.reason}"
                )
            if isinstance(outcome, DataAwayError):
                self._worker = None
                self._reception.let_go(ready.worker, outcome)
                continue
            if not isinstance(outcome, WorkerLost):
                return outcome
            self._worker = None
            self._reception.lost(outcome, excused=True)
            losses += outcome.failure not in NO_FAULT
            if losses == _ATTEMPTS:
                raise RunError(
                    f"{self._directory}: the worker was lost {losses} times ({outcome.reason}); "
                    "see logs"
                )
            if outcome.failure in NO_FAULT:
                verdict = self._patience.lost(task, outcome.failure, outcome.reason, alone=True)
                if verdict.given_up:
                    raise RunError(f"{self._directory}: {verdict.given_up}")
            self._watcher.note(f"the worker was lost ({outcome.reason}); it goes on")

    def _outcome(self, token: str) -> Any:
        while True:
            match self._next():
                case Finished(_, own, result) if own == token:
                    return result
                case Broken(_, own, DataAwayError() as error) if own == token:
                    return error
                case Broken(_, own, error) if own == token:
                    raise StormsweepError(f"the task could not be carried out: {error!r}")
                case WorkerLost() as lost if self._is_at_work(lost):
                    return lost
                case WorkerLost() as lost:
                    self._gone(lost)
                case PoolBroken(reason):
                    raise StormsweepError(f"no workers: {reason}")

    def _is_at_work(self, lost: WorkerLost) -> bool:
        ready = self._worker
        return ready is not None and (ready.worker, ready.pid) == (lost.worker, lost.pid)

    def _next(self) -> Event | None:
        """Return the next event; None where nothing happened for a moment."""
        if not self._events:
            self._still_ours()
            self._events.extend(self._pool.events(0.25))
        return self._events.popleft() if self._events else None

    def _order(self, from_epoch: int, to_epoch: int, paused_at: int = -1) -> TaskOrder:
        task = Task(self._run, from_epoch, to_epoch, paused_at)
        return self._orders.order(task, self._reception.model, "verify", session=0)
