"""What all studies of a campaign share: the data, the study file, the scores they must come to."""

from __future__ import annotations

import platform
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.slurm.cluster import MiniSlurm

from stormsweep import __version__
from stormsweep.cluster import machine
from stormsweep.records import TaskDone
from stormsweep.results.journal import of_kind, read

from .judge import Scores
from .kinds import KINDS, WALLTIME
from .study import Story, Trial, keep, prepared
from .world import NAME, World

MODELS = Path(__file__).parents[2] / "tests" / "integration" / "small_models.py"
#: Every third study has jobs of a minute.
_A_MINUTE, _LONG = "00:01:00", "00:20:00"
_MILESTONES = 5
_STUDY = """\
[study]
name = "{name}"
seed = 7
[data]
source = "npz"
path = "{folder}/digits.npz"
target = "labels"
cache = "{folder}/data"
[balance]
method = "oversample"
[model]
build = "{models}:digits_cnn"
[search]
[search.space]
batch_size = [16, 32]
learning_rate = [0.003, 0.01]
epochs = {epochs}
[validation]
folds = 2
[site]
workers = 2
"""


class Campaign:
    """Studies of the same digits, one after another.

    Parameters
    ----------
    cluster : MiniSlurm
        At work.
    folder : Path
        Empty.
    epochs : int
        From milestone to milestone.
    kinds, ways : list of str
        What may strike, and how studies are run.
    kept : Path, optional
        Where the folders of studies with violations are copied to.
    reference : dict, optional
        The scores of an undisturbed run with the same settings, on this machine, where known.
    """

    def __init__(
        self,
        cluster: MiniSlurm,
        folder: Path,
        epochs: int,
        kinds: list[str],
        ways: list[str],
        kept: Path | None = None,
        reference: Scores | None = None,
    ) -> None:
        self._cluster, self._folder, self._ways, self._kept = cluster, folder, ways, kept
        self._minutes = WALLTIME in kinds
        self.kinds = [kind for kind in KINDS if kind in kinds]
        stops = [epochs * number for number in range(1, _MILESTONES + 1)]
        self._text = _STUDY.format(name=NAME, folder=folder, models=MODELS, epochs=stops)
        self._make_data()
        #: What every study must come to.
        self.reference = reference or self._undisturbed()

    def study(self, number: int, chance: random.Random, most: int, so_far: dict[str, int]) -> Story:
        """Run one study under faults.

        Parameters
        ----------
        number : int
            Of the study: every second goes the other way, every third has jobs of a minute.
        chance : Random
            Of its own.
        most : int
            Faults at most.
        so_far : dict of str to int
            How often each kind struck in the studies before; rare ones strike first.
        """
        way = self._ways[number % len(self._ways)]
        walltime = _A_MINUTE if self._minutes and number % 3 == 0 else _LONG
        print(f"study {number}: {way}, jobs of {walltime}", flush=True)
        prepared(self._cluster)
        disk = 32 if "disk full" in self.kinds else 0
        folder = self._folder / f"study-{number}"
        world = World(self._cluster, folder, way, self._text, walltime, disk)
        try:
            trial = Trial(world, number, walltime, chance, so_far, most, len(self.reference))
            story = trial.go(self.reference)
            if story.violations and self._kept is not None:
                keep(world, self._kept / f"study-{number}")
        finally:
            world.close()
        shutil.rmtree(folder, ignore_errors=True)
        for violation in story.violations:
            print(f"  VIOLATION: {violation}", flush=True)
        print(f"  done in {story.seconds:.0f} s, {story.commands} commands", flush=True)
        return story

    def _make_data(self) -> None:
        import numpy as np
        from sklearn.datasets import load_digits

        digits = load_digits()
        np.savez(
            self._folder / "digits.npz",
            inputs=digits.images.astype("float32"),
            labels=(digits.target == 8).astype("uint8"),
        )

    def _undisturbed(self) -> Scores:
        """Run the study here, without Slurm and without faults."""
        (self._folder / f"{NAME}.toml").write_text(self._text, encoding="utf-8")
        command = [sys.executable, "-m", "stormsweep", "run", f"{NAME}.toml", "--no-report"]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
        journal = self._folder / "runs" / NAME / "journal.jsonl"
        done = of_kind(read(journal), TaskDone)
        return {(task.run, task.to_epoch): task.scores for task in done}


def facts(cluster: MiniSlurm) -> dict[str, object]:
    """Say what the figures hold for."""
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "slurm": cluster.run("sinfo", "--version").strip(),
        "python": platform.python_version(),
        "stormsweep": __version__,
    }
