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
from stormsweep.cluster.partitions import clock
from stormsweep.config.load import load_study
from stormsweep.config.sites import Found, Site
from stormsweep.errors import UserError
from stormsweep.records import Entry, NodeEvent, SessionBegun, SessionEnded, TaskDone, WorkerEvent
from stormsweep.results import frames, journal
from stormsweep.results.journal import of_kind
from stormsweep.scaling import measured, runtime
from stormsweep.scaling.accounts import account
from stormsweep.scaling.beside import around
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.study import advised, foretelling, machines
from stormsweep.study.foretelling import Outlook, uncertainty
from tests.journals import carried_out, plan, task
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


@pytest.mark.parametrize("strategy", ["asha", "halving", "hyperband"])
def test_a_strategy_that_begins_on_some_folds_is_foretold_whole(
    tmp_path: Path, strategy: str
) -> None:
    """Losing this: which trials go on to the other folds is chance, and no run is ready for it."""
    file, directory = tmp_path / "mine.toml", tmp_path / "runs" / "some"
    directory.mkdir(parents=True)
    text = (
        '[study]\nname = "some"\n[data]\nsource = "twin"\n'
        f'[search]\nstrategy = "{strategy}"\nfirst_folds = 1\ntrials = 9\n[search.space]\n'
        "batch_size = [16, 32, 64]\nlearning_rate = {low = 0.001, high = 0.1, log = true}\n"
        "epochs = [1, 3, 9]\n"
    )
    for path in (file, directory / "study.toml"):
        path.write_text(text)
    entries = carried_out(Study.from_toml(file).file)
    with journal.JournalWriter(directory / "journal.jsonl") as out:
        out.write(entries)
    outlook = Outlook(Study.from_toml(directory))
    found = outlook.foretell(Machine(workers_per_node=2, cores_per_node=2))
    assert found.finishes
    trained = {entry.record.run for entry in entries if isinstance(entry.record, TaskDone)}
    # Other scores, other runs; never all of them on all folds.
    assert 0.5 * len(trained) < found.runs < 27
    assert of_kind(outlook.journal(Machine()), TaskDone)


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


def test_data_that_the_first_job_prepared_are_no_start_up() -> None:
    """Losing this: each simulated worker of all later jobs begins forty minutes late."""
    job = {"scheduler": "slurm", "nodes": 1, "inside": True, "held_seconds": 2420.0}
    first = dataclasses.replace(begun(1, "big"), allotment=job | {"prepared_seconds": 2400.0})
    records: list[Any] = [(2420.0, first)]
    records += [(2421.0, NodeEvent(1, "1", event)) for event in ("asked", "granted")]
    records.append((2428.0, WorkerEvent(1, "w-1-0", "ready", "n", 1)))
    known = around([Entry(when, record) for when, record in records])
    assert known.starts == {"big": (28.0,)}


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
    assert outlook.machines.on(site(tmp_path, **known), threads=2).workers_per_node == 32
    gpus = site(tmp_path, **known, gres="gpu:4")
    assert outlook.machines.on(gpus, threads=2).workers_per_node == 4


def test_this_machine_has_no_more_workers_than_its_executor_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: sixteen workers are advised, fifteen times as fast, and one is started."""
    monkeypatch.setattr(machines.this_machine, "cores", lambda: 16)
    monkeypatch.setattr(machines.this_machine, "memory_gb", lambda: 64.0)
    here = Found("local", Site(scheduler="local"), None)
    study = study_in(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    def most(of: Study) -> int:
        (family, *_) = Outlook(of).machines.families([here], None)
        return max(machine.workers for machine in family)

    assert most(study) == 16, "only JAX trains on GPUs"
    text = study.path.read_text()
    study.path.write_text(text + "\n[site]\nmemory_gb = 10.0\n")
    assert most(Study.from_toml(study.directory)) == 5, "of 10 GiB each in 9 tenths of 64"
    study.path.write_text(text + '\n[engine]\nuse = "jax"\n')
    outlook = Outlook(Study.from_toml(study.directory))
    assert most(Study.from_toml(study.directory)) == 2
    assert [outlook.machines.local(count, 1).gpus_per_node for count in (1, 2)] == [1, 2]
    told = outlook.foretell(outlook.machines.local(2, 1), 2)
    assert told.gpu_hours.median > 0
    with pytest.raises(UserError, match=r"--workers: given 3; each has a GPU to itself, .* has 2"):
        outlook.machines.local(3, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert most(Study.from_toml(study.directory)) == 16


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
    other = list(
        advised.lines(study, outlook.foretell(outlook.machines.on(found, 2, threads=2), 2))
    )
    assert other[0].startswith("first set in ")
    command = next(n for n, line in enumerate(other) if line.startswith("stormsweep submit"))
    assert other.index("  threads_per_worker = 2") < other.index("then:") < command
    assert shlex.split(other[command])[2] == str(study.directory)


def test_advice_leaves_the_walltime_of_a_site_to_all_its_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: a short study's walltime is the limit of all that is foretold afterwards."""
    study = study_in(tmp_path / "runs")
    sites = tmp_path / "sites.toml"
    keys = 'scheduler = "slurm"\ncores_per_node = 4\nworkers_per_node = 4\n'
    sites.write_text(f'[site.mine]\n{keys}walltime = "4:00:00"\n')
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.toml"
    own.write_text(study.path.read_text() + '\n[site]\nuse = "mine"\n')
    study = Study(load_study(own), own, study.directory)
    outlook = Outlook(study)
    found = foretelling.advise(study, outlook, ["mine"], repeats=2, most_nodes=2)
    assert found.chosen.machine.walltime == 4 * 3600
    asked = clock(round(found.asked.machine.walltime))
    assert found.asked.machine.walltime < 4 * 3600
    lines = list(advised.lines(study, found.asked))
    assert lines[0].endswith(f"--site mine --nodes {found.asked.machine.nodes} --walltime {asked}")
    assert f"  #SBATCH --time={asked}" in lines
    # As text it is another than what the site says, and the same time.
    assert not advised.site_table(study, outlook.foretell(found.chosen.machine, 1))
    before = sites.read_text()
    advised.write(study, found.asked)
    assert sites.read_text() == before
    written = Study(load_study(own), own, study.directory)
    assert written.file.site.walltime == asked
    # From now on the study's jobs are foretold to be as long as they will be, and it is said.
    later = Outlook(written)
    machine = later.machines.on(foretelling.choose_site(written, "mine"), 1)
    assert machine.walltime == found.asked.machine.walltime
    assert any(f"{asked} at most, as the study file says" in one for one in later.beyond(machine))


def test_a_site_without_walltime_is_not_silently_taken_to_have_no_end(tmp_path: Path) -> None:
    outlook = Outlook(study_in(tmp_path))
    endless = outlook.machines.on(site(tmp_path, workers_per_node=4), 1)
    assert any("what its partition lets jobs take" in note for note in outlook.beyond(endless))
    known = outlook.machines.on(site(tmp_path, workers_per_node=4, walltime="04:00:00"), 1)
    assert not any("partition" in note for note in outlook.beyond(known))


NODES = """
batch*|up|2:00:00|1-infinite|n1|8|16000|idle|(null)|(null)
batch*|up|2:00:00|1-infinite|n2|8|16000|down|(null)|(null)
batch*|up|2:00:00|1-infinite|n3|8|16000|idle|(null)|(null)
batch*|up|2:00:00|1-infinite|n4|2|16000|idle|(null)|(null)
"""


def slurm_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sinfo: str, sbatch: str = "exit 1"
) -> None:
    told = {"sinfo": sinfo, "sbatch": sbatch}
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{told.get(name, 'exit 1')}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_advice_names_no_nodes_and_no_time_that_the_partition_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the command that is printed is refused."""
    outlook = Outlook(study_in(tmp_path))
    mine = site(tmp_path, partition="batch", workers_per_node=4)
    slurm_says(tmp_path, monkeypatch, f"cat <<'end'\n{NODES}end")
    for asked in (None, 9):
        (family,) = outlook.machines.families([mine], asked)
        # One is too small; one that is down comes back.
        assert [machine.nodes for machine in family] == [1, 2, 3]
        assert {machine.walltime for machine in family} == {7200.0}
        notes = [
            note for note in outlook.beyond(family[0]) if "here" in note or "partition" in note
        ]
        # It may be the partition of another cluster.
        limits = "have 3 nodes and take 02:00:00"
        assert notes == [f"partition 'batch' lets a job {limits} at most here"]
    roomy = site(tmp_path, partition="batch", workers_per_node=4, walltime="01:00:00")
    (family,) = outlook.machines.families([roomy], 2)
    assert not any("partition" in note for note in outlook.beyond(family[0]))


def test_it_is_said_whose_limit_on_the_time_of_jobs_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: advice for jobs of two hours that are said to be of three."""
    study = study_in(tmp_path, more='[site]\nwalltime = "03:00:00"\n')
    outlook = Outlook(study)
    mine = site(tmp_path, partition="batch", workers_per_node=4)
    slurm_says(tmp_path, monkeypatch, f"cat <<'end'\n{NODES}end")
    ((machine, *_),) = outlook.machines.families([mine], 2)
    longer = outlook.machines.on(mine, 1)
    assert (machine.walltime, longer.walltime) == (2 * 3600, 3 * 3600)
    said = "jobs are to take 03:00:00 at most, as the study file says (site.walltime)"
    of_partition = "partition 'batch' lets a job take 02:00:00 at most here"
    notes = outlook.beyond(machine)
    assert (said in notes, of_partition in notes) == (False, True)
    notes = outlook.beyond(longer)
    assert (said in notes, of_partition in notes) == (True, False)


@pytest.mark.parametrize(
    ("qos", "takes", "nodes", "walltime"),
    [
        ("long", True, [1, 2, 3], 5 * 3600),
        ("long", False, [1, 2], 2 * 3600),
        (None, True, [1, 2], 2 * 3600),
    ],
)
def test_advice_uses_what_a_qos_lifts_of_the_partitions_limits_if_sbatch_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qos: str | None,
    takes: bool,
    nodes: list[int],
    walltime: int,
) -> None:
    """Losing this: jobs of two hours are advised to who has a QOS, and a site, for five."""
    outlook = Outlook(study_in(tmp_path))
    own = {"walltime": "05:00:00", "nodes": 3, "workers_per_node": 4, "qos": qos}
    mine = site(tmp_path, partition="batch", **own)
    few = NODES.replace("1-infinite", "1-2")
    said = "sbatch: Job 5 to start at 2026-05-01T10:00:00 using 12 processors on nodes n[1-3]"
    refused = "sbatch: error: allocation failure: Requested time limit is invalid"
    answer = f'echo "{said if takes else refused}" >&2; exit {int(not takes)}'
    slurm_says(tmp_path, monkeypatch, f"cat <<'end'\n{few}end", answer)
    (family,) = outlook.machines.families([mine], None)
    assert [machine.nodes for machine in family] == nodes
    assert {machine.walltime for machine in family} == {walltime}
    # What the site does not ask for itself is not asked for: that a QOS lifts it nobody said.
    modest = site(tmp_path, partition="batch", **(own | {"nodes": 1, "walltime": "01:00:00"}))
    (family,) = outlook.machines.families([modest], None)
    assert [machine.nodes for machine in family] == [1, 2]


@pytest.mark.parametrize("sinfo", ["exit 1", "echo 'x*|up|1:00|1|n1|8|16000|idle|(null)|(null)'"])
def test_where_nobody_says_how_many_nodes_there_are_a_note_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sinfo: str
) -> None:
    """A study may be foretold on a cluster that one is not logged in to."""
    outlook = Outlook(study_in(tmp_path))
    mine = site(tmp_path, partition="batch", workers_per_node=1)
    slurm_says(tmp_path, monkeypatch, sinfo)
    (family,) = outlook.machines.families([mine], None)
    assert family[-1].nodes > 3
    assert any("--most-nodes" in note for note in outlook.beyond(family[0]))
    told = Outlook(study_in(tmp_path))
    (family,) = told.machines.families([mine], 2)
    assert not any("--most-nodes" in note for note in told.beyond(family[0]))


def test_advice_never_edits_the_record_of_a_study(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    before = study.path.read_text()
    with pytest.raises(UserError, match="is the record of what the study was begun with"):
        advised.refuse_record(study)
    outlook = Outlook(study)
    chosen = outlook.foretell(outlook.machines.local(1, 1), 1)
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


@pytest.mark.parametrize(
    ("engine", "builder", "programs"),
    [
        ('use = "tensorflow"', "def net(learning_rate): ...", 1),
        ('use = "tensorflow"', "def net(learning_rate, batch_size): ...", 2),
        ('use = "jax"\nbundle = 1', "def net(learning_rate): ...", 2),
    ],
)
def test_a_worker_compiles_for_each_batch_size_where_programs_are_of_one(
    tmp_path: Path, engine: str, builder: str, programs: int
) -> None:
    """Losing this: a study on JAX is foretold to compile once where it does for every size."""
    mine = tmp_path / "mine.py"
    mine.write_text(f"{builder}\n")
    study = study_in(tmp_path, f'[engine]\n{engine}\n[model]\nbuild = "{mine}:net"\n')
    outlook = Outlook(study, whole=True)
    made = outlook.journal(outlook.machines.local(2, 1))
    tasks = frames.tasks(made)
    assert (tasks["compile_seconds"] > 0).sum() == 2 * programs
    # What the account of such a journal says was repeated is what the second worker did.
    seconds = tasks["compile_seconds"].sum() + tasks["open_seconds"].sum()
    assert account(made).repeated_seconds == pytest.approx(seconds / 2, rel=0.5)


def test_advice_knows_the_layouts_that_were_measured(tmp_path: Path) -> None:
    """Losing this: who measured with `scale` is told that one number of workers was measured."""
    study = study_in(tmp_path)
    asked = Machine.local(4, 1)
    assert any("only one number of workers" in note for note in Outlook(study).beyond(asked))
    own = Outlook(study).runtime
    folder = study.directory / "scale" / "local"
    cells = {}
    other = {"model": {"build": "stormsweep.models:storm_cnn", "sha256": "1" * 64}}
    for workers, pin in ((1, "within"), (4, "within"), (8, "none"), (16, "within"), (32, "within")):
        name = f"{workers}x1-{pin}"
        cells[name] = {"workers": workers, "threads": 1, "nodes": 1, "pin": pin}
        sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
        changes = other if workers == 32 else {}
        write_study(folder / name, SPACE, workers=workers, fold_sizes=sizes, **changes)
    (folder / "16x1-within" / measured.LOAD).write_text(json.dumps({"others_cores": 4.0}))
    known = dict.fromkeys(("why", "node", "engine"), "") | {"runs": {}, "weak": 0, "left_out": []}
    about = known | {"site": "local", "sockets": 1, "cells": cells, "cores": 16}
    (folder / "scale.json").write_text(json.dumps(about))
    found = Outlook(study)
    # Workers without cores of their own, or whose cores others used, are no measure of these; nor
    # is another model.
    assert found.runtime.ranges["workers"] == (1, 4)
    assert found.runtime.stretches == 3 * own.stretches
    (note,) = found.beyond(asked)
    assert note == "1 measurement of scale left out: other work took the cores meanwhile"
    assert found.foretell(asked, 3).makespan.median > 0
    # On another processor they say nothing of this one.
    sessions = folder / "4x1-within" / "environment.json"
    facts = json.loads(sessions.read_text()) | {"session": 1, "processor": "an abacus"}
    sessions.write_text(json.dumps(facts))
    assert Outlook(study).runtime.ranges["workers"] == (1, 2)
    (folder / "scale.json").write_text("{")
    assert Outlook(study).runtime.stretches == own.stretches
