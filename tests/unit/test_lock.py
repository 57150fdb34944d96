"""Losing these: two drivers on one study, or a study that nobody may go on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stormsweep.cluster import machine
from stormsweep.errors import StudyBusyError
from stormsweep.study import lock
from stormsweep.study.lock import (
    FILE,
    STOP_FILE,
    DriverLock,
    ask_to_stop,
    driver_of,
    is_alive,
    refuse_if_busy,
)


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)


def test_a_live_driver_is_refused_by_name_and_a_released_one_is_forgotten(tmp_path: Path) -> None:
    with DriverLock(tmp_path):
        with pytest.raises(StudyBusyError, match=f"process {os.getpid()} on .*last sign of life"):
            DriverLock(tmp_path)
        with pytest.raises(StudyBusyError):
            refuse_if_busy(tmp_path)
    assert list(tmp_path.iterdir()) == []
    refuse_if_busy(tmp_path)


def test_a_killed_driver_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib\n"
        "from stormsweep.study.lock import DriverLock\n"
        "DriverLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    said = driver_of(tmp_path)
    assert said is not None
    assert not is_alive(tmp_path, said)
    with DriverLock(tmp_path):
        pass


def test_a_process_that_has_the_number_of_a_dead_driver_is_not_the_driver(tmp_path: Path) -> None:
    with DriverLock(tmp_path):
        said = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(said | {"started": said["started"] - 1000}))
    with DriverLock(tmp_path):
        pass


def test_a_driver_on_another_host_lives_while_its_count_moves(tmp_path: Path) -> None:
    elsewhere = DriverLock(tmp_path)
    elsewhere._said |= {"host": "elsewhere", "pid": 1}
    time.sleep(0.2)
    with pytest.raises(StudyBusyError, match="on elsewhere"):
        refuse_if_busy(tmp_path)
    elsewhere._stop.set()  # as if its host went down
    elsewhere._thread.join()
    refuse_if_busy(tmp_path)
    with DriverLock(tmp_path) as ours:
        ours.check()


def test_a_driver_on_a_machine_of_the_same_name_lives_while_its_count_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: two drivers on one study, from machines copied from one image."""
    boot = tmp_path / "boot_id"
    boot.write_text("of the other machine\n")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_BOOT", boot)
        elsewhere = DriverLock(tmp_path)
    elsewhere._said["started"] -= 1000  # here its number is that of another process
    time.sleep(0.2)
    with pytest.raises(StudyBusyError, match="another driver"):
        refuse_if_busy(tmp_path)
    elsewhere._stop.set()  # as if its machine went down, or this one did and was started again
    elsewhere._thread.join()
    refuse_if_busy(tmp_path)


def test_a_driver_that_slept_and_was_taken_over_stops(tmp_path: Path) -> None:
    sleeper = DriverLock(tmp_path)
    (tmp_path / FILE).unlink()
    with DriverLock(tmp_path):
        time.sleep(0.3)
        with pytest.raises(StudyBusyError, match="took the study over"):
            sleeper.check()
        sleeper.release()
        assert driver_of(tmp_path) is not None, "the sleeper removed the other driver's sign"


def test_a_damaged_sign_of_life_does_not_lock_the_study_for_ever(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with DriverLock(tmp_path):
        pass


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    with DriverLock(tmp_path), pytest.raises(StudyBusyError):
        DriverLock(tmp_path)


def test_a_driver_that_just_woke_up_can_look_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 600.0)
    with DriverLock(tmp_path) as sleeper:
        sleeper.look()
        (tmp_path / FILE).write_text('{"token": "of another"}')
        sleeper.check()
        with pytest.raises(StudyBusyError, match="took the study over"):
            sleeper.look()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have Ctrl-C interrupt, also where this test run is a background job of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_driver_that_is_asked_to_stop_takes_it_as_ctrl_c(
    tmp_path: Path, interruptible: None
) -> None:
    with DriverLock(tmp_path):
        ask_to_stop(tmp_path, driver_of(tmp_path) or {})
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
        assert not (tmp_path / STOP_FILE).exists()


@pytest.mark.parametrize("said", ['{"host": "h", "pid": 1, "token": "t"}', "{", "[]", "{}"])
def test_what_an_earlier_driver_was_asked_stops_no_later_one(
    tmp_path: Path, interruptible: None, said: str
) -> None:
    (tmp_path / STOP_FILE).write_text(said)
    with DriverLock(tmp_path) as ours:
        time.sleep(0.3)
        ours.look()
        assert not (tmp_path / STOP_FILE).exists()
