"""The layout of a study on one machine, workers x threads: decided from what is known of it.

All pure functions; `stormsweep.study.trial` measures what they cannot know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stormsweep.config.study import SiteChoice
from stormsweep.records import LayoutTried, Record, SessionBegun, TaskDone, TaskPaused
from stormsweep.wording import counted

#: Numbers of threads that are tried, beside all cores and the cores for each of a few runs.
_THREADS = (1, 2, 4)
_MOST_TRIED = 4
#: Layouts that leave more of the cores unused than this are not tried.
_UNUSED = 0.25
#: Rates nearer to the best than this are as good: a machine is never quite the same twice.
NOISE = 0.05
#: What the best layout may be faster than the first tried, at most, for a trial to be planned.
_WIN = 0.2
#: Memory that one worker takes with TensorFlow and a small model, in GiB.
WORKER_GB = 1.0
#: Share of the machine's memory that workers may take.
MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Layout:
    """Workers x threads per worker.

    Attributes
    ----------
    workers, threads : int
        Worker processes, and compute threads of each.
    why : str
        Why this one, in a few words.
    """

    workers: int
    threads: int
    why: str = ""

    def __str__(self) -> str:
        return f"{counted(self.workers, 'worker')} x {counted(self.threads, 'thread')}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a study has to run in.

    Attributes
    ----------
    host : str
        The machine.
    cores : int
        That this process may use.
    memory_gb : float
        That this process may use.
    worker_gb : float
        What one worker takes, or is allowed to.
    runs : int
        Runs of the study: more workers than that have nothing to do.
    """

    host: str
    cores: int
    memory_gb: float
    worker_gb: float
    runs: int

    def workers(self, threads: int) -> int:
        """Return how many workers of so many threads fit."""
        fitting = int(MEMORY_SHARE * self.memory_gb / self.worker_gb)
        return max(1, min(self.cores // threads, self.runs, fitting))


@dataclass(frozen=True, slots=True)
class Tried:
    """What a trial of one layout found.

    Attributes
    ----------
    layout : Layout
        Which.
    patches_per_second : float
        Of all workers together; 0 where it could not be tried.
    memory_mb : float
        Of the worker that took most.
    failure : str
        Why it could not be tried, in one line; empty: it could.
    """

    layout: Layout
    patches_per_second: float
    memory_mb: float = 0.0
    failure: str = ""

    def plain(self) -> dict[str, Any]:
        """Return what the journal keeps of it."""
        return {
            "workers": self.layout.workers,
            "threads": self.layout.threads,
            "patches_per_second": round(self.patches_per_second, 1),
            "memory_mb": round(self.memory_mb, 1),
            "failure": self.failure,
        }


def candidates(room: Room) -> list[Layout]:
    """Return the layouts worth a trial, the most workers first; at most four.

    A single thread a worker comes first, because it is the best most often: nothing waits for
    another thread.
    """
    threads = {count for count in _THREADS if count <= room.cores}
    threads |= {room.cores, max(1, room.cores // room.runs)}
    found: dict[int, Layout] = {}
    for count in sorted(threads):
        used = count * (room.cores // count)
        if count == 1 or used >= (1 - _UNUSED) * room.cores:
            found[count] = Layout(room.workers(count), count)
    first, *others = found.values()
    # Where there are fewer runs than cores, few threads leave most cores idle.
    others.sort(key=lambda one: (-one.workers * one.threads, one.threads))
    return [first, *sorted(others[: _MOST_TRIED - 1], key=lambda one: one.threads)]


def telling(records: Iterable[Record]) -> list[Record]:
    """Return what of a journal a layout depends on: a few records, however long it is."""
    found: list[Record] = []
    trained = False
    for record in records:
        if isinstance(record, TaskDone | TaskPaused):
            if trained:
                continue
            trained = True
        elif not isinstance(record, LayoutTried | SessionBegun):
            continue
        found.append(record)
    return found


def decided(site: SiteChoice, room: Room, earlier: Sequence[Record]) -> Layout | None:
    """Return the layout of a session as far as it can be told without a trial.

    Parameters
    ----------
    site : SiteChoice
        ``[site]`` of the study file.
    room : Room
        What there is to run in.
    earlier : sequence of record
        The study's journal so far, or what `telling` leaves of it. A study keeps its number of
        threads where that is ``auto``: only then are the scores of all its sessions those of one.

    Returns
    -------
    Layout or None
        None if a trial must tell.
    """
    workers, threads = site.workers, site.threads_per_worker
    sessions = [record for record in earlier if isinstance(record, SessionBegun)]
    if workers != "auto" and threads != "auto":
        return Layout(workers, threads)
    if threads != "auto":
        return Layout(room.workers(threads), threads, "as many workers as fill the cores")
    if sessions and not _in_vain(earlier):
        kept = sessions[-1].threads_per_worker
        if workers != "auto":
            return Layout(workers, kept, "threads as in the study's earlier sessions")
        for record in reversed(earlier):
            if isinstance(record, LayoutTried) and (
                (record.host, record.cores, record.threads) == (room.host, room.cores, kept)
            ):
                return _as_begun(record, room)
        return Layout(room.workers(kept), kept, "threads as in the study's earlier sessions")
    if workers != "auto":
        return Layout(workers, max(1, room.cores // workers), "the cores shared among the workers")
    listed = candidates(room)
    return Layout(listed[0].workers, 1, "there is one core") if len(listed) == 1 else None


def _in_vain(earlier: Sequence[Record]) -> bool:
    """Say whether layouts were tried and none was measured, nor anything trained since."""
    trials = [record for record in earlier if isinstance(record, LayoutTried)]
    measured = any(not one.get("failure") for trial in trials for one in trial.tried)
    trained = any(isinstance(record, TaskDone | TaskPaused) for record in earlier)
    return bool(trials) and not measured and not trained


def _as_begun(found: LayoutTried, room: Room) -> Layout:
    """Return the layout that a trial found, with no more workers than there is room for now."""
    fitting = room.workers(found.threads)
    if fitting >= found.workers:
        return Layout(found.workers, found.threads, "as the study began")
    why = (
        f"the study began with {counted(found.workers, 'worker')}, and there is room for "
        f"{fitting} ({counted(room.runs, 'run')}; {room.worker_gb:g} GiB a worker, of "
        f"{MEMORY_SHARE * room.memory_gb:.1f})"
    )
    return Layout(fitting, found.threads, why)


def on_devices(site: SiteChoice, cores: int, gpus: int, earlier: Sequence[Record]) -> Layout:
    """Return the layout of a session that trains on JAX: a worker has a device to itself.

    Parameters
    ----------
    site : SiteChoice
        ``[site]`` of the study file.
    cores, gpus : int
        That this process may use.
    earlier : sequence of record
        The study's journal so far; threads that are ``auto`` are kept, as in `decided`.
    """
    if site.workers == "auto":
        workers = max(1, gpus)
        why = "one worker for each GPU" if gpus else "no GPU is found, so JAX trains on the cores"
    elif gpus and site.workers > gpus:
        workers, why = gpus, f"one worker for each GPU; given are {site.workers}"
    else:
        workers, why = site.workers, ""
    if site.threads_per_worker != "auto":
        return Layout(workers, site.threads_per_worker, why)
    sessions = [record for record in earlier if isinstance(record, SessionBegun)]
    kept = sessions[-1].threads_per_worker if sessions else max(1, cores // workers)
    return Layout(workers, kept, why)


def worth_trying(seconds: float, trial_seconds: float) -> bool:
    """Say whether trying further layouts can win more time than it takes.

    Parameters
    ----------
    seconds : float
        How long the study would take in the first layout.
    trial_seconds : float
        How long it takes to try the others.
    """
    return _WIN * seconds > trial_seconds


def choose(tried: Sequence[Tried], memory_gb: float, cases: str) -> Layout | None:
    """Choose among layouts that were tried: the fastest, or one as fast with fewer threads.

    Parameters
    ----------
    tried : sequence of Tried
        What the trial found.
    memory_gb : float
        That all workers together may take, `MEMORY_SHARE` of the machine's.
    cases : str
        What the cases are called.

    Returns
    -------
    Layout or None
        With one line that says why; None if none could be tried.
    """
    sound = [
        one
        for one in tried
        if not one.failure and one.layout.workers * one.memory_mb / 1024 <= memory_gb
    ]
    if not sound:
        return None
    best = max(one.patches_per_second for one in sound)
    good = [one for one in sound if one.patches_per_second >= (1 - NOISE) * best]
    won = min(good, key=lambda one: (one.layout.threads, -one.patches_per_second))
    others = [
        f"{one.patches_per_second:,.0f} of {one.layout.workers} x {one.layout.threads}"
        for one in sound
        if one is not won
    ]
    why = f"{won.patches_per_second:,.0f} {cases}/s"
    if others:
        why += f" against {', '.join(others)}"
    too_big = [one for one in tried if one not in sound]
    if too_big:
        why += "; not possible: " + ", ".join(
            f"{one.layout.workers} x {one.layout.threads} ({one.failure or 'too much memory'})"
            for one in too_big
        )
    return Layout(won.layout.workers, won.layout.threads, why)


def crowded(layout: Layout, cores: int) -> str:
    """Say so where a layout has more threads than there are cores; else an empty string."""
    if layout.workers * layout.threads <= cores:
        return ""
    return (
        f"{layout}: more threads than the {counted(cores, 'core')} this process may use, "
        "so that they wait for each other and are not pinned"
    )
