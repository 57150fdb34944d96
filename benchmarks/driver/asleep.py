"""What workers do in this benchmark: sleep, and leave what a task leaves.

Everything else is the product's: orders and results are of the usual shape, and a checkpoint is
written as it always is, but for weights, so that driver and disk have as much to do as ever.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

from stormsweep.records import TaskDone
from stormsweep.study.setup import Question, Welcome
from stormsweep.training.checkpoint import save
from stormsweep.work import Task, TaskOrder

_SCORES = ("roc_auc", "average_precision", "brier_score", "brier_skill_score", "csi", "loss")
_PHASES = ("open", "build", "compile", "train", "score", "checkpoint")


def welcome(question: Question) -> Welcome:
    """Be ready at once."""
    return Welcome("", "0" * 64)


def seconds(task: Task) -> float:
    """Return how long a task sleeps: spread evenly, and the same in every session."""
    run = task.run
    low, high = (float(run.hyperparameters[name]) for name in ("shortest", "longest"))
    return low + (high - low) * _share(f"{run.id} {task.to_epoch}")


def train_task(order: TaskOrder) -> TaskDone:
    """Sleep instead of training."""
    started, task = time.time(), order.task
    time.sleep(seconds(task))
    save(Path(order.checkpoints), task.run.id, task.to_epoch, {}, {})
    epochs = task.to_epoch - task.from_epoch
    return TaskDone(
        run=task.run.id,
        from_epoch=task.from_epoch,
        to_epoch=task.to_epoch,
        scores={name: _share(f"{name} {task.run.id} {task.to_epoch}") for name in _SCORES},
        worker=order.worker,
        session=order.session,
        submitted=order.submitted,
        started=started,
        stopped=time.time(),
        phases={name: round(seconds(task) / len(_PHASES), 6) for name in _PHASES},
        epoch_loss=[_share(f"{task.run.id} {epoch}") for epoch in range(epochs)],
        patches=6000 * epochs,
        updates=47 * epochs,
        memory_mb=812.4,
        parameters=17169,
    )


def _share(text: str) -> float:
    return zlib.crc32(text.encode()) / 2**32
