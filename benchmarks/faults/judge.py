"""What is read of a study's faults in its journal and logs, and what must not be there."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from stormsweep.errors import JournalError
from stormsweep.records import (
    Entry,
    SessionBegun,
    SessionEnded,
    TaskDone,
    TaskPaused,
    WorkerEvent,
)
from stormsweep.results.journal import read

from .kinds import SESSION

if TYPE_CHECKING:
    from .study import Fault, Story
    from .world import World

Scores = dict[tuple[str, int], dict[str, float]]
_GIVEN = re.compile(r"^(\S+ \S+),(\d+) INFO \S+: (\S+) epochs (\d+)-(\d+) to worker (\S+)$")
#: Losses are read of within so many seconds; those of several faults in that time get mixed up.
_SEEN_WITHIN = 60.0


def judge(story: Story, world: World, reference: Scores) -> None:
    """Add what must not be to the story's violations, and what faults cost to the faults."""
    path = world.directory / "journal.jsonl"
    try:
        entries = read(path)
    except JournalError as error:
        story.violations.append(f"the journal cannot be read: {error}")
        return
    story.sessions = sum(isinstance(entry.record, SessionBegun) for entry in entries)
    story.violations += _scores(entries, reference)
    for left in (".private", "driver.json"):
        if (world.directory / left).exists():
            story.violations.append(f"{left} is left in the study's directory")
    for fault in story.faults:
        command = "srun" if fault.kind.startswith("srun") else "sbatch"
        if fault.kind.startswith(("srun", "sbatch")):
            fault.met = _met(story, world, command, fault)
    story.violations += _visible(story, entries) + _unexplained(story, entries)
    log = world.directory / "logs" / "driver.log"
    if log.exists():
        _cost(story, entries, log.read_text(errors="replace"))
    story.walltimes = _walltimes(entries)


def _scores(entries: list[Entry], reference: Scores) -> list[str]:
    done = [entry.record for entry in entries if isinstance(entry.record, TaskDone)]
    found = {(task.run, task.to_epoch): task.scores for task in done}
    count = Counter((task.run, task.to_epoch) for task in done)
    wrong = [f"{key} was done {times} times" for key, times in count.items() if times > 1]
    wrong += [f"{key} is missing" for key in reference.keys() - found.keys()]
    wrong += [f"{key} is of no run" for key in found.keys() - reference.keys()]
    both = reference.keys() & found.keys()
    return wrong + [f"{key}: another score" for key in both if reference[key] != found[key]]


def _met(story: Story, world: World, command: str, fault: Fault) -> bool:
    ours = [one for one in story.faults if one.kind.startswith(command)]
    return ours.index(fault) < world.troubles(command)


def _session_ends(entries: list[Entry]) -> list[tuple[float, str]]:
    """Return when sessions ended without being done, as far as the journal tells, and how."""
    found, open_ = [], False
    for entry in entries:
        if isinstance(entry.record, SessionBegun):
            if open_:
                found.append((entry.time, ""))
            open_ = True
        elif isinstance(entry.record, SessionEnded):
            found.append((entry.time, entry.record.outcome))
            open_ = False
    return found


def _allowed(story: Story, when: float) -> set[str]:
    words = {"walltime"} if story.walltime == "00:01:00" else set()
    for fault in story.faults:
        if -2 < when - fault.at < _SEEN_WITHIN + 30:
            words |= set(fault.words)
            # Whatever else ends a job tells its agent to leave.
    if SESSION in words:
        words |= {"killed", "cancelled", "node-failure"}
    return words - {SESSION}


def _visible(story: Story, entries: list[Entry]) -> list[str]:
    """Find each loss that a fault caused for certain in the journal, under its name."""
    wrong = []
    losses = {
        (entry.record.pid, entry.record.session): entry
        for entry in entries
        if isinstance(entry.record, WorkerEvent) and entry.record.event != "ready"
    }
    ends = _session_ends(entries)
    for fault in story.faults:
        gone = any(-1 < when - fault.at < _SEEN_WITHIN for when, _ in ends)
        for pid in fault.pids:
            found = [
                entry
                for (lost, _), entry in losses.items()
                if lost == pid and entry.time > fault.at - _SEEN_WITHIN
            ]
            if not found:
                if not gone:
                    wrong.append(f"{fault.kind} ({fault.what}): the loss of {pid} is not on record")
                continue
            record = found[-1].record
            assert isinstance(record, WorkerEvent)
            if record.failure not in _allowed(story, found[-1].time) | set(fault.words):
                wrong.append(f"{fault.kind} ({fault.what}): is called {record.failure!r}")
    return wrong


def _unexplained(story: Story, entries: list[Entry]) -> list[str]:
    """Find losses that no fault explains."""
    wrong = []
    for entry in entries:
        record = entry.record
        if not isinstance(record, WorkerEvent) or record.event != "lost":
            continue
        near = any(-2 < entry.time - fault.at < _SEEN_WITHIN + 30 for fault in story.faults)
        if record.failure not in _allowed(story, entry.time) and not (
            near and any(record.pid in fault.pids for fault in story.faults)
        ):
            wrong.append(
                f"{record.worker} was lost ({record.failure}: {record.detail}) without a fault"
            )
    return wrong


def _cost(story: Story, entries: list[Entry], log: str) -> None:
    """Tell which tasks were given out again after which fault, and how long that took."""
    given: dict[tuple[str, int], list[tuple[float, str]]] = {}
    for line in log.splitlines():
        found = _GIVEN.match(line)
        if found is not None:
            when = dt.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp()
            key = found[3], int(found[5])
            given.setdefault(key, []).append((when + int(found[2]) / 1000, found[6]))
    paused: dict[str, list[float]] = {}
    for entry in entries:
        if isinstance(entry.record, TaskPaused):
            paused.setdefault(entry.record.run, []).append(entry.time)
    for (run, _), times in given.items():
        for (first, _), (second, _) in pairwise(times):
            if any(first < when < second for when in paused.get(run, ())):
                continue
            between = [one for one in story.faults if first - 1 < one.at < second]
            cause = [one for one in between if one.words]
            if cause or between:
                (cause or between)[0].lost.append(second - first)


def _walltimes(entries: list[Entry]) -> list[dict[str, object]]:
    """Return the jobs that ended because their time was over: one a node, or a session."""
    found: dict[tuple[int, str], dict[str, object]] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, TaskPaused) or (
            isinstance(record, WorkerEvent) and record.failure == "walltime"
        ):
            node = record.worker.rsplit("-", 2)[1]
            one = found.setdefault((record.session, node), {"paused": 0, "lost": 0})
            one["paused" if isinstance(record, TaskPaused) else "lost"] += 1  # type: ignore[operator]
    return list(found.values())
