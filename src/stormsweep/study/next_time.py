"""What a finished study says of the next one like it: advice that takes no longer than a report."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stormsweep.errors import UserError, typed
from stormsweep.records import Entry, SessionBegun, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.scaling.advice import Advice, advise
from stormsweep.scaling.foretold import Foretold, repeats_for
from stormsweep.scaling.machine import Machine
from stormsweep.study import advised
from stormsweep.study.foretelling import Outlook, choose_site, in_layout
from stormsweep.study.study import Study

#: Tasks that are simulated at most, all layouts and repeats together: some seconds of work.
MOST_SIMULATED = 500_000
#: Layouts that are simulated besides the candidates: as it ran, and with walltimes that are tried.
_BESIDES = 3
#: A task that a strategy is asked for first takes as long as so many that are known ahead.
_ASKED = 6


@dataclass(frozen=True)
class Layout:
    """Where and how most tasks of a journal were done.

    Attributes
    ----------
    site : str
    workers, threads : int
        All workers together; threads of each.
    """

    site: str
    workers: int
    threads: int

    def of(self, machine: Machine) -> bool:
        """Tell whether a machine has it."""
        own = machine.name, machine.workers, machine.threads_per_worker
        return own == (self.site, self.workers, self.threads)


@dataclass(frozen=True)
class NextTime:
    """What to ask for next time.

    Attributes
    ----------
    advice : Advice
        As `Study.advise` gives it for the site that most of the study ran on.
    left : bool
        Whether it is of what is left of the study; else of the whole study, run anew.
    layout : Layout
        In which the study ran.
    ran : Foretold or None
        That layout, simulated; None where it no longer is one of the machine or of the site.
    notes : tuple of str
        What there is to know of what is advised.
    table : tuple of str
        ``[site]`` of the study file, as advised.
    purpose : str
        What the lines are for.
    lines : tuple of str
        What to do, and the ``#SBATCH`` lines of the job where there is one: of this study, or where
        nothing of it is left, of the next one.
    command : str
        What tells the same, and more.
    """

    advice: Advice
    left: bool
    layout: Layout
    ran: Foretold | None
    notes: tuple[str, ...]
    table: tuple[str, ...]
    purpose: str
    lines: tuple[str, ...]
    command: str


def next_time(directory: Path, entries: Sequence[Entry]) -> NextTime:
    """Simulate a study in other layouts where it ran, if that does not take long.

    Parameters
    ----------
    directory : Path
        The study's.
    entries : sequence of Entry
        Its journal.

    Raises
    ------
    UserError
        If there is nothing to reckon with, or too much to be simulated for a report.
    """
    layout = layout_of(entries)
    study = Study.from_toml(directory)
    elsewhere = layout.site != study.file.site.use
    command = typed("advise", directory, *(["--site", layout.site] if elsewhere else []))
    done = len(of_kind(entries, TaskDone))
    _refuse_long(done * repeats_for(done) * (1 + _BESIDES), command)
    outlook = Outlook(study)
    families = outlook.machines.families([choose_site(study, layout.site)], None)
    tasks, layouts = outlook.plan.tasks, sum(map(len, families)) + _BESIDES
    each = _ASKED if outlook.plan.expected else 1
    _refuse_long(each * tasks * repeats_for(tasks) * layouts, command)
    found = advise(families, outlook.foretell)
    # Before another layout is asked for, whose limits are not those of the candidates.
    notes = tuple(outlook.notes(found.asked))
    return NextTime(
        advice=found,
        left=outlook.rest,
        layout=layout,
        ran=_ran(study, outlook, layout, found),
        notes=notes,
        table=tuple(advised.study_table(found.asked)),
        purpose=advised.purpose(outlook.left),
        lines=tuple(advised.lines(study, found.asked, outlook.left)),
        command=command,
    )


def layout_of(entries: Sequence[Entry]) -> Layout:
    """Return the layout in which most tasks of a journal were done.

    Raises
    ------
    UserError
        If none was.
    """
    begun = {one.session: one for one in of_kind(entries, SessionBegun)}
    counts = Counter(
        Layout(session.site, session.workers, task.threads or session.threads_per_worker)
        for task in of_kind(entries, TaskDone)
        if (session := begun.get(task.session)) is not None
    )
    if not counts:
        raise UserError("the journal has no finished run to reckon with")
    return counts.most_common(1)[0][0]


def _refuse_long(simulated: int, command: str) -> None:
    if simulated > MOST_SIMULATED:
        raise UserError(f"so large a study takes too long to simulate for a report; see {command}")


def _ran(study: Study, outlook: Outlook, layout: Layout, found: Advice) -> Foretold | None:
    """Return the study in the layout in which it ran, simulated."""
    for one in found.candidates:
        if layout.of(one.machine):
            return one
    with contextlib.suppress(UserError):
        machine = in_layout(study, outlook, layout.site, layout.workers, None, layout.threads)
        return outlook.foretell(machine)
    return None
