"""Losing this: the time foretold for a study, and so its nodes and its walltime, is a wrong one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stormsweep.errors import UserError
from stormsweep.records import Entry, TaskDone, WorkerEvent
from stormsweep.results.journal import read
from stormsweep.scaling import runtime
from tests.journals import START, about, plan, simulate, with_pauses

ENVIRONMENT = {"session": 1, "processor": "A", "precision": "float32", "packing": True}
#: What the synthetic tasks cost.
TRUTH = {"patch": 1e-4, "update": 3e-4, "compile": 0.4, "first": 0.5, "open": 0.3, "build": 0.08}
TRUTH |= {"begun": 0.1, "score": 6e-5, "checkpoint": 0.015}
PATCHES = [3000, 3200, 3100]


def table(
    workers: int = 1,
    threads: int = 1,
    sizes: tuple[int, ...] = (64, 256, 1024),
    noise: float = 0.02,
    seed: int = 0,
    contention: float = 0.0,
    between: float = 0.0,
    serial: float = 0.0,
    models: tuple[int, ...] = (17_000,),
    per_parameter: float = 0.0,
    patches: list[int] | None = None,
    repeats: int = 2,
) -> pd.DataFrame:
    """What a journal of these tasks would be seen as, by known terms."""
    rng = np.random.default_rng(seed)
    own = np.exp(between * rng.standard_normal(workers))
    rows: list[dict[str, Any]] = []
    grid = [(b, m, f, k) for b in sizes for m in models for f in range(3) for k in range(repeats)]
    known: set[tuple[int, int, int]] = set()
    for place, (batch, parameters, fold, k) in enumerate(grid):
        worker = place % workers
        for epoch in (0, 1, 2):
            n = (patches or PATCHES)[fold]
            updates = math.ceil(n / batch)
            builds, program = epoch == 0, (worker, batch, parameters)
            compiles, opens = program not in known, not any(p[0] == worker for p in known)
            known.add(program)
            slow = (1 + contention * (workers - 1) * threads) * own[worker]
            share = serial + (1 - serial) / threads
            phases = {
                "open": TRUTH["open"] * opens,
                "build": TRUTH["build"] * builds,
                "compile": TRUTH["compile"] * compiles + TRUTH["first"] * opens,
                "train": n * (TRUTH["patch"] + per_parameter * parameters) * share
                + updates * TRUTH["update"]
                + TRUTH["begun"] * builds * (1.5 if compiles else 1.0),
                "score": 850 * TRUTH["score"] / threads,
                "checkpoint": TRUTH["checkpoint"],
            }
            noisy = {
                f"{phase}_seconds": seconds * slow * math.exp(noise * rng.standard_normal())
                for phase, seconds in phases.items()
            }
            rows.append(
                {
                    **noisy,
                    "seconds": sum(noisy.values()),
                    "study": f"{workers}x{threads}",
                    "run": f"{batch}-{parameters}-{fold}-{k}",
                    "kind": "A",
                    "session": 1,
                    "worker": f"worker-{worker}",
                    "started": float(len(rows)),
                    "epochs": 1,
                    "patches": n,
                    "updates": updates,
                    "batch_size": batch,
                    "parameters": parameters,
                    "bundle": 1,
                    "scores": True,
                    "validation": 850,
                    "threads": threads,
                    "workers": workers,
                    "neighbours": float((workers - 1) * threads),
                    "opens": opens,
                    "compiles": compiles,
                    "builds": builds,
                }
            )
    return pd.DataFrame(rows)


def train_of(found: runtime.RunTime, **asked: Any) -> float:
    """Seconds of an epoch alone, without what is around it."""
    told = {"patches": 3000, "batch_size": 256, "parameters": 17_000, "epochs": 1} | asked
    told["updates"] = math.ceil(told["patches"] / told["batch_size"])
    return float(found.seconds(**told, builds=False, scores=False))


def test_the_terms_that_made_the_times_are_found_again() -> None:
    found = runtime.fit(table(noise=0.01))
    want = {
        "train/patch": TRUTH["patch"],
        "train/update": TRUTH["update"],
        "train/begun": TRUTH["begun"],
        "compile/program": TRUTH["compile"],
        "compile/first": TRUTH["first"],
        "open/worker": TRUTH["open"],
        "build/model": TRUTH["build"],
        "score/patch": TRUTH["score"],
        "checkpoint/time": TRUTH["checkpoint"],
    }
    for name, value in want.items():
        assert found.terms[name] == pytest.approx(value, rel=0.05), name
    assert set(found.units) == set(found.terms)
    assert all(value >= 0 for value in found.terms.values())


def test_an_epoch_never_seen_takes_as_long_as_it_would() -> None:
    found = runtime.fit(table(sizes=(64, 1024), noise=0.01))
    for batch in (64, 128, 512, 1024):
        want = 3000 * TRUTH["patch"] + math.ceil(3000 / batch) * TRUTH["update"]
        assert train_of(found, batch_size=batch) == pytest.approx(want, rel=0.03)
    whole = found.seconds(
        patches=6000,
        updates=24,
        batch_size=256,
        parameters=17_000,
        epochs=2,
        compiles=True,
        opens=True,
        builds=True,
        validation=850,
    )
    ends = 850 * TRUTH["score"] + TRUTH["checkpoint"]
    fixed = sum(TRUTH[name] for name in ("compile", "first", "open", "build"))
    fixed += 1.5 * TRUTH["begun"]
    assert whole == pytest.approx(0.6 + 24 * TRUTH["update"] + fixed + ends, rel=0.03)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_what_is_foretold_is_right_on_average(noise: float) -> None:
    # A fit that gave tasks that were short by chance more weight would foretell too little.
    tables = [table(noise=noise, seed=seed, repeats=3) for seed in range(6)]
    sums = [(runtime.fit(one).foretold(one).sum(), one["seconds"].sum()) for one in tables]
    foretold, measured = np.array(sums).sum(axis=0)
    assert foretold == pytest.approx(measured, rel=0.01 + noise / 10)


def test_runs_left_out_are_foretold_about_as_well_as_times_scatter() -> None:
    checked = runtime.check(table(noise=0.05, repeats=4))
    assert checked.median < 0.05
    assert checked.median <= checked.tail < 0.12
    assert abs(checked.bias) < 0.02
    # All but the one that opened the data.
    assert len(checked.runs) == 36 - 1
    assert (checked.runs["error"].abs() < 0.3).all()


def test_a_run_that_alone_opened_the_data_is_not_checked_by_what_was_learnt_from_it() -> None:
    one = table()
    opened = one.loc[one["opens"], "run"].unique().tolist()
    assert len(opened) == 1
    assert set(runtime.check(one).runs["run"]) == set(one["run"]) - set(opened)
    two = table(workers=2)
    assert set(runtime.check(two).runs["run"]) == set(two["run"])


def test_a_large_study_is_checked_on_whole_runs_drawn_from_it() -> None:
    one = table(8, noise=0.05, repeats=300)
    assert len(one) == 8100
    checked = runtime.check(one)
    assert 1500 < len(checked.runs) < 2100
    assert checked.median < 0.05
    # Every run with all its stretches.
    whole = one.groupby("run")["seconds"].sum()
    assert checked.runs["seconds"].to_numpy() == pytest.approx(
        whole[checked.runs["run"]].to_numpy()
    )


def test_a_run_that_is_unlike_the_others_shows_in_the_check() -> None:
    one = table(noise=0.01)
    name = one["run"].iloc[7 * 3]
    odd = one["run"] == name
    one.loc[odd, [each for each in one if each.endswith("seconds")]] *= 3.0
    checked = runtime.check(one)
    worst = checked.runs.sort_values("error").iloc[0]
    assert worst["run"] == name
    # Had it been in its own fit, it would have drawn what is foretold towards itself.
    inside = runtime.fit(one).foretold(one)[odd].sum()
    assert worst["foretold"] < inside
    assert worst["error"] == pytest.approx(1 / 3 - 1, abs=0.05)


def test_what_a_second_worker_costs_is_known_where_both_layouts_were_seen() -> None:
    both = pd.concat([table(1, seed=1), table(2, seed=2, contention=0.12)], ignore_index=True)
    found = runtime.fit(both)
    assert found.contention == pytest.approx(0.12, abs=0.02)
    assert train_of(found, workers=2) == pytest.approx(1.12 * train_of(found), rel=0.02)
    assert found.beyond(workers=[1, 2]) == []
    many = found.beyond(workers=16)
    assert many[0] == "workers a node: 16; measured was 1 to 2"
    assert "more are taken to cost no more" in many[1]
    # Fifteen neighbours do not cost fifteen times what one does.
    assert train_of(found, workers=16) == pytest.approx(train_of(found, workers=2))


def test_what_was_measured_on_one_layout_is_given_back_on_it_and_a_guess_is_named() -> None:
    for workers, other in ((1, 2), (2, 1)):
        one = table(workers, seed=2, contention=0.08)
        found = runtime.fit(one)
        assert found.assumed
        assert found.foretold(one).sum() == pytest.approx(one["seconds"].sum(), rel=0.01)
        elsewhere = table(other, seed=3, contention=0.08)
        ratio = found.foretold(elsewhere).sum() / elsewhere["seconds"].sum()
        # Nothing assumed would be 8 % off.
        assert ratio == pytest.approx(1.0, abs=0.05)
        said = found.beyond(workers=other)
        assert said[0] == f"workers a node: {other}; measured was {workers}"
        assert said[1].endswith("neighbours cost 5 % is assumed")
    assert not runtime.fit(pd.concat([table(1), table(2)], ignore_index=True)).assumed


def test_a_share_of_the_work_that_threads_do_not_divide_is_found() -> None:
    both = pd.concat(
        [table(1, 1, serial=0.3), table(1, 2, serial=0.3), table(1, 4, serial=0.3)],
        ignore_index=True,
    )
    found = runtime.fit(both)
    one, eight = train_of(found), train_of(found, threads=8)
    steps = math.ceil(3000 / 256) * TRUTH["update"]
    assert eight - steps == pytest.approx((one - steps) * (0.3 + 0.7 / 8), rel=0.05)
    assert found.beyond(threads=8) == ["threads a worker: 8; measured was 1 to 4"]
    assert found.serial == 0.0


def test_threads_never_measured_are_assumed_not_to_divide_all_and_that_is_named() -> None:
    for threads, other in ((1, 2), (2, 1)):
        one = table(1, threads, serial=0.12)
        found = runtime.fit(one)
        assert found.foretold(one).sum() == pytest.approx(one["seconds"].sum(), rel=0.01)
        elsewhere = table(1, other, serial=0.12)
        ratio = found.foretold(elsewhere).sum() / elsewhere["seconds"].sum()
        assert ratio == pytest.approx(1.0, abs=0.05)
        assert found.beyond(threads=other) == [
            f"threads a worker: {other}; measured was {threads}",
            "only one number of threads was measured: that they do not divide 12 % of the work is "
            "assumed",
        ]


def test_times_of_layouts_not_measured_are_less_sure_the_further_they_are() -> None:
    found = runtime.fit(pd.concat([table(1), table(4)], ignore_index=True))
    assert found.doubt(workers=2, threads=1) == found.doubt(workers=4, threads=1) == 0.0
    doubts = [found.doubt(workers=n, threads=1) for n in (8, 16, 32)]
    assert doubts == pytest.approx([0.05, 0.10, 0.15])
    assert found.doubt(workers=4, threads=2) == pytest.approx(0.1)
    assert found.doubt(workers=8, threads=2) == pytest.approx(math.hypot(0.05, 0.1))
    assert runtime.fit(table(4)).doubt(workers=1, threads=1) == pytest.approx(0.1)


def test_larger_models_take_longer_where_several_were_seen() -> None:
    models = (4_000, 16_000, 64_000)
    found = runtime.fit(table(models=models, per_parameter=2e-9, noise=0.01))
    small, large = (train_of(found, parameters=n) for n in (8_000, 64_000))
    assert large - small == pytest.approx(3000 * 2e-9 * 56_000, rel=0.05)
    assert runtime.fit(table()).beyond(parameters=64_000) == [
        "parameters: 64000; measured was 17000"
    ]


def test_batch_sizes_and_models_that_follow_no_line_are_foretold_as_they_were() -> None:
    # A batch of 1024 leaves the caches, a model of 16,000 parameters computes badly.
    one = table(models=(4_000, 16_000, 64_000), per_parameter=2e-9, noise=0.03, repeats=4)
    for name, level, factor in (("batch_size", 1024, 1.2), ("parameters", 16_000, 1.3)):
        slow = one[name] == level
        more = one.loc[slow, "train_seconds"] * (factor - 1)
        one.loc[slow, "train_seconds"] += more
        one.loc[slow, "seconds"] += more
    found = runtime.fit(one)
    ratio = one["seconds"] / found.foretold(one)
    for name in ("batch_size", "parameters"):
        assert ratio.groupby(one[name]).mean().to_numpy() == pytest.approx(1.0, abs=0.04)
    assert runtime.check(one).median < 0.04
    # In between they are off by something in between.
    known = found.off["batch_size"]
    assert min(known[256], known[1024]) < between(found, 512) < max(known[256], known[1024])
    # Chance alone makes nothing of it.
    plain = runtime.fit(table(models=(4_000, 16_000, 64_000), per_parameter=2e-9, repeats=4))
    factors = [v for values in plain.off.values() for v in values.values()]
    assert factors == pytest.approx([1.0] * len(factors), abs=0.02)


def between(found: runtime.RunTime, batch: int) -> float:
    off = {name: dict.fromkeys(values, 1.0) for name, values in found.off.items()}
    off["parameters"] = found.off["parameters"]
    plain = dataclasses.replace(found, off=off)
    return train_of(found, batch_size=batch) / train_of(plain, batch_size=batch)


def test_what_cannot_be_told_apart_is_not_guessed() -> None:
    # Folds of one size: seconds an epoch and seconds a patch are the same thing.
    found = runtime.fit(table())
    assert "train/epoch" not in found.terms
    assert "train/patch_parameter" not in found.terms
    assert train_of(found, patches=30_000) == pytest.approx(10 * train_of(found), rel=0.02)
    apart = runtime.fit(table(patches=[1000, 4000, 16_000]))
    assert "train/epoch" in apart.terms


def test_scores_count_where_a_journal_does_not_say_of_how_many_patches() -> None:
    one = table()
    found = runtime.fit(one.assign(validation=0))
    assert found.foretold(one.assign(validation=0)).sum() == pytest.approx(
        one["seconds"].sum(), rel=0.01
    )


def test_batch_sizes_beyond_those_measured_are_named() -> None:
    found = runtime.fit(table())
    assert found.beyond(batch_size=[64, 512, 1024]) == []
    assert found.beyond(batch_size=[16, 4096]) == ["batch size: 16, 4096; measured was 64 to 1024"]


def test_the_scatter_is_that_of_tasks_and_of_workers() -> None:
    one = table(8, noise=0.06, between=0.1, seed=3, repeats=30)
    found = runtime.fit(one)
    # Phases scatter by themselves here, so that their sum scatters a little less than each.
    assert 0.04 < found.scatter.tasks < 0.065
    assert 0.05 < found.scatter.workers < 0.17
    same = runtime.fit(table(8, noise=0.06, seed=3, repeats=30))
    assert same.scatter.workers < 0.02


def test_arrays_and_numbers_go_in_and_come_out() -> None:
    found = runtime.fit(table())
    told: dict[str, Any] = {"parameters": 17_000, "threads": 1, "workers": 1, "updates": 12}
    one = found.seconds(patches=3000, batch_size=256, compiles=True, opens=False, **told)
    assert isinstance(one, float)
    many = found.seconds(
        patches=np.array([3000, 6000]), batch_size=256, compiles=[True, False], opens=False, **told
    )
    assert many.shape == (2,)
    assert many[0] == pytest.approx(one)


def test_runs_of_other_circumstances_are_kept_apart() -> None:
    here, there = table(), table(seed=4).assign(kind="B", study="elsewhere")
    there[[name for name in there if name.endswith("seconds")]] *= 5.0
    there = there.iloc[: len(there) // 2]
    found = runtime.fit(pd.concat([there, here], ignore_index=True))
    assert found.kind == "A"
    assert found.terms == runtime.fit(here).terms
    other = runtime.fit(pd.concat([there, here], ignore_index=True), kind="B")
    assert train_of(other) == pytest.approx(5 * train_of(found), rel=0.05)


def test_a_journal_with_no_finished_run_is_refused_in_one_line(tmp_path: Path) -> None:
    place = simulate(tmp_path, stops=(1.0,), go_on=False)
    seen = runtime.observations(read(place / "journal.jsonl"), ENVIRONMENT)
    for work in (runtime.fit, runtime.check):
        with pytest.raises(UserError, match="no finished run") as caught:
            work(seen)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no finished run of C"):
        runtime.fit(table(), kind="C")
    with pytest.raises(UserError, match="nothing can be left out"):
        runtime.check(table(), by=("kind",))


def journal(folder: Path, **how: Any) -> list[Entry]:
    return read(simulate(folder, **how) / "journal.jsonl")


def changed(entries: list[Entry], change: Callable[[TaskDone], TaskDone]) -> list[Entry]:
    return [
        dataclasses.replace(e, record=change(e.record)) if isinstance(e.record, TaskDone) else e
        for e in entries
    ]


def test_a_journal_is_observed_stretch_by_stretch(tmp_path: Path) -> None:
    entries = journal(tmp_path)
    seen = runtime.observations(entries, ENVIRONMENT)
    done = [entry.record for entry in entries if isinstance(entry.record, TaskDone)]
    assert len(seen) == len(done) == 162
    assert seen["seconds"].sum() == pytest.approx(sum(task.seconds for task in done))
    assert seen["patches"].sum() == sum(task.patches for task in done)
    assert set(seen["kind"]) == {
        "A; tensorflow float32 packed; stormsweep.models:storm_cnn; "
        "REFL_COM_curr, U10_curr, V10_curr"
    }
    by_session = runtime.observations(entries, {1: ENVIRONMENT, 2: {"processor": "B"}})
    assert by_session.equals(seen)
    # The first of each of two workers.
    assert seen["opens"].sum() == 2
    assert set(seen["workers"]) == {2}
    # But for the end two are at work all the time.
    assert seen["neighbours"].median() == pytest.approx(1.0, abs=0.02)
    assert (seen["neighbours"] <= 1.0 + 1e-9).all()
    found = runtime.fit(seen)
    assert runtime.check(seen).median < 0.1
    assert found.runs == 54
    assert found.stretches == 162


def test_pauses_change_the_rows_and_not_the_sums(tmp_path: Path) -> None:
    entries = journal(tmp_path)
    whole, paused = (runtime.observations(e, ENVIRONMENT) for e in (entries, with_pauses(entries)))
    assert len(paused) == 2 * len(whole)
    for name in ("seconds", "patches", "updates", "epochs"):
        assert paused[name].sum() == pytest.approx(whole[name].sum(), rel=1e-6)
    # A stretch that ends with a pause is not scored.
    assert (~paused["scores"]).sum() == len(whole)
    assert (paused["validation"] == 0).sum() == len(whole)


def test_a_worker_that_came_back_opens_the_data_again(tmp_path: Path) -> None:
    entries = journal(tmp_path, lose=(20,))
    lost = [e for e in entries if isinstance(e.record, WorkerEvent) and e.record.event == "lost"]
    assert len(lost) == 1
    assert runtime.observations(entries, ENVIRONMENT)["opens"].sum() == 3


def test_runs_of_a_bundle_count_with_their_share(tmp_path: Path) -> None:
    entries = journal(tmp_path, workers=1)

    def bundled(task: TaskDone) -> TaskDone:
        stopped = task.started + 4 * (task.stopped - task.started)
        return dataclasses.replace(task, stopped=stopped, bundle=4)

    alone = runtime.observations(entries, ENVIRONMENT)
    together = runtime.observations(changed(entries, bundled), ENVIRONMENT)
    assert together["seconds"].to_numpy() == pytest.approx(alone["seconds"].to_numpy())
    found = runtime.fit(together)
    told = {"patches": 38_000, "updates": 75, "batch_size": 512, "parameters": 17_169}
    share = [found.seconds(**told, compiles=True, bundle=size) for size in (1, 4)]
    fixed = found.terms["train/update"] * 75 + found.terms["compile/program"]
    fixed += found.terms["train/compiled"]
    fixed += found.terms["rest/task"]
    assert share[0] - share[1] == pytest.approx(0.75 * fixed)
    # Unless told, bundles are as large as they were.
    assert found.seconds(**told, compiles=True) == pytest.approx(share[1])


def test_threads_that_work_beside_a_stretch_are_counted(tmp_path: Path) -> None:
    runs = plan([{"batch_size": 512}], 3, [2])
    space = {"batch_size": [512], "epochs": [2]}
    entries = [Entry(START, about(space, 3)), *(Entry(START, run) for run in runs)]
    for run, worker, started, stopped in zip(runs, "abc", (0, 0, 5), (10, 5, 20), strict=True):
        entries.append(Entry(START, WorkerEvent(1, worker, "ready", "node", 1)))
        entries.append(Entry(START + stopped, done(run, worker, started, stopped)))
    seen = runtime.observations(entries, ENVIRONMENT).set_index("worker")
    # Of two threads each: a beside b, then beside c; b beside a; c half of its time alone.
    assert seen.loc["a", "neighbours"] == pytest.approx(2.0)
    assert seen.loc["b", "neighbours"] == pytest.approx(2.0)
    assert seen.loc["c", "neighbours"] == pytest.approx(2.0 * 5 / 15)


def test_workers_that_came_after_others_on_a_node_were_not_beside_them(tmp_path: Path) -> None:
    """A job that is renewed on the same node has workers of new names: no crowd was measured."""
    runs = plan([{"batch_size": 512}], 4, [2])
    entries = [Entry(START, about({"batch_size": [512], "epochs": [2]}, 4))]
    entries += [Entry(START, run) for run in runs]
    for run, worker, at in zip(
        runs, ("n-1-0", "n-1-1", "n-2-0", "n-2-1"), (0, 0, 50, 50), strict=True
    ):
        entries.append(Entry(START + at, WorkerEvent(1, worker, "ready", "n", 1)))
        entries.append(Entry(START + at + 10, done(run, worker, at, at + 10)))
        entries.append(Entry(START + at + 20, WorkerEvent(1, worker, "lost", "n", 1, "walltime")))
    seen = runtime.observations(sorted(entries, key=lambda one: one.time), ENVIRONMENT)
    assert set(seen["workers"]) == {2}


def done(run: Any, worker: str, started: float, stopped: float) -> TaskDone:
    return TaskDone(
        run=run.run,
        from_epoch=0,
        to_epoch=2,
        scores={"roc_auc": 0.8},
        worker=worker,
        session=1,
        submitted=START + started,
        started=START + started,
        stopped=START + stopped,
        phases={"train": float(stopped - started)},
        epoch_loss=[0.5, 0.4],
        patches=1000,
        updates=4,
        memory_mb=500.0,
        parameters=17_169,
        threads=2,
    )
