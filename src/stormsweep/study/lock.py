"""One driver a study: a sign of life in a file, without file locks or a shared clock.

``driver.json`` names the driver (host, process) and carries a count that the driver raises every
few seconds. On the driver's own host the process table tells whether it lives; from another host,
and once its own was started anew, a count that stays the same for several beats does. Clocks of two
machines are never compared, and nothing relies on locks that network file systems break.

``stop.json`` asks one driver, by its token, to end: signals do not reach another machine. The
driver looks for it at each sign of life, and takes it as the signal that ends it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self

from stormsweep.cluster.machine import host, process_space, process_started
from stormsweep.errors import StudyBusyError, typed
from stormsweep.files import write_json

FILE, STOP_FILE = "driver.json", "stop.json"
BEAT_SECONDS = 2.0
#: A driver on another host is taken for dead when its count rests for this many beats.
_SILENT_BEATS = 5


def driver_of(directory: Path) -> dict[str, Any] | None:
    """Return what ``driver.json`` says, or None when no driver is registered.

    Returns
    -------
    dict or None
        ``host``, ``pid``, ``started`` (of the process), ``token``, ``beat``, ``seen`` (ISO time),
        ``stop`` (the signal that ends it) and, once it has workers, ``dashboard`` (port on that
        host's loopback) and ``work``: what they are at (`Execution.at_work`).
    """
    try:
        said: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"host": "?", "pid": -1, "started": 0.0, "token": "", "beat": -1, "seen": "never"}
    return said


def is_driven(directory: Path) -> bool:
    """Tell whether a driver is at work on a study; see `is_alive`."""
    driver = driver_of(directory)
    return driver is not None and is_alive(directory, driver)


def is_here(driver: dict[str, Any]) -> bool:
    """Tell whether a registered driver is a process of this machine."""
    return (driver["host"], driver.get("space")) == (host(), process_space())


def is_alive(directory: Path, driver: dict[str, Any]) -> bool:
    """Tell whether a registered driver still lives; on another host this takes some seconds."""
    if is_here(driver):
        started = process_started(driver["pid"])
        return started is not None and abs(started - driver["started"]) < 1.0
    for _ in range(_SILENT_BEATS):
        time.sleep(BEAT_SECONDS)
        now = driver_of(directory)
        if now is None:
            return False
        if now["token"] != driver["token"] or now["beat"] != driver["beat"]:
            return True
    return False


def stopping_signal() -> str:
    """Return the name of the signal that ends this process as Ctrl-C would.

    Shells have what a script starts with ``&`` ignore SIGINT; commands take SIGTERM for the same.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return "SIGTERM" if ignored else "SIGINT"


def ask_to_stop(directory: Path, driver: dict[str, Any]) -> None:
    """Ask a registered driver, on whatever machine, to end, at its next sign of life."""
    write_json(directory / STOP_FILE, {name: driver[name] for name in ("host", "pid", "token")})


def take_back_stop(directory: Path) -> None:
    """Ask no driver to end any more."""
    (directory / STOP_FILE).unlink(missing_ok=True)


def refuse_if_busy(directory: Path) -> None:
    """Do nothing when no driver is at work on the study.

    Raises
    ------
    StudyBusyError
        If one is: with its host, process and last sign of life.
    """
    driver = driver_of(directory)
    if driver is not None and is_alive(directory, driver):
        raise StudyBusyError(
            f"{directory}: another driver is at work on this study: process {driver['pid']} on "
            f"{driver['host']}, last sign of life {driver['seen']}; wait for it, or end it with "
            f"`{typed('cancel', directory)}`"
        )


class DriverLock:
    """Hold a study for this process.

    Parameters
    ----------
    directory : Path
        The study's directory; must exist.

    Raises
    ------
    StudyBusyError
        If another driver is at work on it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._said: dict[str, Any] = {
            "host": host(),
            "space": process_space(),
            "pid": os.getpid(),
            "started": process_started(os.getpid()) or 0.0,
            "stop": stopping_signal(),
            "token": uuid.uuid4().hex,
            "beat": 0,
            "seen": _now(),
        }
        #: Whether another driver took the study over while this one was asleep.
        self.lost = False
        self._stop = threading.Event()
        while True:
            try:
                # Created whole and only if absent: linking is atomic on network file systems too.
                self._create()
                break
            except FileExistsError:
                refuse_if_busy(directory)
                self._remove_stale(driver_of(directory))
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()

    def tell(self, **facts: Any) -> None:
        """Have ``driver.json`` say more about this driver, such as the port of its dashboard."""
        self._said |= facts

    def check(self) -> None:
        """Do nothing while the study is this driver's.

        Raises
        ------
        StudyBusyError
            If another driver took it over, because this one gave no sign of life for long.
        """
        if self.lost:
            raise StudyBusyError(
                f"{self._path.parent}: another driver took the study over while this one gave no "
                "sign of life; this one stops"
            )

    def look(self) -> None:
        """Do nothing while the study is this driver's, by what is on the disk now; see `check`.

        For what would harm another driver: one that stood still has not heard of it by itself yet.
        """
        self.lost = self.lost or not self._ours(driver_of(self._path.parent))
        self.check()

    def release(self) -> None:
        """Let go of the study."""
        self._stop.set()
        self._thread.join()
        driver = driver_of(self._path.parent)
        if driver is not None and driver["token"] == self._said["token"]:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _create(self) -> None:
        beside = self._path.with_name(f".{FILE}.{self._said['token']}")
        beside.write_text(json.dumps(self._said), encoding="utf-8")
        try:
            os.link(beside, self._path)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links: made only if absent, written just after.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, beside.read_bytes())
            os.close(descriptor)
        finally:
            beside.unlink()

    def _remove_stale(self, stale: dict[str, Any] | None) -> None:
        if stale is None:
            return
        aside = self._path.with_name(f".{FILE}.stale.{uuid.uuid4().hex}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        try:
            moved = json.loads(aside.read_text(encoding="utf-8")).get("token")
        except ValueError:
            moved = stale["token"]
        if moved != stale["token"]:
            # Another driver was quicker: what was moved is its sign, and goes back.
            with contextlib.suppress(OSError):
                os.link(aside, self._path)
        aside.unlink()

    def _ours(self, driver: dict[str, Any] | None) -> bool:
        # One that cannot be read says nothing.
        return driver is not None and driver["token"] in (self._said["token"], "")

    def _live(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            if not self._ours(driver_of(self._path.parent)):
                self.lost = True
                return
            self._said |= {"beat": self._said["beat"] + 1, "seen": _now()}
            with contextlib.suppress(OSError):
                write_json(self._path, self._said)
            with contextlib.suppress(OSError):
                self._heed()

    def _heed(self) -> None:
        """End this process as its signal would, if it is asked to; what others were asked goes."""
        path = self._path.with_name(STOP_FILE)
        if not path.exists():
            return
        try:
            asked = json.loads(path.read_text(encoding="utf-8"))["token"]
        except (ValueError, KeyError, TypeError):
            asked = None
        path.unlink(missing_ok=True)
        if asked == self._said["token"]:
            # To the main thread: what it waits for ends then too.
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.Signals[self._said["stop"]])


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
