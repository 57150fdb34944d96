"""Losing this: `plan` foretells a time that has nothing to do with what the study then takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stormsweep import Study
from stormsweep.cli.run import _layout_and_time
from stormsweep.cluster import machine
from stormsweep.config.study import StudyFile
from stormsweep.files import sha256
from stormsweep.records import Entry, SessionBegun, TaskDone
from stormsweep.results import facts, frames
from stormsweep.results.journal import read
from stormsweep.scaling.observed import observations
from stormsweep.search.plan import Plan, make_plan
from stormsweep.search.space import grid
from stormsweep.study import environment
from stormsweep.study.forecast import (
    Forecast,
    Kind,
    Pace,
    forecast,
    foretell,
    pace_of,
)
from stormsweep.study.layout import Layout
from stormsweep.study.outline import Outline
from stormsweep.work import Run
from tests.journals import GRID_2019, starve, with_pauses
from tests.journals import simulate as write_study

SPACE = {**GRID_2019, "batch_size": [128, 512, 2048], "epochs": [2, 4]}


def study(folder: Path, space: dict[str, Any] = SPACE, **changes: Any) -> Path:
    """Write a study whose patches are those that its tasks trained on, by this machine."""
    sizes = [{"epoch_patches": 38_000}] * 3
    directory = write_study(folder, space, fold_sizes=sizes, **changes)
    said = {"session": 1, "processor": machine.processor(), "precision": "float32"}
    said["packing"] = True
    later = [{**said, "session": 2}]
    (directory / "environment.json").write_text(json.dumps({**said, "later": later}))
    return directory


def asked(
    directory: Path, space: dict[str, Any] = SPACE, engine: str = "tensorflow", **site: Any
) -> Forecast:
    tables = {"search": {"space": space}, "site": site, "engine": {"use": engine}}
    file = StudyFile.model_validate({"study": {"name": directory.name}, **tables})
    journal = directory / "journal.jsonl"
    entries = read(journal) if journal.is_file() else []
    return forecast(file, directory, make_plan(grid(space), {}, 3), entries)


def test_the_rest_of_a_stopped_study_takes_about_as_long_as_it_then_took(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole")
    seconds = frames.sessions(read(whole / "journal.jsonl"))["seconds"].sum()
    found = asked(tmp_path / "runs" / "another")
    assert found.seconds is None
    assert "not prepared" in found.basis
    again = study(tmp_path / "again", stops=(1.0,), go_on=False)
    found = asked(again)
    assert found.seconds is not None
    low, high = found.seconds
    assert low <= high
    assert 0.7 * seconds < (low + high) / 2 < 1.4 * seconds
    assert "27 runs of" in found.basis
    four = asked(again, workers=4)
    assert four.seconds is not None
    assert four.seconds[1] < 0.7 * high


def test_a_task_that_was_starved_is_told_of_and_makes_no_days_of_minutes(tmp_path: Path) -> None:
    """Losing this: "1 min 21 s to 39 h 22 min" of a study of minutes, with no word why."""
    whole, again = study(tmp_path / "whole"), study(tmp_path / "again", stops=(1.0,), go_on=False)
    plain = asked(again)
    lost = {"open": 91.0, "build": 281.0, "compile": 220.0}
    starve(whole, {1: lost})
    found = asked(again)
    assert plain.seconds is not None
    assert found.seconds is not None
    assert plain.note == ""
    assert found.note.startswith("1 of 54 tasks took ")
    # Runs of two studies may have the same name.
    assert re.search(rf"\(run \S+ of {re.escape(str(whole))}, worker ", found.note)
    own = asked(whole).note
    assert re.search(r"\(run \S+, worker ", own)
    assert found.seconds[0] == pytest.approx(plain.seconds[0], rel=0.1)
    assert found.seconds[1] < plain.seconds[1] + 2 * sum(lost.values())
    layout = Layout(2, 1)
    *_, last = _layout_and_time(Outline(Plan((), 3, ()), layout, layout, found), "elsewhere")
    assert last == f"Note: {found.note}."


@pytest.mark.parametrize("site", [{"threads_per_worker": 2}, {}])
def test_journals_of_other_circumstances_say_nothing(tmp_path: Path, site: dict[str, int]) -> None:
    study(tmp_path / "whole")
    again = study(tmp_path / "again", stops=(1.0,), go_on=False)
    for place in (tmp_path / "whole", again) if not site else ():
        said = {"session": 1, "processor": "another", "precision": "float32"}
        (place / "environment.json").write_text(json.dumps(said))
    found = asked(again, **site)
    assert found.seconds is None
    assert "no earlier journal of this kind of machine" in found.basis


def test_an_edited_model_is_not_foretold_from_what_it_was(tmp_path: Path) -> None:
    """Losing this: "2 min" for a model that was made ten times as large meanwhile."""
    code = tmp_path / "model.py"
    code.write_text("def network(batch_size, learning_rate):\n    ...\n")
    build = f"{code}:network"
    first = study(tmp_path / "first", model={"build": build, "sha256": sha256(code)})
    space = "".join(f"{name} = {json.dumps(values)}\n" for name, values in SPACE.items())
    table = f"[model]\nbuild = {json.dumps(build)}\n[search]\n[search.space]\n{space}"

    def told(name: str) -> Forecast:
        known = {"build": build, "sha256": sha256(code)}
        second = study(tmp_path / name, stops=(1.0,), go_on=False, model=known)
        with (second / "study.toml").open("a") as file:
            file.write(f"\n{table}")
        return Study.from_toml(second).forecast()

    found = told("again")
    assert found.seconds is not None
    assert found.basis == f"from 27 runs of {first} on this kind of machine"
    with code.open("a") as file:
        file.write("    # ten times as large\n")
    found = told("larger")
    assert found.seconds is None
    assert (
        f"no earlier journal of this kind of machine has such tasks (this version of {build} "
        in (found.basis)
    )


def test_what_the_cores_did_is_not_taken_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: hours foretold of minutes once JAX finds the GPU, or minutes of hours."""
    gpu = "NVIDIA H100 80GB HBM3"
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(machine, "gpu_names", lambda: [gpu])
    plugins: list[str] = []
    found = SimpleNamespace(find_spec=lambda name: name in plugins or None)
    monkeypatch.setattr(environment, "importlib", SimpleNamespace(util=found))
    whole, again = study(tmp_path / "whole"), study(tmp_path / "again", stops=(1.0,), go_on=False)

    def told(*devices: str) -> Forecast:
        for place in (whole, again):
            path = place / "environment.json"
            said = json.loads(path.read_text()) | {"engine": "jax", "devices": devices}
            path.write_text(json.dumps(said | {"later": []}))
        return asked(again, engine="jax", workers=1, threads_per_worker=1)

    assert told("cpu").seconds is not None, "no plug-in, no GPU"
    assert told(f"{gpu} (gpu)").seconds is None
    plugins.append("jax_plugins")
    assert told(f"{gpu} (gpu)").seconds is not None
    slow = told("cpu")
    assert slow.seconds is None
    assert f"on jax on {gpu} (gpu) in float32" in slow.basis
    entries = read(whole / "journal.jsonl")
    kinds = [
        set(observations(entries, {1: {"engine": "jax", "devices": [device]}})["kind"])
        for device in ("cpu", f"{gpu} (gpu)")
    ]
    assert kinds[0] != kinds[1], "`simulate` and `advise` would fit both together"


def test_what_a_cluster_did_is_not_taken_for_this_machine(tmp_path: Path) -> None:
    place = study(tmp_path / "whole")
    entries = read(place / "journal.jsonl")
    about = facts.study(entries)
    build, inputs = about.model["build"], tuple(about.data["inputs"])
    here = Kind("a", "tensorflow", "float32", False, build, inputs, (), threads=1)
    said = {1: {"processor": "a", "precision": "float32"}}

    def at(site: str) -> list[Entry]:
        return [
            replace(one, record=replace(one.record, site=site))
            if isinstance(one.record, SessionBegun)
            else one
            for one in entries
        ]

    taken = {
        site: len(pace_of(place, at(site), said, here).observed) for site in ("local", "", "far")
    }
    assert taken["local"] == taken[""] > 0
    assert taken["far"] == 0
    there = pace_of(place, at("far"), said, replace(here, site="far"))
    assert len(there.observed) == taken["local"]
    kinds = [set(observations(at(site), said)["kind"]) for site in ("local", "", "far")]
    assert kinds[0] == kinds[1] != kinds[2]
    assert all(kind.startswith("site far; ") for kind in kinds[2])


def test_runs_of_bundles_count_with_their_shares_and_for_their_engine_only(tmp_path: Path) -> None:
    place = study(tmp_path / "whole")
    entries = read(place / "journal.jsonl")

    def paces(entries: list[Entry], said: dict[str, Any]) -> Pace:
        kind = Kind("a", "jax", "float32", False, *known(entries), threads=1)
        return pace_of(place, entries, {1: {"processor": "a", "precision": "float32"} | said}, kind)

    def known(entries: list[Entry]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
        about = facts.study(entries)
        return about.model["build"], tuple(about.data.get("inputs", ())), ()

    def bundled(entry: Entry) -> Entry:
        task = entry.record
        if not isinstance(task, TaskDone):
            return entry
        submitted = task.started - 4 * (task.started - task.submitted)
        stopped = task.started + 4 * (task.stopped - task.started)
        return replace(entry, record=replace(task, submitted=submitted, stopped=stopped, bundle=4))

    alone = paces(entries, {"engine": "jax"})
    assert len(alone.observed)
    assert not len(paces(entries, {}).observed)
    together = paces([bundled(entry) for entry in entries], {"engine": "jax"})
    shares = together.observed["seconds"].to_numpy()
    assert shares == pytest.approx(alone.observed["seconds"].to_numpy(), abs=1e-5)


def test_a_paused_run_takes_what_is_left_of_it_and_tells_how_fast_it_was(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole")
    entries = read(whole / "journal.jsonl")
    planned = facts.planned_runs(entries).values()
    runs = [Run(p.run, p.hyperparameters, p.fold, tuple(p.milestones)) for p in planned]
    about = facts.study(entries)
    build, inputs = about.model["build"], tuple(about.data["inputs"])
    kind = Kind("a", "tensorflow", "float32", False, build, inputs, (), threads=1)
    said = {1: {"processor": "a", "precision": "float32"}}
    paused = with_pauses(entries)
    paces = [pace_of(tmp_path, each, said, kind) for each in (entries, paused)]
    assert paces[0].sizes == paces[1].sizes == {128, 512, 2048}
    rates = [pace.observed.groupby("batch_size")[["patches", "seconds"]].sum() for pace in paces]
    for rate in rates:
        rate["speed"] = rate["patches"] / rate["seconds"]
    assert rates[1]["speed"].to_numpy() == pytest.approx(rates[0]["speed"].to_numpy(), rel=1e-3)
    assert len(paces[1].observed) > len(paces[0].observed)
    # The last task alone is left, of which the half is done.
    last = max(number for number, one in enumerate(paused) if isinstance(one.record, TaskDone))
    left = [paused[: last - 1], paused[:last]]
    plan = Plan((), 3, tuple(runs))
    first, second = (
        foretell(plan, each, [38_000] * 3, (1, 1), [paces[0]], any_batch=True).seconds
        for each in left
    )
    assert first is not None
    assert second is not None
    assert 0 < second[1] < first[1]


def test_a_batch_size_never_seen_is_foretold_from_the_others(tmp_path: Path) -> None:
    study(tmp_path / "whole")
    space = {**SPACE, "batch_size": [128, 512, 1024]}
    again = study(tmp_path / "again", space, stops=(1.0,), go_on=False)
    seen, new = asked(again), asked(again, space)
    assert seen.seconds is not None
    assert new.seconds is not None
    assert 0.5 * seen.seconds[0] < new.seconds[0] < 2 * seen.seconds[1]


def test_a_larger_model_is_foretold_to_take_longer(tmp_path: Path) -> None:
    # Models of as many parameters as there are in the journals, of which one takes twice as long.
    space = {**SPACE, "batch_size": [128, 512], "filters": [[8, 16], [32, 64]]}
    whole = study(tmp_path / "whole", space)
    entries = [
        replace(one, record=larger(one.record)) if isinstance(one.record, TaskDone) else one
        for one in (read(whole / "journal.jsonl"))
    ]
    runs = facts.planned_runs(entries)
    entries = [
        replace(one, record=heavier(one.record))
        if isinstance(one.record, TaskDone) and large(runs[one.record.run])
        else one
        for one in entries
    ]
    about = facts.study(entries)
    build, inputs = about.model["build"], tuple(about.data["inputs"])
    kind = Kind("a", "tensorflow", "float32", False, build, inputs, (), threads=1)
    pace = pace_of(tmp_path, entries, {1: {"processor": "a", "precision": "float32"}}, kind)
    took = []
    for filters in ([8, 16], [32, 64]):
        plan = make_plan(grid({**space, "filters": [filters]}), {}, 3)
        found = foretell(plan, [entries[0]], [38_000] * 3, (1, 1), [pace], any_batch=True)
        assert found.seconds is not None
        took.append(sum(found.seconds))
    assert took[1] > 1.7 * took[0]


def large(run: Any) -> bool:
    return bool(run.hyperparameters["filters"] == [32, 64])


def larger(task: TaskDone) -> TaskDone:
    return replace(task, parameters=5_000)


def heavier(task: TaskDone) -> TaskDone:
    phases = {phase: 2 * seconds for phase, seconds in task.phases.items()}
    stopped = task.started + 2 * (task.stopped - task.started)
    return replace(task, parameters=60_000, phases=phases, stopped=stopped)
