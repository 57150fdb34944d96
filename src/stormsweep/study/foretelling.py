"""A study foretold from its own journal: how long it takes in a layout, and what to ask for."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stormsweep.config.sites import LOCAL, Found
from stormsweep.errors import DataError, JournalError, StudyFileError, UserError, typed
from stormsweep.records import Entry, SessionBegun, StudyBegun, TaskDone
from stormsweep.results import facts
from stormsweep.results.journal import of_kind
from stormsweep.results.progress import Progress
from stormsweep.scaling import advice, measured, runtime
from stormsweep.scaling.beside import around, durations, parameters_of
from stormsweep.scaling.foretold import ENOUGH, Foretold, foretell
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.scaling.simulated import Simulated
from stormsweep.scaling.simulated_journal import journal
from stormsweep.scaling.simulation import simulate
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import on_all_folds, structure
from stormsweep.study.environment import sessions_of, takes_any_batch
from stormsweep.study.machines import Machines
from stormsweep.study.places import find
from stormsweep.study.remaining import blind_search
from stormsweep.wording import counted

if TYPE_CHECKING:
    from stormsweep.study.study import Study
    from stormsweep.work import Run

#: How sure a fit is at best, since no machine is quite the same twice; and where nothing could be
#: left out of it.
_LEAST_DOUBT, _DOUBT = 0.02, 0.1
#: A standard deviation over the median of normal errors' sizes.
_SIGMA = 1.4826
#: What comes to that on another site.
_ELSEWHERE = 0.05


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is not known from a journal, and can be said.

    Attributes
    ----------
    failures_per_hour : float
        How often a worker is lost in an hour, through no fault of its run.
    wait : Wait or None
        In the queue; None: as measured on the site, or none.
    speed : float
        How fast the site's cores are, over those that the journal is of.
    """

    failures_per_hour: float = 0.0
    wait: Wait | None = None
    speed: float = 1.0


class Outlook:
    """What a study's journal says of what the study takes elsewhere.

    Parameters
    ----------
    study : Study
        The study.
    whole : bool
        Foretell all of the study, also where some of it is on record. One that is finished is
        foretold whole in any case: as if it were run anew.
    circumstances : Circumstances
        What the journal does not say.

    Raises
    ------
    UserError
        If the journal has no finished run.
    """

    def __init__(
        self, study: Study, whole: bool = False, circumstances: Circumstances | None = None
    ) -> None:
        self._study, self._said = study, circumstances or Circumstances()
        self._entries = _entries(study)
        found = study.remaining()
        #: Whether anything of it is left to train, and whether that is what is foretold.
        self.left = found.left(retry_failed=False)
        self.rest = self.left and not whole
        self.plan = found.ahead(study.file, self._entries) if self.rest else study.plan()
        #: Whether a strategy says what is trained, from the first trial on.
        self._asks = self.plan.expected and not self.rest
        #: All runs that it may ask for.
        self._may = on_all_folds(self.plan) if self._asks else self.plan
        self._before = found.progress if self.rest else Progress()
        self._patches = facts.epoch_patches(self._entries, self.plan.folds)
        own = runtime.observations(self._entries, sessions_of(study.directory))
        kind = runtime.kind_of(own)
        frames, self._disturbed = _measured(study.directory, facts.study(self._entries))
        table = pd.concat([own, *frames], ignore_index=True)
        table = table[table["kind"] == kind].reset_index(drop=True)
        self.runtime = runtime.fit(table)
        fitted = set(own.loc[own["kind"] == kind, "session"])
        begun = of_kind(self._entries, SessionBegun)
        self._sites = {one.site for one in begun if one.session in fitted}
        # Not of measurements: they are of the same runs, so that none would be left out.
        self._common = uncertainty(own[own["kind"] == kind])
        self._around = around(self._entries)
        self._parameters = parameters_of(self._entries)
        self._any_batch = takes_any_batch(study.file)
        #: What it may be foretold on.
        threads = self._threads() | set(table["threads"].astype(int))
        self.machines = Machines(study, len(self.plan.runs), threads, self._around, self._said)

    def foretell(self, machine: Machine, repeats: int | None = None) -> Foretold:
        """Simulate the study on a machine, again and again."""
        known = self._known(machine)
        seed = self._study.file.study.seed
        return foretell(self._may, self._patches, known, machine, seed, repeats, **self._state())

    def simulate(self, machine: Machine) -> Simulated:
        """Simulate the study once, with all that every worker does."""
        seed = (self._study.file.study.seed, 0)
        known = self._known(machine)
        return simulate(self._may, self._patches, known, machine, seed, trace=True, **self._state())

    def journal(self, machine: Machine) -> list[Entry]:
        """Return the journal that the study would have, simulated once; it has no scores."""
        about, known = facts.study(self._entries), self._known(machine)
        return journal(about, self._may, self._patches, known, machine, self.simulate(machine))

    def _known(self, machine: Machine) -> Any:
        return durations(
            self._may,
            self._patches,
            self.runtime,
            self._around,
            threads=machine.threads_per_worker,
            workers=machine.workers_per_node,
            parameters=self._parameters,
            any_batch=self._any_batch,
            bundle=self._bundle(machine),
            common=self._doubt(machine),
            speed=self._said.speed,
        )

    def _bundle(self, machine: Machine) -> int:
        """Return how many runs are trained together, about: those alike, shared among workers."""
        bundling = Bundling(self._study.file.engine)
        if bundling.structure is None:
            return 1
        alike = Counter(bundling.structure(run) for run in self.plan.runs)
        share = math.ceil(len(self.plan.runs) / machine.workers)
        return max(1, min(bundling.most, share, round(statistics.median(alike.values()))))

    def _doubt(self, machine: Machine) -> float:
        """Return how sure the fit is on a machine."""
        layout = self.runtime.doubt(
            workers=machine.workers_per_node, threads=machine.threads_per_worker
        )
        site = 0.0 if machine.name in self._sites else _ELSEWHERE
        return math.hypot(self._common, layout, site)

    def _state(self) -> dict[str, Any]:
        engine = self._study.file.engine
        return {
            "reached": self._before.reached,
            "paused": self._before.paused,
            "closed": list(self._before.failed),
            "bundling": lambda: Bundling(engine),
            "search": (lambda: blind_search(self._study.file)) if self._asks else None,
        }

    def _threads(self) -> set[int]:
        """Return the numbers of threads a worker that the journal has tasks of."""
        by_session = {
            one.session: one.threads_per_worker for one in of_kind(self._entries, SessionBegun)
        }
        done = of_kind(self._entries, TaskDone)
        return {task.threads or by_session.get(task.session, 1) for task in done}

    def beyond(self, machine: Machine) -> list[str]:
        """Return in what a machine is outside what was measured, one line each."""
        sizes = [run.hyperparameters["batch_size"] for run in self.plan.runs]
        notes = self.runtime.beyond(
            batch_size=sizes,
            parameters=[
                self._parameters[kind]
                for kind in {structure(run) for run in self.plan.runs}
                if kind in self._parameters
            ],
            threads=machine.threads_per_worker,
            workers=machine.workers_per_node,
        )
        trained = {_model_of(r) for r in self.plan.runs if structure(r) in self._parameters}
        if new := {_model_of(run) for run in self.plan.runs} - trained:
            notes.append(
                f"{len(new)} of the space's models {'was' if len(new) == 1 else 'were'} never "
                "trained: as many parameters as the others have are taken"
            )
        if machine.name not in self._sites and self._said.speed == 1.0:
            notes.append(
                f"the timings are of {' and '.join(sorted(self._sites))}: whether cores of "
                f"{machine.name} are as fast is not known (--speed)"
            )
        if self._disturbed:
            notes.append(
                f"{counted(self._disturbed, 'measurement')} of scale left out: other work took the "
                "cores meanwhile"
            )
        if queue_left_out(machine):
            notes.append("waiting in the queue is not counted (--queue-wait)")
        return [*notes, *machine.notes]

    def notes(self, found: Foretold) -> list[str]:
        """Return what there is to know of what was foretold, one line each."""
        notes = []
        if found.repeats < ENOUGH:
            notes.append(
                f"of {found.repeats} simulations the interval shows "
                f"chance, such as queues and failures, too narrow (--repeats {ENOUGH} or more)"
                if found.repeats > 1
                else f"one simulation shows no interval (--repeats {ENOUGH} or more)"
            )
        notes += self.beyond(found.machine)
        note = self.runtime.scatter.note(facts.study(self._entries).name)
        notes += [note] if note else []
        count = len(found.given_up)
        if count and found.machine.chain:
            notes.append(
                f"the jobs would end before the study does: one epoch of {count} runs does not fit "
                "into the walltime"
            )
        elif count:
            notes.append(f"{count} runs would fail, since one epoch does not fit into the walltime")
        elif found.unfinished:
            notes.append(
                f"{found.unfinished} of {found.repeats} simulations were not done with "
                f"{found.machine.max_jobs} jobs, as many as follow each other; ask for more nodes "
                "or a longer walltime, or submit again"
            )
        return notes


def _measured(directory: Path, about: StudyBegun) -> tuple[list[pd.DataFrame], int]:
    """Return what `scale` observed of a study: a frame for each measurement.

    Of the same model and data, in layouts whose workers are kept on cores of their own, as a
    study's usually are, and while others left the cores alone; and how many they did not.
    """
    frames, disturbed = [], 0
    for path in sorted((directory / measured.FOLDER).glob(f"*/{measured.FILE}")):
        try:
            found = measured.read_site(path.parent)
        except (DataError, JournalError):
            # It is no reason to foretell nothing: `scale` and the report say what is damaged.
            continue
        for name, entries in found.journals.items():
            begun = facts.study(entries)
            same = (begun.model, begun.data) == (about.model, about.data)
            if not same or found.asked[name]["pin"] != "within":
                continue
            if found.disturbed(name):
                disturbed += 1
            else:
                sessions = sessions_of(found.folder / name)
                place = f"scale {found.site} {name}"
                frames.append(runtime.observations(entries, sessions, place))
    return [frame for frame in frames if len(frame)], disturbed


def queue_left_out(machine: Machine) -> bool:
    """Tell whether jobs of a machine wait in a queue, and no wait is in what is foretold."""
    return machine.name != LOCAL and machine.wait.median <= 0


def _model_of(run: Run) -> str:
    """Return what tells a run's model from others."""
    beside = ("learning_rate", "batch_size")
    return repr(sorted(item for item in run.hyperparameters.items() if item[0] not in beside))


def _entries(study: Study) -> list[Entry]:
    """Return the study's journal.

    Raises
    ------
    UserError
        If nothing is on record that one could reckon with.
    JournalError
        If the journal is damaged.
    """
    # Only a journal that is not there yet asks for a pilot: one that is damaged says so.
    there, folder = study.journal_path.exists(), study.directory
    entries = study.entries() if there else []
    if not of_kind(entries, TaskDone):
        said = f"{folder}: the journal has"
        if not there:
            said = f"{folder.absolute()}: there is no such study, and so"
            # Called from another folder than the one where it ran: beside the file, or its folder.
            for near in study.path.absolute().parents[:2]:
                beside = near / folder.parent.name / folder.name
                if (beside / study.journal_path.name).exists():
                    meant = os.path.relpath(beside)
                    raise UserError(
                        f"{folder.absolute()}: there is no such study (did you mean {meant!r}?)"
                    )
        raise UserError(
            f"{said} no finished run to reckon with; run a pilot first: "
            f"{typed('advise', study.path, '--pilot', 5)}"
        )
    return entries


def uncertainty(table: Any) -> float:
    """Return how sure a fit is, as a standard deviation: from errors on runs it has not seen."""
    try:
        return max(_LEAST_DOUBT, _SIGMA * runtime.check(table).median)
    except UserError:
        # Too few runs to leave any out.
        return _DOUBT


def choose_site(study: Study, name: str | None) -> Found:
    """Return a site by name; none: the study's own.

    Raises
    ------
    StudyFileError
        If there is no such site.
    """
    asked = "site.use" if name is None else "--site"
    return find(name or study.file.site.use, study.path, study.directory, asked)


def in_layout(
    study: Study,
    outlook: Outlook,
    site: str | None,
    workers: int | None,
    nodes: int | None,
    threads: int | None,
) -> Machine:
    """Return the machine that options of `simulate` name."""
    found = choose_site(study, site)
    if found.name == LOCAL:
        if nodes is not None:
            raise UserError("--nodes: is for sites of a cluster; on this machine use --workers")
        return outlook.machines.local(workers, threads)
    if nodes is None and workers is None:
        nodes = study.file.site.nodes
    return outlook.machines.on(found, nodes, workers, threads)


def advise(
    study: Study,
    outlook: Outlook,
    sites: Sequence[str],
    deadline: float | None = None,
    budget: advice.Budget | None = None,
    repeats: int | None = None,
    most_nodes: int | None = None,
) -> advice.Advice:
    """Compare layouts on sites; see `stormsweep.scaling.advice.advise`."""
    founds = [choose_site(study, name) for name in dict.fromkeys(sites)] or [
        choose_site(study, None)
    ]
    if budget is not None and budget.unit == advice.MONEY:
        for found in founds:
            if found.name == LOCAL:
                raise UserError(
                    "--budget: this machine has no prices; give the budget in hours, such as "
                    "3core-h"
                )
            machine = Machine.from_site(found.name, found.site)
            # Where it is the cores that are not known, that is said instead.
            if not machine.priced and not math.isnan(machine.cores_per_node):
                raise StudyFileError(
                    f"{found.key('price_per_core_hour')}: is not set, so that a budget in money "
                    "says nothing; set it, or give the budget in core-h"
                )
    return advice.advise(
        outlook.machines.families(founds, most_nodes),
        lambda machine: outlook.foretell(machine, repeats),
        deadline=deadline,
        budget=budget,
    )
