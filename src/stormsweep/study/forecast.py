"""How long a study will take, from the journals of earlier ones on machines of the same kind.

What training takes is fitted (`scaling.runtime`) to journals of the same site, processor, engine,
devices, precision, model, input shape and number of threads. A simulation then gives the tasks that
are left to as many workers as the layout has, again and again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stormsweep.cluster import machine
from stormsweep.config.sites import LOCAL
from stormsweep.config.study import StudyFile
from stormsweep.errors import JournalError
from stormsweep.records import Entry, SessionBegun
from stormsweep.results import facts
from stormsweep.results.journal import of_kind, read
from stormsweep.results.progress import progress_of
from stormsweep.scaling import runtime
from stormsweep.scaling.beside import Around, around, durations, parameters_of
from stormsweep.scaling.foretold import foretell as simulated
from stormsweep.scaling.machine import Machine
from stormsweep.search.plan import Plan
from stormsweep.study.environment import devices_here, sessions_of, takes_any_batch
from stormsweep.study.foretelling import uncertainty
from stormsweep.study.remaining import runs_left
from stormsweep.study.unprepared import NOT_PREPARED
from stormsweep.wording import counted

if TYPE_CHECKING:
    from stormsweep.study.problem import Ready

#: Journals looked at, the newest first.
_JOURNALS = 20
#: So many tasks of a batch size say how fast it is; with fewer, other journals are taken too.
_ENOUGH = 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long the rest of a study will take.

    Attributes
    ----------
    seconds : tuple of float and float, or None
        From, to; None where it cannot be known.
    basis : str
        What that is based on, or why it cannot be known, in one line.
    note : str
        What else there is to know of it, in one line; empty: nothing.
    """

    seconds: tuple[float, float] | None
    basis: str
    note: str = ""


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
        Of one case; empty in journals of early development versions.
    threads : int
        Compute threads of the worker.
    site : str
        Where the workers ran; ``local`` is this machine.
    model : str
        SHA-256 of the builder's code; empty: not known.
    devices : tuple of str
        What computes; empty where that is simply the processor, and where it is not known.
    """

    processor: str
    engine: str
    precision: str
    packing: bool
    build: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    threads: int
    site: str = LOCAL
    model: str = ""
    devices: tuple[str, ...] = ()

    def fits(self, other: Kind) -> bool:
        """Whether tasks of one are as fast as those of the other."""
        alike = ("site", "processor", "engine", "precision", "packing", "build", "inputs")
        names = (*alike, "threads")
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        known = ("shape", "model", "devices")
        pairs = [(getattr(self, name), getattr(other, name)) for name in known]
        return same and all(ours == theirs or not ours or not theirs for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Pace:
    """What one journal says of tasks of a kind.

    Attributes
    ----------
    place : Path
        The study's directory.
    observed : DataFrame
        From `scaling.runtime.observations`: one row a stretch of training.
    around : Around
        Start-up, and what is between tasks.
    parameters : dict of str to int
        Trainable parameters by structure.
    """

    place: Path
    observed: pd.DataFrame
    around: Around
    parameters: dict[str, int]

    @property
    def sizes(self) -> set[int]:
        """The batch sizes of which it tells enough."""
        sizes, counts = np.unique(self.observed["batch_size"], return_counts=True)
        return {int(size) for size in sizes[counts >= _ENOUGH]}


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
    known, model = _known(entries), facts.study(entries).model.get("sha256", "")
    sites = {one.session: one.site for one in of_kind(entries, SessionBegun)}

    def counts(session: int, own_threads: int) -> bool:
        said = sessions.get(session, {})
        # Journals of early development versions knew TensorFlow only, and packed nothing.
        engine = str(said.get("engine", "tensorflow"))
        return kind.fits(
            Kind(
                str(said.get("processor")),
                engine,
                str(said.get("precision")),
                packs(engine, bool(said.get("packing", False))),
                *known,
                own_threads,
                # What says nothing of a site is of a machine alone.
                sites.get(session) or LOCAL,
                model,
                tuple(said.get("devices", ())),
            )
        )

    table = runtime.observations(entries, sessions, str(place))
    ours = [
        counts(session, threads)
        for session, threads in zip(table["session"], table["threads"], strict=True)
    ]
    table = table[np.array(ours, bool)].assign(kind="of this machine")
    return Pace(place, table, around(entries), parameters_of(entries))


def _known(entries: Sequence[Entry]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    about = facts.study(entries)
    return (
        about.model["build"],
        tuple(about.data.get("inputs", ())),
        tuple(about.data.get("input_shape", ())),
    )


def foretell(
    plan: Plan,
    entries: Sequence[Entry],
    patches_per_epoch: Sequence[int],
    layout: tuple[int, int],
    paces: Sequence[Pace],
    *,
    any_batch: bool,
    place: Path | None = None,
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
    layout : tuple of int
        Workers, and threads of each.
    paces : sequence of Pace
        What earlier journals say, the most telling first.
    any_batch : bool
        Whether a compiled program takes batches of any size.
    place : Path, optional
        The study's directory: what is said of others names them.
    """
    before = progress_of(entries)
    if not runs_left(plan.runs, before):
        return Forecast((0.0, 0.0), "nothing is left to train")
    paces = [pace for pace in paces if len(pace.observed)]
    if not paces:
        return Forecast(None, "no earlier journal of this kind of machine has such tasks")
    used: dict[Path, Pace] = {}
    for size in sorted({int(run.hyperparameters["batch_size"]) for run in plan.runs}):
        telling = [pace for pace in paces if size in pace.sizes][:1]
        used |= {pace.place: pace for pace in telling or paces}
    table = pd.concat([pace.observed for pace in used.values()], ignore_index=True)
    model, first, (workers, threads) = runtime.fit(table), next(iter(used.values())), layout
    # Runs are simulated one by one, each with its share of a bundle as large as they were.
    bundle = round(model.usual["bundle"])
    known = durations(
        plan,
        patches_per_epoch,
        model,
        first.around,
        threads=threads,
        workers=workers,
        parameters={
            name: count
            for pace in reversed(used.values())
            for name, count in pace.parameters.items()
        },
        any_batch=any_batch,
        bundle=bundle,
        common=math.hypot(uncertainty(table), model.doubt(workers=workers, threads=threads)),
    )
    found = simulated(
        plan,
        patches_per_epoch,
        replace(known, working=known.working.divided(bundle)),
        Machine.local(workers, threads, start_up=first.around.start_up),
        reached=before.reached,
        paused=before.paused,
        closed=before.failed,
    )
    runs = len(table[["study", "run"]].drop_duplicates())
    where = str(first.place) if len(used) == 1 else f"{len(used)} studies"
    basis = f"from {counted(runs, 'run')} of {where} on this kind of machine"
    # Among several, its own is named too.
    note = model.scatter.note(str(place) if len(used) == 1 else "")
    return Forecast((found.makespan.low, found.makespan.high), basis, note)


def forecast(
    file: StudyFile,
    directory: Path,
    plan: Plan,
    entries: Sequence[Entry],
    ready: Ready | str = NOT_PREPARED,
    model: str = "",
) -> Forecast:
    """Foretell how long the rest of a study takes on this machine.

    Parameters
    ----------
    file : StudyFile
        The study, with its layout in numbers.
    directory : Path
        Its directory; journals are looked for in it, then in those beside it.
    plan : Plan
        Its runs.
    entries : sequence of Entry
        Its journal so far.
    ready : Ready or str
        Its data, which are needed before there is a journal; or why there are none yet.
    model : str
        SHA-256 of the builder's code as it is now: how fast another one was says nothing. Empty:
        not known.
    """
    if file.site.use != LOCAL:
        return Forecast(None, f"this machine's journals say nothing of {file.site.use!r}")
    about = _own(file, entries, ready)
    if about is None:
        return Forecast(None, str(ready))
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
        model=model,
        devices=devices_here(file),
    )
    paces = _paces(directory, entries, kind)
    found = foretell(
        plan,
        entries,
        patches,
        (workers, threads),
        list(paces),
        any_batch=takes_any_batch(file),
        # As it is called among those of its folder.
        place=directory.parent / directory.name,
    )
    if found.seconds is not None:
        return found
    devices = "".join(f" on {device}" for device in kind.devices)
    asked = f"this version of {file.model.build} on {engine.use}{devices} in {kind.precision}"
    each = f"with {counted(threads, 'thread')} a worker"
    return Forecast(None, f"{found.basis} ({asked} {each})")


def _own(
    file: StudyFile, entries: Sequence[Entry], ready: Ready | str
) -> tuple[tuple[str, ...], tuple[int, ...], list[int]] | None:
    """Return inputs, shape of a case, and patches of each fold, where these are known already."""
    if entries:
        _, inputs, shape = _known(entries)
        return inputs, shape, facts.epoch_patches(entries, file.validation.total)
    if isinstance(ready, str):
        return None
    said = ready.data.summary()
    return (
        tuple(said["inputs"]),
        tuple(said["input_shape"]),
        [len(one.train) for one in ready.folds],
    )


def _paces(directory: Path, entries: Sequence[Entry], kind: Kind) -> Iterator[Pace]:
    """Yield what the journals in a folder of studies say, the study's own first."""
    journals = [path for path in directory.parent.glob("*/journal.jsonl") if path.is_file()]
    journals.sort(key=lambda path: (path.parent.name != directory.name, -path.stat().st_mtime))
    for path in journals[:_JOURNALS]:
        try:
            there = entries if path.parent.name == directory.name else read(path)
            yield pace_of(path.parent, there, sessions_of(path.parent), kind)
        except JournalError:
            continue
