"""The checkpoints of a study's runs, as its driver sees them: those that nothing needs go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stormsweep.config.strategies import KNOWN_AHEAD, LEARNING
from stormsweep.config.study import StudyFile
from stormsweep.records import TaskDone, TaskPaused
from stormsweep.results.progress import Progress
from stormsweep.work import Run, Task


class Checkpoints:
    """Removes checkpoints once what replaces them is on record, and never before.

    Parameters
    ----------
    study : StudyFile
        The study.
    folder : Path
        Where they lie.
    """

    def __init__(self, study: StudyFile, folder: Path) -> None:
        self._folder = folder
        #: Whether runs keep their last checkpoint, to go on from should the study grow, or the
        #: strategy want more of them.
        climbs = study.search.strategy not in (*KNOWN_AHEAD, *LEARNING)
        self._keeps = study.study.keep_checkpoints or climbs

    def sweep(self, progress: Progress, runs: Mapping[str, Run]) -> None:
        """Remove what workers and sessions left: half-written files, checkpoints nobody needs.

        Parameters
        ----------
        progress : Progress
            How far all runs are.
        runs : mapping of str to Run
            Those of the study, by id.
        """
        from stormsweep.training import checkpoint

        checkpoint.remove_unfinished(self._folder)
        reached = {
            name: (
                progress.epoch(name),
                not self._keeps and progress.epoch(name) == runs[name].milestones[-1],
            )
            for name in progress.reached.keys() | progress.paused.keys()
            if name in runs
        }
        checkpoint.remove_passed(self._folder, reached)

    def replace(self, task: Task, done: TaskDone | TaskPaused) -> None:
        """Remove what nobody needs now that it is on record how far a task was done."""
        from stormsweep.training import checkpoint

        passed = {task.start} - {done.to_epoch}
        last = isinstance(done, TaskDone) and task.to_epoch == task.run.milestones[-1]
        if last and not self._keeps:
            passed.add(task.to_epoch)
        elif not checkpoint.path_of(self._folder, task.run.id, done.to_epoch).exists():
            # It could not be written: the run goes on from the one before.
            passed = set()
        checkpoint.discard(self._folder, task.run.id, passed)
