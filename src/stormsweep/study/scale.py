"""The same study in several layouts: how much faster more workers and threads make it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep.cluster import machine
from stormsweep.config.load import dump_study
from stormsweep.errors import JournalError, StudyInterrupted
from stormsweep.files import within_group, write_json, write_text
from stormsweep.records import RunFailed
from stormsweep.results.journal import of_kind
from stormsweep.scaling.design import Cell, Estimate, choose_work, foreseen
from stormsweep.scaling.measured import FILE, LOAD, MUCH, Findings, read_site
from stormsweep.study.ground import (
    STUDY,
    Ground,
    asked,
    cell_of,
    made,
    named,
    with_cells,
    work_of,
)
from stormsweep.study.rehearsal import rehearse, warm_up
from stormsweep.study.study import Study
from stormsweep.work import Run

if TYPE_CHECKING:
    from stormsweep.study.watching import State, Watcher

#: How long all measurements may take, unless said otherwise.
MINUTES = 60.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """What measuring layouts came to.

    Attributes
    ----------
    directory : Path
        Where it lies: a study's directory for each layout and repeat.
    findings : Findings
        Read from there.
    failed : list of RunFailed
        Runs that failed, of all measurements.
    measured : int
        Measurements made by this call.
    """

    directory: Path
    findings: Findings
    failed: list[RunFailed]
    measured: int


@within_group()
def scale(
    study: Study,
    workers: Sequence[int] = (),
    threads: Sequence[int] = (1,),
    repeats: int = 3,
    *,
    nodes: Sequence[int] = (),
    weak: bool = False,
    minutes: float = MINUTES,
    pins: Sequence[str] = (),
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> Scaling:
    """Measure a study in layouts: every number of workers with every number of threads.

    Every layout and repeat is a study of its own in ``scale/<site>/``, on the same machine, with
    the same runs, in random order; one worker of one thread is measured too. What was measured
    before is not measured again; what was interrupted is, because times of halves do not add up.

    Parameters
    ----------
    study : Study
        The study; it need not have been run. ``[site]`` says where.
    workers, threads : sequence of int
        Workers on all nodes, and threads of each. No workers: 1, 2, 4 and so on, as
        fill a node and have a run each.
    repeats : int
        How often each layout is measured.
    nodes : sequence of int
        On a site, in place of `workers`: whole nodes of it.
    weak : bool
        Measure weak scaling too: work in proportion to workers.
    minutes : float
        If all is foreseen to take longer, only some of the runs are trained.
    pins : sequence of str
        Where threads of a worker lie: ``within`` a socket, ``across`` sockets, ``none``: not
        pinned. Empty: within; on nodes of several sockets all three, for several threads.
    retry_failed : bool
        Measure layouts again in which runs failed.
    watcher : Watcher, optional
        Shown what goes on.

    Returns
    -------
    Scaling
        What was measured, now and before.

    Raises
    ------
    UserError
        For any mistake, a layout wider than the machine among them; nothing is written then.
    StudyInterrupted
        On Ctrl-C; the same call goes on with the next measurement.
    """
    from stormsweep.models.build import check_place
    from stormsweep.models.source import check_source
    from stormsweep.study.environment import check_engine
    from stormsweep.study.lock import DriverLock, refuse_if_busy
    from stormsweep.study.remaining import names_of
    from stormsweep.study.watching import Silent

    watcher = _Once(watcher or Silent())
    check_engine(study.file)
    check_place(study.file.model.build)
    ground = Ground.of(study)
    folder, kept = ground.folder, ground.kept()
    if kept is None:
        study.check_meant()
    plan, seed = study.plan(), study.file.study.seed
    check_source(study.file.model.build, names_of(study.file))
    wanted, left_out = asked(ground.node, workers, threads, pins, nodes, len(plan.runs))
    option = named(wanted, workers, nodes)
    refuse_if_busy(study.directory)
    for layout in {(one.nodes, one.cores): one for one in wanted}.values():
        ground.study(layout).check_site()
    for line in left_out:
        watcher.note(f"left out: {line}")
    # A study that is too small is refused before anything is prepared or measured.
    choose_work(
        plan.runs,
        wanted,
        repeats,
        weak,
        Estimate({run.id: 0.0 for run in plan.runs}),
        minutes,
        seed,
        option,
    )
    data = study.prepare(watcher)
    if kept is not None and kept["fingerprint"] != data.fingerprint:
        raise JournalError(f"{folder}: the data changed since it was measured; remove it")
    try:
        with made(folder), DriverLock(folder) as lock:
            alone = ground.study(wanted[0], "calibration")
            tried = kept is None
            if kept is None:
                estimate = rehearse(alone, plan, data, watcher)
                work = choose_work(
                    plan.runs, wanted, repeats, weak, estimate, minutes, seed, option
                )
                kept = ground.described(work, estimate, data)
                if work.why:
                    watcher.note(f"measured are {work.why}")
            about = with_cells(kept, plan.runs, wanted, repeats, weak, left_out, folder, option)
            write_text(folder / STUDY, dump_study(study.file))
            write_json(folder / FILE, about)
            series = _Series(ground, about, plan.runs, watcher, lock.check)

            def warmed() -> None:
                # Nodes of a cluster start anew for every measurement; here, all but the first
                # would find imported what their workers need.
                if not tried and ground.found is None:
                    warm_up(alone, plan, data, watcher)

            return series.measure(retry_failed, warmed)
    except KeyboardInterrupt:
        raise StudyInterrupted("what was measured so far is kept") from None


class _Series:
    """Measurements one after another.

    Parameters
    ----------
    ground : Ground
        Where.
    about : dict
        What ``scale.json`` says.
    runs : sequence of Run
        Of the whole study.
    watcher : Watcher
        Shown what goes on.
    still_ours : callable
        Raises if another driver took over.
    """

    def __init__(
        self,
        ground: Ground,
        about: Mapping[str, Any],
        runs: Sequence[Run],
        watcher: _Once,
        still_ours: Callable[[], None],
    ) -> None:
        self._ground, self._watcher, self._still_ours = ground, watcher, still_ours
        self._work = work_of(about, runs)
        self._cells = {name: cell_of(row) for name, row in about["cells"].items()}
        self._estimate = Estimate(**about["estimate"])

    def measure(self, retry_failed: bool, warm_up: Callable[[], None]) -> Scaling:
        """Measure what is not measured yet.

        Parameters
        ----------
        retry_failed : bool
            Measure again where runs failed.
        warm_up : callable
            Called before the first measurement.
        """
        folder = self._ground.folder
        known = read_site(folder)
        bad = set(known.cells.loc[known.cells["failed"] > 0, "name"]) if retry_failed else set()
        left = {
            name: cell
            for name, cell in self._cells.items()
            if name not in known.journals or name in bad
        }
        if left:
            warm_up()
        began, total = time.monotonic(), len(self._cells)
        done: list[Cell] = []
        for name, cell in left.items():
            self._still_ours()
            number = total - len(left) + len(done) + 1
            told = f"measurement {number} of {total}: {cell.layout}"
            remaining = self._left(list(left.values()), done, time.monotonic() - began)
            self._watcher.note(f"{told}; about {remaining} left", always=True)
            # Halves of a time do not add up: what was interrupted is made anew.
            shutil.rmtree(folder / name, ignore_errors=True)
            study = self._ground.study(cell.layout, name, self._work, cell.runs)
            before, since = machine.processor_seconds(), time.monotonic()
            try:
                study.run(self._watcher)
            except StudyInterrupted:
                raise StudyInterrupted(
                    f"{number - 1} of {total} measurements are made and kept"
                ) from None
            if self._ground.found is None:
                self._tell_load(study.directory, before, time.monotonic() - since)
            done.append(cell)
        findings = read_site(folder)
        return Scaling(folder, findings, _failures(findings), len(done))

    def _tell_load(self, folder: Path, before: tuple[float, float], seconds: float) -> None:
        """Write down how many cores others used meanwhile: their work slows what is measured."""
        everybody, own = (
            now - then for now, then in zip(machine.processor_seconds(), before, strict=True)
        )
        others = max(0.0, everybody - own) / seconds
        write_json(folder / LOAD, {"others_cores": round(others, 3), "seconds": round(seconds, 3)})
        if others > MUCH * self._ground.node.cores:
            self._watcher.note(
                f"other work took {others:.1f} of the {self._ground.node.cores} cores meanwhile: "
                "times are those of a machine that is shared",
                always=True,
            )

    def _left(self, cells: list[Cell], done: list[Cell], seconds: float) -> str:
        """Say how long the rest takes: as foreseen, corrected by what those done really took."""
        expected = foreseen(done, self._work, self._estimate)
        rest = foreseen(cells[len(done) :], self._work, self._estimate)
        rest *= seconds / expected if expected > 0 else 1.0
        return f"{rest / 60:.0f} min" if rest >= 90 else f"{rest:.0f} s"


class _Once:
    """A watcher that passes on what is noted once only: every layout would say the same again."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._noted = watcher, set[str]()

    def stage(self, what: str, share: float) -> None:
        """Pass it on."""
        self._watcher.stage(what, share)

    def state(self, state: State) -> None:
        """Pass it on."""
        self._watcher.state(state)

    def note(self, text: str, always: bool = False) -> None:
        """Pass it on, if it is new."""
        if always or text not in self._noted:
            self._noted.add(text)
            self._watcher.note(text)


def _failures(findings: Findings) -> list[RunFailed]:
    return [one for entries in findings.journals.values() for one in of_kind(entries, RunFailed)]
