"""Losing this: what one site does is foretold of another, and nobody is told."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stormsweep import Study
from stormsweep.cli.foretell import simulate
from stormsweep.config.sites import Found, Site
from stormsweep.errors import UserError
from stormsweep.records import Entry, NodeEvent, SessionBegun, SessionEnded, WorkerEvent
from stormsweep.scaling import runtime
from stormsweep.scaling.beside import around
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.study import advised, foretelling
from stormsweep.study.foretelling import Outlook, uncertainty
from tests.journals import plan, task
from tests.journals import simulate as write_study

SPACE = {"batch_size": [128, 512], "learning_rate": [0.001, 0.005], "epochs": [5, 10]}


def study_in(folder: Path, more: str = "") -> Study:
    """Return a study with a whole journal of this machine."""
    directory = folder / "runs" / "taki-2019"
    sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
    write_study(directory, SPACE, fold_sizes=sizes)
    space = "".join(f"{name} = {json.dumps(values)}\n" for name, values in SPACE.items())
    file = directory / "study.toml"
    file.write_text(f"{file.read_text()}\n[search.space]\n{space}{more}")
    return Study.from_toml(directory)


def begun(number: int, site: str) -> SessionBegun:
    return SessionBegun(number, "host", 1, site, 1, 1)


def test_the_queue_of_a_site_is_foretold_of_that_site_alone() -> None:
    records: list[Any] = [
        (0.0, begun(1, "slow")),
        (0.0, NodeEvent(1, "1", "asked")),
        (3600.0, NodeEvent(1, "1", "granted")),
        (3660.0, WorkerEvent(1, "w-1-0", "ready", "n", 1)),
        (9000.0, begun(2, "quick")),
        (9000.0, NodeEvent(2, "1", "asked")),
        (9005.0, NodeEvent(2, "1", "granted")),
        (9010.0, WorkerEvent(2, "w-1-0", "ready", "n", 1)),
    ]
    known = around([Entry(when, record) for when, record in records])
    assert known.waits == {"slow": Wait(3600.0), "quick": Wait(5.0)}
    assert known.starts == {"slow": (60.0,), "quick": (5.0,)}


def test_a_submitted_job_waited_and_not_the_steps_that_it_was_granted_at_once() -> None:
    """Four nodes without a wait would hide three that waited an hour."""
    job = {"scheduler": "slurm", "nodes": 2, "inside": True, "held_seconds": 20.0}
    waited = dataclasses.replace(begun(1, "big"), allotment=job | {"queued_seconds": 10_800.0})
    records: list[Any] = [(100.0, waited)]
    for node in ("1", "2"):
        records += [(110.0, NodeEvent(1, node, "asked")), (110.0, NodeEvent(1, node, "granted"))]
        records.append((118.0, WorkerEvent(1, f"w-{node}-0", "ready", "n", 1)))
    # One that failed has another in its place, for which nobody waited either.
    records += [(500.0, NodeEvent(1, "3", "asked")), (500.0, NodeEvent(1, "3", "granted"))]
    records.append((506.0, WorkerEvent(1, "w-3-0", "ready", "n", 1)))
    # An older journal does not say how long the job waited.
    records.append((9000.0, dataclasses.replace(begun(2, "big"), allotment=job)))
    records += [(9001.0, NodeEvent(2, "1", "asked")), (9001.0, NodeEvent(2, "1", "granted"))]
    known = around([Entry(when, record) for when, record in records])
    assert known.waits == {"big": Wait(10_800.0)}
    # From the begin of the job, 20 s before its driver's session.
    assert known.starts == {"big": (38.0, 38.0, 6.0)}
    unknown = around([Entry(when, record) for when, record in records if when >= 9000])
    assert unknown.waits == {}


@pytest.mark.parametrize(
    ("start", "seconds", "each"),
    [(4.0, 20.0, 0.01), (0.0, 20.0, 0.002), (4.0, 2000.0, 0.002)],
)
def test_a_busy_drivers_cost_is_its_tasks_without_its_start(
    start: float, seconds: float, each: float
) -> None:
    run = plan([{"batch_size": 128}], 1, [5])[0]
    # Between two tasks of a worker there is far more than the driver's part.
    tasks = [task(run, 0, 5, started=100.0 * n) for n in range(1000)]
    opened = dataclasses.replace(begun(1, "local"), opened=1.0, driver_seconds=start)
    records: list[Any] = [(0.0, opened), *((1.0, one) for one in tasks)]
    records.append((1.0 + seconds, SessionEnded(1, "done", start + 10.0)))
    known = around([Entry(when, record) for when, record in records])
    assert known.driver == pytest.approx(each)


def test_a_clusters_journal_taken_home_is_said_to_be_of_other_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    entries = [
        dataclasses.replace(one, record=dataclasses.replace(one.record, site="taki"))
        if isinstance(one.record, SessionBegun)
        else one
        for one in study.entries()
    ]
    monkeypatch.setattr(study, "entries", lambda: entries)
    outlook = Outlook(study)
    home = outlook.beyond(Machine.local(2, 1))
    assert any("timings are of taki" in note and "local" in note for note in home)
    there = outlook.beyond(Machine("taki", workers_per_node=2, wait=Wait(1.0)))
    assert not any("timings are of" in note for note in there)


def test_models_that_were_never_trained_are_named(tmp_path: Path) -> None:
    study = study_in(tmp_path, more="filters = [8, 16]\n")
    assert any("models" in note for note in Outlook(study).beyond(Machine.local(2, 1)))
    plain = study_in(tmp_path / "plain")
    assert not any("models" in note for note in Outlook(plain).beyond(Machine.local(2, 1)))


def test_a_median_error_is_two_thirds_of_a_standard_deviation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = runtime.Checked(0.1, 0.2, 0.0, pd.DataFrame())
    monkeypatch.setattr(runtime, "check", lambda _: checked)
    assert uncertainty(None) == pytest.approx(0.148, abs=0.001)


def site(folder: Path, **values: Any) -> Found:
    return Found("mine", Site.model_validate({"scheduler": "slurm", **values}), folder / "s.toml")


def test_no_more_workers_than_gpus_come_of_fewer_threads(tmp_path: Path) -> None:
    outlook = Outlook(study_in(tmp_path))
    known = {"cores_per_node": 64, "workers_per_node": 4, "threads_per_worker": 16}
    assert outlook.on(site(tmp_path, **known), threads=2).workers_per_node == 32
    gpus = site(tmp_path, **known, gres="gpu:4")
    assert outlook.on(gpus, threads=2).workers_per_node == 4


def test_what_the_command_cannot_say_is_set_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path / "my studies")
    sites = tmp_path / "my studies" / "sites.toml"
    keys = 'scheduler = "slurm"\nwalltime = "01:00:00"\ncores_per_node = 8\n'
    sites.write_text(f"[site.mine]\n{keys}workers_per_node = 4\nthreads_per_worker = 1\n")
    monkeypatch.chdir(sites.parent)
    outlook = Outlook(study)
    found = foretelling.choose_site(study, "mine")
    other = list(advised.lines(study, outlook.foretell(outlook.on(found, 2, threads=2), 2)))
    assert other[0].startswith("first set in ")
    command = next(n for n, line in enumerate(other) if line.startswith("stormsweep submit"))
    assert other.index("  threads_per_worker = 2") < other.index("then:") < command
    assert shlex.split(other[command])[2] == str(study.directory)


def test_advice_never_edits_the_record_of_a_study(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    before = study.path.read_text()
    with pytest.raises(UserError, match="is the record of what the study was begun with"):
        advised.refuse_record(study)
    outlook = Outlook(study)
    chosen = outlook.foretell(outlook.local(1, 1), 1)
    with pytest.raises(UserError, match="is the record"):
        advised.write(study, chosen)
    assert study.path.read_text() == before


def test_a_pilots_time_runs_from_its_first_task_until_one_is_done() -> None:
    now, done = [1000.0], [False]
    left = advised._Time(60.0, lambda: done[0], lambda: now[0])
    now[0] = 5000.0
    done[0] = True
    assert not left.over(), "data and workers took longer than the pilot"
    now[0], done[0] = 5061.0, False
    assert not left.over(), "nothing to reckon with"
    done[0] = True
    assert left.over()


def test_a_picture_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("x.gif", "nowhere/x.png"):
        with pytest.raises(UserError, match="--timeline: given"):
            simulate(tmp_path / "none.toml", timeline=tmp_path / name)
