"""Losing this: gigabytes that killed processes left, or what a live process is writing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stormsweep import files
from stormsweep.data.piece_store import PieceStore
from stormsweep.errors import UserError

WRITE = """
import sys, time
from pathlib import Path
from stormsweep import files

with getattr(files, sys.argv[1])(Path(sys.argv[2])) as beside:
    (beside / "half" if beside.is_dir() else beside).write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@contextmanager
def writing(how: str, path: Path) -> Iterator[Callable[[], None]]:
    """Another process in the middle of writing `path`; what is yielded kills it."""
    command = [sys.executable, "-c", WRITE, how, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def kill() -> None:
            process.kill()
            process.wait()

        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield kill
        finally:
            kill()


def write(how: str, path: Path) -> None:
    with getattr(files, how)(path) as beside:
        (beside / "whole" if beside.is_dir() else beside).write_text("whole")


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("how", ["replacing", "replacing_folder"])
def test_what_a_killed_process_left_is_swept_and_what_a_live_one_writes_is_not(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "out"
    with writing(how, path) as kill, writing(how, tmp_path / "out.d") as kill_neighbour:
        live = hidden(tmp_path)
        assert len(live) == 2
        write(how, path)
        files.check_space(path, 1)
        assert hidden(tmp_path) == live, "a live process lost what it was writing"
        kill()
        kill_neighbour()
        write(how, path)
        (neighbour,) = hidden(tmp_path)
        assert neighbour.startswith(".out.d.")
    files.check_space(tmp_path / "out.d", 1)
    assert hidden(tmp_path) == []
    whole = path if path.is_file() else path / "whole"
    assert whole.read_text() == "whole"


def test_a_folder_in_passing_goes_with_its_process_or_with_the_next(tmp_path: Path) -> None:
    """A node's copy of the data: each agent that is killed would leave one on the disk for good."""
    path = tmp_path / "node"
    with writing("passing_folder", path) as kill:
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        write("passing_folder", path)
        assert list(tmp_path.iterdir()) == [folder], "a live process lost its folder"
        kill()
        assert list(tmp_path.iterdir()) == [folder]
        write("passing_folder", path)
        assert list(tmp_path.iterdir()) == []


def test_another_host_or_a_container_sees_to_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with writing("replacing_folder", path) as kill:
        kill()
    left = hidden(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(files, "_place", lambda: "0" * 8)
        write("replacing_folder", path)
    assert hidden(tmp_path) == left


def test_a_number_that_another_process_has_now_does_not_keep_it(tmp_path: Path) -> None:
    maker = f"{files._place()}-{os.getpid()}-1"  # this process did not start with the system
    (tmp_path / f".out.{maker}-0123abcd.partial").mkdir()
    write("replacing", tmp_path / "out")
    assert hidden(tmp_path) == []


def test_a_kill_between_the_two_moves_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with writing("replacing_folder", path) as kill:
        kill()
    (partial,) = (tmp_path / name for name in hidden(tmp_path))
    old = partial.with_suffix(".old")
    # Killed after the first move: the old one is whole, as its successor is still beside it.
    old.mkdir()
    (old / "whole").write_text("old")
    files.sweep(path)
    assert (path / "whole").read_text() == "old"
    assert hidden(tmp_path) == []
    # Killed while the old one was being removed: there is nothing whole to go back to.
    old.mkdir()
    shutil.rmtree(path)
    files.sweep(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders at once")
def test_a_folder_is_there_at_every_moment_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report"
    write("replacing_folder", path)
    missing, over = [], threading.Event()

    def look() -> None:
        while not over.is_set():
            if not path.is_dir():
                missing.append(True)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(200):
        write("replacing_folder", path)
    over.set()
    reader.join()
    assert missing == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_two_processes_that_replace_a_folder_do_not_stop_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, move = tmp_path / "report", os.replace
    write("replacing_folder", path)
    others = iter(["another's"])

    def meanwhile(source: Path, target: Path) -> None:
        move(source, target)
        if target.suffix == ".old" and next(others, None):
            path.mkdir()
            (path / "page").write_text("another's")

    monkeypatch.setattr(os, "replace", meanwhile)
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    write("replacing_folder", path)
    assert not (path / "page").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, move = tmp_path / "out", os.replace
    write("replacing_folder", path)

    def fails(source: Path, target: Path) -> None:
        if source.suffix == ".partial":
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    with pytest.raises(OSError, match="Input/output"):
        write("replacing_folder", path)
    assert (path / "whole").read_text() == "whole"
    assert hidden(tmp_path) == []


def test_where_nothing_can_be_locked_a_live_process_is_still_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with writing("replacing_folder", tmp_path / "out"):
        (live,) = hidden(tmp_path)
        with PieceStore(tmp_path / "out", {}):
            assert live in hidden(tmp_path)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES.filter(lambda name: name not in (".", "..")))
@example(".hidden.partial")
@example("a.0123abcd-1-1-0123abcd.old")
def test_a_message_names_what_is_written_and_not_what_lies_beside(name: str) -> None:
    path = Path("folder") / name
    assert files.in_place(files._beside(path) / "train.nc") == path / "train.nc"


@pytest.mark.parametrize(
    ("mask", "told", "made"),
    [
        (0o022, None, 0o640),
        (0o000, None, 0o640),
        (0o002, None, 0o640),
        (0o077, None, 0o600),
        (0o022, "007", 0o660),
        (0o077, "022", 0o644),
        (0o022, "0077", 0o600),
    ],
)
def test_files_are_for_the_group_at_most_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int, told: str | None, made: int
) -> None:
    if told is None:
        monkeypatch.delenv(files.UMASK, raising=False)
    else:
        monkeypatch.setenv(files.UMASK, told)
    before = os.umask(mask)
    try:
        with files.within_group():
            files.write_text(tmp_path / "new" / "file", "x")
        assert os.umask(mask) == mask, "a program that uses Stormsweep has lost its own umask"
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == made
    readable = 0o110 if made & 0o040 else 0o100
    folder = made | readable | (0o001 if made & 0o004 else 0)
    assert (tmp_path / "new").stat().st_mode & 0o777 == folder


@pytest.mark.parametrize("told", ["9", "rwx", "0o22", "-1", "7777", "700", "22 ", "27;id"])
def test_a_umask_that_is_none_is_refused(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(files.UMASK, told)
    before = os.umask(0o022)
    try:
        with pytest.raises(UserError, match="STORMSWEEP_UMASK: given"), files.within_group():
            raise AssertionError("not refused")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
