"""How long a study will take, from the journals of earlier ones on the same machine.

What a task costs is `search.plan.cost`; how fast this machine works that off, and what else a task
takes, is read from journals of the same processor, engine, precision, model builder, input shape
and number of threads. A simulation then gives its tasks to as many workers as the layout
has; a run of a bundle counts with its share.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stormsweep.cluster import machine
from stormsweep.config.sites import LOCAL
from stormsweep.config.study import StudyFile
from stormsweep.errors import DataError, JournalError
from stormsweep.records import Entry, LayoutTried, SessionBegun, TaskDone, WorkerEvent
from stormsweep.results import facts
from stormsweep.results.journal import of_kind, read
from stormsweep.results.progress import progress_of
from stormsweep.scaling.durations import Durations
from stormsweep.scaling.machine import Machine
from stormsweep.scaling.simulation import simulate
from stormsweep.search.plan import Plan, cost, structure
from stormsweep.study.environment import sessions_of

#: Journals looked at, the newest first.
_JOURNALS = 20
#: So many tasks of a batch size say how fast it is; with fewer, those of all sizes are taken.
_ENOUGH = 3
#: The range is that of speeds between these shares of the tasks.
_SLOW, _FAST = 0.1, 0.9


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long the rest of a study will take.

    Attributes
    ----------
    seconds : tuple of float and float, or None
        From, to; None where it cannot be known.
    basis : str
        What that is based on, or why it cannot be known, in one line.
    """

    seconds: tuple[float, float] | None
    basis: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What tasks must have in common to be equally fast.

    Attributes
    ----------
    processor, engine, precision : str
        Name of the processor, engine, precision.
    packing : bool
        Whether convolutions are packed.
    build : str
        Model builder.
    inputs : tuple of str
        Names of the inputs.
    shape : tuple of int
        Of one case; empty in the first journals of 0.1.
    threads : int
        Compute threads of the worker.
    """

    processor: str
    engine: str
    precision: str
    packing: bool
    build: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    threads: int

    def fits(self, other: Kind) -> bool:
        """Whether tasks of one are as fast as those of the other."""
        names = ("processor", "engine", "precision", "packing", "build", "inputs", "threads")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and (self.shape == other.shape or not self.shape or not other.shape)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the tasks of one journal went.

    Attributes
    ----------
    place : Path
        The study's directory.
    runs : set of str
        The runs that this is read from.
    speeds : dict of int to list of float
        For each batch size: `search.plan.cost` per second of training, one value a task.
    beside, compiling : list of float
        Seconds of a task beside training and compiling; those of compiling, where it did.
    starting : list of float
        Seconds from the begin of a session until a worker was ready.
    """

    place: Path
    runs: set[str] = field(default_factory=set)
    speeds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    beside: list[float] = field(default_factory=list)
    compiling: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)


def packs(engine: str, packing: bool) -> bool:
    """Whether an engine packs convolutions where a study says so: only TensorFlow does."""
    return packing and engine == "tensorflow"


def pace_of(
    place: Path, entries: Sequence[Entry], sessions: Mapping[int, Mapping[str, Any]], kind: Kind
) -> Pace:
    """Read from a journal how fast tasks of a kind went.

    Parameters
    ----------
    place : Path
        The study's directory.
    entries : sequence of Entry
        Its journal.
    sessions : mapping of int to mapping
        What ``environment.json`` says of each session.
    kind : Kind
        Which tasks count.
    """
    pace, known, runs = Pace(place), _known(entries), facts.planned_runs(entries)
    threads = {one.session: one.threads_per_worker for one in of_kind(entries, SessionBegun)}

    def counts(session: int, own_threads: int) -> bool:
        said = sessions.get(session, {})
        # The first journals of 0.1 knew TensorFlow only, and packed nothing.
        engine = str(said.get("engine", "tensorflow"))
        return kind.fits(
            Kind(
                str(said.get("processor")),
                engine,
                str(said.get("precision")),
                packs(engine, bool(said.get("packing", False))),
                *known,
                own_threads,
            )
        )

    for task in facts.stretches(entries):
        run = runs.get(task.run)
        train, epochs = task.phases.get("train", 0.0), task.to_epoch - task.start
        ours = counts(task.session, task.threads or threads.get(task.session, 1))
        if run is None or not ours or train <= 0 or not epochs:
            continue
        batch = int(run.hyperparameters["batch_size"])
        pace.runs.add(task.run)
        pace.speeds[batch].append(cost(epochs, task.patches // epochs, batch) / train)
        compiling = task.phases.get("compile", 0.0)
        if compiling > 0:
            # The runs of a bundle share the seconds of one program, which is compiled once.
            pace.compiling.append(compiling * task.bundle)
        if isinstance(task, TaskDone):
            waited = max(0.0, task.started - task.submitted) / task.bundle
            pace.beside.append(max(0.0, task.seconds - train - compiling) + waited)
    pace.starting.extend(_starting(entries, {n for n in threads if counts(n, threads[n])}))
    return pace


def _known(entries: Sequence[Entry]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    about = facts.study(entries)
    return (
        about.model["build"],
        tuple(about.data.get("inputs", ())),
        tuple(about.data.get("input_shape", ())),
    )


def _starting(entries: Sequence[Entry], sessions: set[int]) -> Iterator[float]:
    """Yield how long each worker took until it was ready, trials of layouts left out."""
    begun, tried, seen = 0.0, 0.0, set[str]()
    for entry in entries:
        match entry.record:
            case SessionBegun():
                begun, tried, seen = entry.time, 0.0, set()
            case LayoutTried(seconds=seconds):
                tried = seconds
            case WorkerEvent(event="ready") as who:
                if who.session in sessions and who.worker not in seen:
                    yield max(0.0, entry.time - begun - tried)
                seen.add(who.worker)
            case _:
                pass


def foretell(
    plan: Plan,
    entries: Sequence[Entry],
    patches_per_epoch: Sequence[int],
    workers: int,
    paces: Sequence[Pace],
) -> Forecast:
    """Foretell how long the rest of a study takes.

    Parameters
    ----------
    plan : Plan
        Its runs.
    entries : sequence of Entry
        Its journal so far.
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    workers : int
        Of the layout.
    paces : sequence of Pace
        What earlier journals say, the most telling first.
    """
    before = progress_of(entries)

    if not any(
        before.reached.get(run.id, 0) < run.milestones[-1] and run.id not in before.failed
        for run in plan.runs
    ):
        return Forecast((0.0, 0.0), "nothing is left to train")
    paces = [pace for pace in paces if pace.speeds]
    if not paces:
        return Forecast(None, "no earlier journal of this machine has such tasks")
    sizes = {int(run.hyperparameters["batch_size"]) for run in plan.runs}
    used: dict[Path, Pace] = {}
    speeds: dict[int, list[float]] = {}
    for size in sorted(sizes):
        telling = [pace for pace in paces if len(pace.speeds.get(size, ())) >= _ENOUGH][:1]
        chosen = telling or paces
        own = [pace.speeds[size] for pace in telling] or [
            values for pace in paces for values in pace.speeds.values()
        ]
        speeds[size] = sorted(value for values in own for value in values)
        used |= {pace.place: pace for pace in chosen}
    beside = _median(pace.beside for pace in used.values())
    compiling = _median(pace.compiling for pace in used.values())
    starting = _median(pace.starting for pace in used.values())

    def seconds(share: float) -> float:
        """Simulate the rest, with tasks all as fast as this share of those on record."""
        speed = {size: own[round(share * (len(own) - 1))] for size, own in speeds.items()}
        batches = [int(run.hyperparameters["batch_size"]) for run in plan.runs]
        epochs = [
            cost(1, patches_per_epoch[run.fold], size) / speed[size]
            for run, size in zip(plan.runs, batches, strict=True)
        ]
        count = len(plan.runs)
        known = Durations(
            epoch=epochs,
            before=[beside] * count,
            ending=[0.0] * count,
            compiling=[compiling] * count,
            program=[structure(run) for run in plan.runs],
        )
        return simulate(
            plan,
            patches_per_epoch,
            known,
            Machine.local(workers, 1, start_up=(starting,)),
            reached=before.reached,
            paused=before.paused,
            closed=before.failed,
        ).makespan

    runs = sum(len(pace.runs) for pace in used.values())
    where = str(next(iter(used))) if len(used) == 1 else f"{len(used)} studies"
    basis = f"from {runs} run{'' if runs == 1 else 's'} of {where} on this machine"
    return Forecast((seconds(_FAST), seconds(_SLOW)), basis)


def _median(lists: Iterable[list[float]]) -> float:
    values = [value for values in lists for value in values]
    return statistics.median(values) if values else 0.0


def forecast(file: StudyFile, directory: Path, plan: Plan) -> Forecast:
    """Foretell how long the rest of a study takes on this machine.

    Parameters
    ----------
    file : StudyFile
        The study, with its layout in numbers.
    directory : Path
        Its directory; journals are looked for in it, then in those beside it.
    plan : Plan
        Its runs.
    """
    if file.site.use != LOCAL:
        return Forecast(None, f"this machine's journals say nothing of {file.site.use!r}")
    own = directory / "journal.jsonl"
    entries = read(own) if own.is_file() else []
    about = _own(file, entries)
    if about is None:
        return Forecast(None, "the data are not prepared yet (`stormsweep data prepare`)")
    workers, threads = file.site.layout
    inputs, shape, patches = about
    engine = file.engine
    kind = Kind(
        machine.processor(),
        engine.use,
        engine.precision,
        packs(engine.use, engine.packing),
        file.model.build,
        inputs,
        shape,
        threads,
    )
    found = foretell(plan, entries, patches, workers, list(_paces(directory, kind)))
    if found.seconds is not None:
        return found
    asked = f"{file.model.build} on {engine.use} in {kind.precision} with {threads} thread"
    return Forecast(None, f"{found.basis} ({asked}{'' if threads == 1 else 's'} a worker)")


def _own(
    file: StudyFile, entries: Sequence[Entry]
) -> tuple[tuple[str, ...], tuple[int, ...], list[int]] | None:
    """Return inputs, shape of a case, and patches of each fold, where these are known already."""
    from stormsweep.data.prepared import PreparedData
    from stormsweep.study.problem import prepared_folder
    from stormsweep.study.protocol import fold_rows, protocol_of

    if entries:
        _, inputs, shape = _known(entries)
        sizes = facts.study(entries).fold_sizes
        return inputs, shape, [int(size["epoch_patches"]) for size in sizes]
    folder = prepared_folder(file)
    if not folder.is_dir():
        return None
    try:
        data = PreparedData.open(folder)
        rows = fold_rows(data.part("train"), protocol_of(file))
    except DataError:
        return None
    said = data.summary()
    return tuple(said["inputs"]), tuple(said["input_shape"]), [len(one.train) for one in rows]


def _paces(directory: Path, kind: Kind) -> Iterator[Pace]:
    """Yield what the journals in a folder of studies say, the study's own first."""
    journals = [path for path in directory.parent.glob("*/journal.jsonl") if path.is_file()]
    journals.sort(key=lambda path: (path.parent.name != directory.name, -path.stat().st_mtime))
    for path in journals[:_JOURNALS]:
        try:
            yield pace_of(path.parent, read(path), sessions_of(path.parent), kind)
        except JournalError:
            continue
