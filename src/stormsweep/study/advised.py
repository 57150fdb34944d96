"""Advice made usable: the lines to submit with, and the study file that says the same."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from stormsweep.cluster.jobscript import job_script
from stormsweep.cluster.partitions import clock
from stormsweep.config.load import load_study
from stormsweep.config.sites import LOCAL, Found, Site
from stormsweep.errors import StudyFileError, UserError, typed
from stormsweep.files import write_text
from stormsweep.records import TaskDone
from stormsweep.results.journal import each
from stormsweep.scaling.foretold import Foretold
from stormsweep.search.plan import Plan, structure
from stormsweep.study.chain import Link
from stormsweep.study.foretelling import choose_site
from stormsweep.study.study import Study

if TYPE_CHECKING:
    from stormsweep.study.session import Outcome
    from stormsweep.study.watching import Watcher

#: Stands for the study file of the next study.
NEXT = Path("STUDY.toml")


def command(study: Study, chosen: Foretold, left: bool = True) -> str:
    """Return the line that carries the study out as foretold.

    Parameters
    ----------
    study, chosen : Study, Foretold
        The study, and what is advised.
    left : bool
        Whether anything of the study is left to train; else the line is for the next one like it.
    """
    machine = chosen.machine
    what = study.named() if left else [NEXT]
    if machine.name == LOCAL:
        layout = "--workers", machine.workers, "--threads", machine.threads_per_worker
        return typed("run", *what, "--site", "local", *layout)
    verb = "submit" if machine.chain else "run"
    walltime = _walltime(chosen)
    time = ["--walltime", walltime] if walltime else []
    return typed(verb, *what, "--site", machine.name, "--nodes", machine.nodes, *time)


def _walltime(chosen: Foretold) -> str | None:
    """Return the walltime of what is advised, as Slurm writes it; None: without end."""
    seconds = chosen.machine.walltime
    return None if math.isinf(seconds) else clock(round(seconds))


def site_as_advised(site: Site, chosen: Foretold) -> Site:
    """Return a site with the layout and the walltime that are advised."""
    machine = chosen.machine
    changes = {
        "nodes": machine.nodes,
        "walltime": _walltime(chosen),
        "workers_per_node": machine.workers_per_node,
        "threads_per_worker": machine.threads_per_worker,
    }
    return site.model_copy(update=changes)


def sbatch_lines(study: Study, chosen: Foretold) -> list[str]:
    """Return the ``#SBATCH`` lines of the job that is advised; none where there is no Slurm job."""
    found = choose_site(study, chosen.machine.name)
    if found.name == LOCAL or found.site.scheduler != "slurm":
        return []
    site = site_as_advised(found.site, chosen)
    file = found.file or Path("sites.toml")
    link = Link(
        study.directory.absolute(),
        found.name,
        file.absolute(),
        nodes=site.nodes,
        walltime=site.walltime,
    )
    script = job_script(site, link.order(study.file.study.name, site))
    return [line for line in script.splitlines() if line.startswith("#SBATCH")]


def site_table(study: Study, chosen: Foretold) -> list[str]:
    """Return what must stand in sites.toml before the command, as far as it does not yet.

    Nodes and walltime are not among it: the command says them.
    """
    found = choose_site(study, chosen.machine.name)
    if found.name == LOCAL:
        return []
    lines = [
        f"{key} = {value}"
        for key in ("workers_per_node", "threads_per_worker")
        if (value := getattr(chosen.machine, key)) != getattr(found.site, key)
    ]
    return [f"[site.{found.name}]", *lines] if lines else []


def study_keys(chosen: Foretold) -> dict[str, Any]:
    """Return the keys of ``[site]`` in a study file that say what is advised.

    The layout of a site's node is not among them: it stands in sites.toml, see `site_table`.
    """
    machine = chosen.machine
    keys: dict[str, Any] = {"use": machine.name}
    if machine.name == LOCAL:
        return keys | {
            "workers": machine.workers,
            "threads_per_worker": machine.threads_per_worker,
        }
    keys["nodes"] = machine.nodes
    if (walltime := _walltime(chosen)) is not None:
        keys["walltime"] = walltime
    return keys


def study_table(chosen: Foretold) -> list[str]:
    """Return those keys as they stand in a study file."""
    return [
        "[site]",
        *(f"{key} = {json.dumps(value)}" for key, value in study_keys(chosen).items()),
    ]


def refuse_record(study: Study) -> None:
    """Refuse to write advice into what a study was begun with.

    Raises
    ------
    UserError
        If the study was named by its directory, whose study file is a record.
    """
    if study.is_record:
        raise UserError(
            f"--write: {study.path} is the record of what the study was begun with; name the study "
            "file that you wrote, or follow the command that is printed"
        )


def write(study: Study, chosen: Foretold) -> Path:
    """Write advice into the study file, whose comments stay; return its path.

    Raises
    ------
    UserError
        If the file says by then what no study file may, or is a study's record.
    """
    refuse_record(study)
    path = study.path
    if chosen.machine.name != LOCAL:
        _refuse_other_layout(choose_site(study, chosen.machine.name), chosen)
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    if "site" not in document:
        document.add("site", tomlkit.table())
    table: Any = document["site"]
    for key, value in study_keys(chosen).items():
        # Set in place: the comment behind a value stays.
        table[key] = value
    text = tomlkit.dumps(document)
    before = path.read_text(encoding="utf-8")
    write_text(path, text)
    try:
        load_study(path)
    except StudyFileError:
        write_text(path, before)
        raise
    return path


def _refuse_other_layout(found: Found, chosen: Foretold) -> None:
    """Refuse what a study file cannot say: the layout of a node is the site's."""
    machine, site = chosen.machine, found.site
    if (machine.workers_per_node, machine.threads_per_worker) == (
        site.workers_per_node,
        site.threads_per_worker,
    ):
        return
    raise UserError(
        f"--write: the layout of a node stands in {found.file}: set workers_per_node = "
        f"{machine.workers_per_node} and threads_per_worker = {machine.threads_per_worker} of "
        f"[site.{found.name}] there first"
    )


class _Pilot(Study):
    """A study of which only one run of each structure is trained."""

    def __init__(self, study: Study) -> None:
        self.__dict__.update(study.__dict__)

    def _part(self, plan: Plan) -> Plan:
        whole = super()._part(plan)
        few = {structure(run): run for run in reversed(whole.runs)}
        # In the order of the plan, so that the same runs are taken in every session.
        chosen = tuple(run for run in whole.runs if few[structure(run)] is run)
        return replace(whole, runs=chosen)

    def _whole(self, plan: Plan) -> Plan | None:
        # What a strategy that learns will ask for is not known: only what is trained is on record.
        return None if plan.expected else plan


class _Time:
    """Says when a pilot's time is over.

    Its time runs from when the first tasks can be given out: data, workers and a queue may take
    longer than all of it. And it is not over before a task is done, since there is nothing to
    reckon with then.

    Parameters
    ----------
    seconds : float
        That tasks are given out for.
    done : callable
        Whether a task was done; asked when the time is over.
    clock : callable
        What time it is.
    """

    def __init__(
        self, seconds: float, done: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._done, self._clock = seconds, done, clock
        self._end: float | None = None

    def over(self) -> bool:
        """Tell it; asked again and again from the first task on."""
        if self._end is None:
            self._end = self._clock() + self._seconds
        return self._clock() >= self._end and self._done()


def pilot(study: Study, seconds: float, watcher: Watcher | None = None) -> Outcome:
    """Train one run of each structure for some time: enough to foretell the rest by.

    What is trained counts: the study goes on from there.
    """
    before = _tasks_done(study)
    left = _Time(seconds, lambda: _tasks_done(study) > before)
    return _Pilot(study).run(watcher, leaving=left.over)


def _tasks_done(study: Study) -> int:
    if not study.journal_path.is_file():
        return 0
    return sum(isinstance(entry.record, TaskDone) for entry in each(study.journal_path))


def purpose(left: bool) -> str:
    """Say what following advice is for; `left` is as for `command`."""
    return "To go on with what is left:" if left else "For another study like it:"


def lines(study: Study, chosen: Foretold, left: bool = True) -> Iterator[str]:
    """Yield what to do to follow advice, in its order; `left` is as for `command`."""
    table = site_table(study, chosen)
    if table:
        # No option of the command says these; without them it does something else.
        file = choose_site(study, chosen.machine.name).file or "sites.toml"
        yield f"first set in {file}:"
        yield from (f"  {line}" for line in table)
        yield "then:"
    yield command(study, chosen, left)
    yield from (f"  {line}" for line in sbatch_lines(study, chosen))
