"""Where layouts are measured: this machine or a site, and what is written down of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stormsweep.cluster import machine
from stormsweep.cluster.topology import read_topology
from stormsweep.config.load import differences, load_study
from stormsweep.config.sites import Found
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import JournalError, UserError
from stormsweep.scaling.design import (
    RUNS_EACH,
    Cell,
    Estimate,
    Work,
    cells,
    for_each,
)
from stormsweep.scaling.layouts import PINS, Layout, Node, layouts
from stormsweep.scaling.measured import FILE, FOLDER, over_in, read_site
from stormsweep.scaling.speedups import layout_of
from stormsweep.study.places import Place
from stormsweep.study.study import Study
from stormsweep.work import Run

STUDY = "study.toml"
#: What ``[site] pin`` is for each of `PINS`.
_PIN: dict[str, Any] = {"within": True, "across": "across", "none": False}


@dataclass(frozen=True, slots=True)
class Ground:
    """Where layouts are measured.

    Attributes
    ----------
    whole : Study
        The study.
    site : str
        Name of the site.
    found : Found or None
        The site, whose jobs take as long as the study's; None: this machine.
    node : Node
        What layouts have to fit on.
    """

    whole: Study
    site: str
    found: Found | None
    node: Node

    @classmethod
    def of(cls, study: Study) -> Ground:
        """Return where a study's ``[site]`` says it runs."""
        place, name = study.place(), study.file.site.use
        jax = study.file.engine.use == "jax"
        if place is None:
            gpus = len(machine.gpus_of_jax()) if jax else 0
            sockets = read_topology().nodes(machine.allowed())
            return cls(study, name, None, Node("this machine", machine.cores(), sockets, gpus))
        site = place.found.site
        workers = site.workers_per_node if jax and place.gpus else 0
        node = Node(
            f"a node of site {name}",
            site.cores_per_node or site.cores,
            site.sockets_per_node,
            workers,
            several=True,
        )
        # Nodes are those of a layout, whatever the study asks for.
        given = {key: said for key, said in place.found.given.items() if key != "nodes"}
        return cls(study, name, place.found._replace(given=given), node)

    @property
    def folder(self) -> Path:
        """Where measurements lie."""
        return self.whole.directory / FOLDER / self.site

    @property
    def machine(self) -> str:
        """What is measured, as far as times depend on it."""
        if self.found is not None:
            return f"site {self.site}"
        return f"{self.node.cores} cores of {machine.processor()}"

    def study(
        self, layout: Layout, name: str = "", work: Work | None = None, runs: int = 0
    ) -> Study:
        """Return the study in a layout, with so many runs of the work, in a folder of its own."""
        part = None if work is None else work.part(runs)
        path, folder = self.whole.path, self.folder / (name or layout.name)
        own = Study(self.whole.file, path, folder, measured=part)
        own = own.with_site(pin=_PIN[layout.pin])
        if self.found is None:
            return own.with_site(workers=layout.workers, threads_per_worker=layout.threads)
        site = self.found.site.model_copy(
            update={
                "workers_per_node": layout.workers // layout.nodes,
                "threads_per_worker": layout.threads,
                "nodes": layout.nodes,
            }
        )
        return own.at(Place(self.found._replace(site=site), (layout.nodes, layout.nodes)))

    def kept(self) -> dict[str, Any] | None:
        """Return what ``scale.json`` says; None where nothing was measured yet.

        Raises
        ------
        JournalError
            If the study file, or the machine, is not that of the measurements there.
        """
        folder = self.folder
        if not (folder / FILE).is_file():
            return None
        about = read_site(folder).about
        anew = f"remove {folder} to measure anew"
        changes = differences(load_study(folder / STUDY), self.whole.file)
        if changes:
            raise JournalError(
                f"{self.whole.path}: {'; '.join(changes)}: since layouts were measured; undo the "
                f"change, or {anew}"
            )
        if about["machine"] != self.machine:
            raise JournalError(
                f"{folder}: was measured on {about['machine']}, and this is {self.machine}; "
                f"measure there, or {anew}"
            )
        return about

    def described(self, work: Work, estimate: Estimate, data: PreparedData) -> dict[str, Any]:
        """Return what ``scale.json`` says from now on, without any measurements."""
        file, known = self.whole.file, data.summary()
        return {
            "study": file.study.name,
            "seed": file.study.seed,
            "metric": file.search.metric,
            "engine": file.engine.use,
            "synthetic": bool(known["synthetic"]),
            "source": str(known["source"]),
            "fingerprint": data.fingerprint,
            "site": self.site,
            "machine": self.machine,
            "node": self.node.what,
            "cores": self.node.cores,
            "sockets": self.node.sockets,
            "runs": {run.id: list(run.milestones) for run in work.runs},
            "weak": work.weak,
            "why": work.why,
            "estimate": {
                "epoch": {name: round(seconds, 4) for name, seconds in estimate.epoch.items()},
                "program": round(estimate.program, 3),
                "starting": round(estimate.starting, 3),
            },
            "left_out": [],
            "cells": {},
        }


def asked(
    node: Node,
    workers: Sequence[int],
    threads: Sequence[int],
    pins: Sequence[str],
    nodes: Sequence[int],
    runs: int | None = None,
) -> tuple[list[Layout], list[str]]:
    """Return the layouts that are measured, and what is left out; see `scale`.

    Parameters
    ----------
    node : Node
        What layouts have to fit on.
    workers, threads, pins, nodes
        What is asked for.
    runs : int, optional
        Of the study: without numbers of workers, there are no more than that.

    Raises
    ------
    UserError
        If numbers are none, or too large.
    """
    for option, given in (("workers", workers), ("threads", threads), ("nodes", nodes)):
        wrong = [number for number in given if number < 1]
        if wrong:
            raise UserError(f"--{option}: given {wrong[0]}; must be numbers from 1")
    if nodes and workers:
        raise UserError("--nodes: given beside --workers; a layout has one or the other")
    if nodes and not node.several:
        raise UserError("--nodes: is for sites of a cluster; on this machine use --workers")
    unknown = [pin for pin in pins if pin not in PINS]
    if unknown:
        raise UserError(f"--pin: given {unknown[0]!r}; must be any of {', '.join(PINS)}")
    counts = list(dict.fromkeys(workers))
    if not counts:
        most = node.holds(min(threads, default=1))
        most = most if runs is None else min(most, runs)
        counts = sorted({*(1 << power for power in range(most.bit_length())), most} - {0})
    each = list(dict.fromkeys(threads)) or [1]
    return layouts(counts, each, list(dict.fromkeys(pins)), node, list(dict.fromkeys(nodes)))


def named(wanted: Sequence[Layout], workers: Sequence[int], nodes: Sequence[int]) -> str:
    """Return the option that the widest layout comes from, and what it was given.

    Examples
    --------
    >>> named([Layout(8, 1)], [8], []), named([Layout(8, 1)], [], [])
    ('--workers: given 8', '--workers: 8 unless given')
    >>> named([Layout(72, 1, 2)], [], [2])
    '--nodes: given 2, which hold 72 workers'
    """
    widest = max(wanted, key=lambda layout: layout.workers)
    if nodes:
        return f"--nodes: given {widest.nodes}, which hold {widest.workers} workers"
    return (
        f"--workers: given {widest.workers}"
        if workers
        else (f"--workers: {widest.workers} unless given")
    )


def with_cells(
    about: Mapping[str, Any],
    runs: Sequence[Run],
    wanted: Sequence[Layout],
    repeats: int,
    weak: bool,
    left_out: Sequence[str],
    folder: Path,
    option: str = "",
) -> dict[str, Any]:
    """Return what ``scale.json`` says with the measurements that are asked for, and those made.

    Parameters
    ----------
    about : mapping
        What it said.
    runs : sequence of Run
        Of the whole study.
    wanted, repeats, weak, left_out
        What is asked for, see `stormsweep.study.scale.scale`.
    folder : Path
        Where measurements lie.
    option : str, optional
        Where the widest layout comes from, see `named`.

    Raises
    ------
    UserError
        If the runs that measurements began with are too few for what is asked.
    """
    work = work_of(about, runs)
    widest, count = max(layout.workers for layout in wanted), len(work.runs)
    option = option or f"--workers: given {widest}"
    if count < min(RUNS_EACH * widest, len(runs)):
        raise UserError(
            f"{option}; {folder} was begun with {count} of {len(runs)} runs, too "
            f"few for so many; remove it to measure anew"
        )
    if weak and not work.weak:
        sizes = len({run.hyperparameters["batch_size"] for run in runs})
        work = replace(work, weak=for_each(count, widest, sizes))
    if not weak:
        asked_for = cells(replace(work, weak=0), wanted, repeats, _seed(about))
    elif work.weak * widest > count:
        raise UserError(
            f"{option}; {folder} was begun with {work.weak} runs for each worker, "
            f"and has {count}; remove it to measure anew"
        )
    else:
        asked_for = cells(work, wanted, repeats, _seed(about))
    made_before = {name: row for name, row in about["cells"].items() if over_in(folder / name)}
    rows = {
        one.name: asdict(one.layout) | {"runs": one.runs, "repeat": one.repeat} for one in asked_for
    }
    return {
        **about,
        "weak": work.weak,
        "left_out": list(left_out),
        "cells": {**rows, **made_before},
    }


def _seed(about: Mapping[str, Any]) -> int:
    return int(about["seed"])


def work_of(about: Mapping[str, Any], runs: Sequence[Run]) -> Work:
    """Return the work that ``scale.json`` tells of."""
    known = {run.id: run for run in runs}
    chosen = (
        replace(known[name], milestones=tuple(stops)) for name, stops in about["runs"].items()
    )
    return Work(tuple(chosen), int(about["weak"]), str(about["why"]))


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return a measurement that ``scale.json`` tells of."""
    return Cell(layout_of(row), int(row["runs"]), int(row["repeat"]))


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; take it away again where nothing came to be measured in it."""
    absolute = folder.absolute()
    missing = [part for part in (absolute, *absolute.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if missing and not (folder / FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                for parent in missing[1:]:
                    parent.rmdir()
