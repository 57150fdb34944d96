"""Running the command line as users do, in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest

from stormsweep.cli import main
from stormsweep.records import TaskDone
from stormsweep.results.journal import of_kind, read

MODELS = Path(__file__).parent / "small_models.py"
SHARED = Path(__file__).parents[2].parent / "shared"


def command(folder: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "stormsweep", *map(str, arguments)]


def stormsweep(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder` and wait for it."""
    return subprocess.run(
        command(folder, *arguments), cwd=folder, capture_output=True, text=True, timeout=500
    )


def called(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder` within this process.

    The same code as in a process of its own, less the seconds that it takes to import: for what is
    about the answer and not about the process. Where the driver trains, use `stormsweep`.
    """
    given = list(map(str, arguments))
    stopping = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["stormsweep", *given]),
            mock.patch.object(sys, "path", sys.path[:]),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        for number, handler in stopping.items():
            signal.signal(number, handler)
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(given, code or 0, out.getvalue(), err.getvalue())


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start the command line in `folder`, in a process group of its own."""
    return subprocess.Popen(
        command(folder, *arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Background jobs of a script (this test run may be one) hand down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def tasks(directory: Path) -> list[TaskDone]:
    """Return the tasks on record, none before the journal is there."""
    path = directory / "journal.jsonl"
    return of_kind(read(path), TaskDone) if path.exists() else []


def scores(directory: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Return all scores by run and epoch, having seen that no task was done twice."""
    done = tasks(directory)
    found = {(task.run, task.to_epoch): task.scores for task in done}
    assert len(found) == len(done), "a task was done twice"
    return found


def wait_for(
    happened: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120
) -> None:
    """Wait until something happened; fail when the process ends or the time is over before."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the worker processes of a driver."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if _is_worker(child, process.pid)]


def _is_worker(process: psutil.Process, driver: int) -> bool:
    """Tell workers from what else a driver starts, such as the process that they are forked from.

    That one is the driver's child; those it forks bear its command line and are not.
    """
    try:
        command = " ".join(process.cmdline())
        forked = "multiprocessing.forkserver" in command and process.ppid() != driver
        return forked or "spawn_main" in command
    except psutil.Error:
        return False


def gone(processes: list[psutil.Process], seconds: float = 30) -> list[psutil.Process]:
    """Return the processes that still live after a while; none should.

    One that is dead and not yet collected by its parent, or by who took it over, is gone.
    """
    end = time.monotonic() + seconds
    while (left := [one for one in processes if _lives(one)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


#: The fixture `made_once`.
MadeOnce = Callable[[str, Callable[[Path], Any]], Any]


def digits_study(folder: Path, name: str = "digits", **changes: str) -> Path:
    """Write scikit-learn's digits ("is it an 8?") and a study of them into `folder`."""
    from sklearn.datasets import load_digits

    if not (folder / "digits.npz").exists():
        digits = load_digits()
        np.savez(
            folder / "digits.npz",
            inputs=digits.images.astype("float32"),
            labels=(digits.target == 8).astype("uint8"),
        )
    text = {
        "data": f'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ncache = "{folder}/data"',
        "balance": 'method = "oversample"',
        "model": f'build = "{MODELS}:digits_cnn"',
        "search": "",
        "search.space": "batch_size = [16, 32]\nlearning_rate = [0.003, 0.01]\n"
        "epochs = [6, 12, 18, 24]",
        "validation": "folds = 2",
        "site": "workers = 2",
    } | {key.replace("__", "."): value for key, value in changes.items()}
    path = folder / f"{name}.toml"
    tables = "".join(f"\n[{table}]\n{lines}\n" for table, lines in text.items())
    path.write_text(f'[study]\nname = "{name}"\nseed = 7\n{tables}', encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def digits(made_once: MadeOnce) -> Path:
    """The directory of a finished study of two workers: what others must come to as well.

    Many tests read it; one that would change it takes a copy.
    """

    def make(folder: Path) -> str:
        from stormsweep.report.sections import SECTIONS

        study = digits_study(folder)
        done = stormsweep(folder, "run", study, "--no-report")
        assert done.returncode == 0, done.stderr
        # Its report is written here: a new process and all figures take longer than the training.
        few = [one for one in SECTIONS if one.name in ("answer", "configurations", "time")]
        with mock.patch("stormsweep.report.write.SECTIONS", few):
            again = called(folder, "run", study)
        assert again.returncode == 0, again.stderr
        return str(folder / "runs" / "digits")

    return Path(made_once("digits", make))


TWIN = """
[study]
name = "twin"
seed = 5
[data]
source = "twin"
patches = 700
cache = "{folder}/data"
[balance]
method = "oversample"
ratio = 0.3
[model]
build = "stormsweep.models:storm_cnn"
[search.space]
batch_size = [64]
learning_rate = [0.005]
filters = [[4, 8]]
epochs = [16]
[validation]
folds = 2
[site]
workers = 1
"""


@dataclass(frozen=True)
class Finished:
    """A finished study: its folder, its directory and what was said. Only to be read."""

    folder: Path
    directory: Path
    said: str

    def copied(self, folder: Path) -> Path:
        """Copy all of it into a folder, for a test that changes it; return the directory there."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        directory = folder / self.directory.relative_to(self.folder)
        for file in (*folder.glob("*.toml"), directory / "study.toml"):
            file.write_text(file.read_text().replace(str(self.folder), str(folder)))
        return directory


@pytest.fixture(scope="session")
def twin_study(made_once: MadeOnce) -> Finished:
    """A small study of the twin."""

    def make(folder: Path) -> tuple[str, str]:
        (folder / "twin.toml").write_text(TWIN.format(folder=folder), encoding="utf-8")
        done = stormsweep(folder, "run", "twin.toml", "--no-report")
        assert done.returncode == 0, done.stderr
        return str(folder), done.stdout

    folder, printed = made_once("twin", make)
    return Finished(Path(folder), Path(folder) / "runs" / "twin", printed)


@pytest.fixture
def no_orphans(tmp_path: Path) -> Iterator[None]:
    """Fail when a test leaves worker processes behind; those of others are none of its own."""
    yield
    time.sleep(0.2)
    left = [
        process
        for process in psutil.process_iter()
        if _is_worker(process, os.getpid()) and _works_below(process, tmp_path)
    ]
    assert gone(left) == [], "worker processes were left behind"


def _works_below(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def environment(**changes: str) -> dict[str, str]:
    return os.environ | changes
