"""Losing these: an account that is wrong in the cases that come seldom, or says nothing of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from stormsweep.cli.words import accounts
from stormsweep.config.sites import Found, Site
from stormsweep.records import (
    Entry,
    NodeEvent,
    Record,
    SessionBegun,
    SessionEnded,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.results.journal import decode, encode, read
from stormsweep.scaling import timings
from stormsweep.scaling.accounts import account
from stormsweep.scaling.machine import Machine
from stormsweep.study.places import Place
from tests import journals

T0 = journals.START
SPACE: dict[str, Any] = {"batch_size": [64, 128], "epochs": [2, 4]}
RUNS = journals.plan(journals.points_of(SPACE), 1, [2, 4])


def at(*lines: tuple[float, Record]) -> list[Entry]:
    """Return a journal of two runs, with instants counted from its begin."""
    begun: list[Record] = [journals.about(SPACE, 1), *RUNS]
    return [Entry(T0, record) for record in begun] + [Entry(T0 + t, r) for t, r in lines]


def session(number: int = 1, workers: int = 2, **allotment: Any) -> SessionBegun:
    """Return the begin of a session; on this machine unless it is told otherwise."""
    site = "far" if allotment else "local"
    begun = SessionBegun(number, "driver", 1, site, workers, 1, allotment)
    return dataclasses.replace(begun, opened=T0 + 1)


def ready(worker: str, pid: int = 1, host: str = "driver") -> WorkerEvent:
    return WorkerEvent(1, worker, "ready", host, pid)


def lost(worker: str, pid: int = 1, host: str = "driver") -> WorkerEvent:
    return WorkerEvent(1, worker, "lost", host, pid, "x", "killed")


def task(run: int, epoch: int, sent: float, stopped: float, worker: str, **changes: Any) -> Any:
    done = journals.task(RUNS[run], epoch, epoch + 2, worker=worker)
    times = {"submitted": T0 + sent, "started": T0 + sent, "stopped": T0 + stopped, "threads": 1}
    phases = {"open": 1.0, "compile": 2.0, "train": stopped - sent - 3.0}
    return dataclasses.replace(done, **({"phases": phases} | times | changes))


def test_a_result_found_in_the_checkpoint_of_a_lost_worker_counts_once() -> None:
    done = task(0, 0, 2.0, 9.0, "0")
    found = account(
        at(
            (0, session(workers=1)),
            (1, ready("0")),
            # It wrote the checkpoint, and was killed before its answer was on the way.
            (12, lost("0")),
            (12, TaskRetried(RUNS[0].run, 2, 2, "x", "0", 1, 10.0)),
            (15, ready("0", 2)),
            (16, done),
            (20, SessionEnded(1, "interrupted")),
        )
    )
    assert found.busy_seconds == pytest.approx(7)
    assert found.lost_seconds == pytest.approx(3)
    assert found.worker_seconds == pytest.approx(11 + 5)
    assert found.core_hours_used == pytest.approx(7 / 3600)


def test_a_worker_that_takes_a_lost_ones_place_is_no_imbalance() -> None:
    lines = [
        (0.0, session()),
        (1.0, ready("a")),
        (1.0, ready("b", 2)),
        (11.0, task(0, 0, 1.0, 11.0, "a")),
        (11.0, lost("a")),
        (11.0, ready("c", 3)),
        (21.0, task(1, 0, 1.0, 21.0, "b")),
        (21.0, task(0, 2, 11.0, 21.0, "c")),
        (22.0, SessionEnded(1, "done")),
    ]
    assert account(at(*lines)).load_balance == pytest.approx(1.0)
    late = [line for line in lines if getattr(line[1], "worker", "") != "c"]
    assert account(at(*late)).load_balance == pytest.approx((10 + 20) / 2 / 20)


def test_what_every_worker_does_anew_counts_against_parallel_efficiency() -> None:
    found = account(
        at(
            (0, session()),
            (1, ready("0")),
            (1, ready("1", 2)),
            # Both open the data, and compile the same program.
            (11, task(0, 0, 1.0, 11.0, "0")),
            (11, task(0, 2, 1.0, 11.0, "1")),
            (11, SessionEnded(1, "done", 0.5)),
        )
    )
    assert found.repeated_seconds == pytest.approx(1.0 + 2.0)
    assert found.parallel_efficiency == pytest.approx((20 - 3) / 22)
    assert found.utilisation == pytest.approx(1.0)
    assert found.overhead_seconds == pytest.approx(0.5)
    assert (found.longest_chain_run, found.longest_chain_seconds) == (RUNS[0].run, 20.0)


@pytest.mark.parametrize(("any_batch", "repeated"), [(True, 2.0), (False, 0.0)])
def test_a_program_of_any_batch_size_is_compiled_anew_by_every_other_worker(
    any_batch: bool, repeated: float
) -> None:
    """Losing this: what workers compile again looks like work that had to be done."""
    found = account(
        at(
            (0, dataclasses.replace(session(), any_batch=any_batch)),
            (1, ready("0")),
            (1, ready("1", 2)),
            # One worker trains all of the first batch size, the other all of the second.
            (11, task(0, 0, 1.0, 11.0, "0")),
            (11, task(1, 0, 1.0, 11.0, "1")),
            (11, SessionEnded(1, "done", 0.5)),
        )
    )
    assert found.repeated_seconds == pytest.approx(1.0 + repeated)


def nodes(**allotment: Any) -> list[Entry]:
    """Return a journal of two nodes: one that ends early, one that was never given."""
    told = {"scheduler": "slurm", "nodes": 0, "workers_per_node": 1, "gpus_per_node": 0}
    return at(
        (0, session(**(told | allotment))),
        (1, NodeEvent(1, "1", "asked")),
        (1, NodeEvent(1, "2", "asked")),
        (10, NodeEvent(1, "1", "granted")),
        (15, ready("n1-1-0", host="n1")),
        (100, task(0, 0, 20.0, 90.0, "n1-1-0")),
        (130, NodeEvent(1, "1", "ended", "walltime", "x", 100.0)),
        (130, lost("n1-1-0", host="n1")),
        (160, SessionEnded(1, "interrupted")),
    )


def test_a_node_is_ours_as_long_as_its_scheduler_says() -> None:
    found = account(nodes(cores_per_node=8, walltime_seconds=3600, price_per_core_hour=0.5))
    assert found.core_hours_granted == pytest.approx(8 * 100 / 3600)
    assert found.core_hours_asked == pytest.approx(2 * 8)
    assert found.held_seconds == pytest.approx(100)
    assert found.cost == pytest.approx(0.5 * 8 * 100 / 3600)
    assert found.price_basis == "what was granted, at 0.5 a core-hour"
    (row,) = timings.workers(nodes(cores_per_node=8)).to_dict("records")
    times = [row[name] - T0 for name in ("asked", "granted", "ready", "gone")]
    assert times == [1, 10, 15, 130]
    assert row["node"] == "1"


def test_a_node_is_charged_no_longer_than_its_walltime_and_late_news_of_its_end_is_no_time() -> (
    None
):
    assert account(nodes(cores_per_node=1, walltime_seconds=60)).held_seconds == 60


def test_what_is_not_known_is_said_to_be_unknown_and_not_nothing() -> None:
    free = account(nodes(cores_per_node=8))
    assert math.isnan(free.core_hours_asked)
    assert free.gpu_hours_asked == 0
    assert free.cost is None
    assert "no price" in free.price_basis
    whole = account(nodes(price_per_core_hour=1.0))
    assert math.isnan(whole.core_hours_granted)
    assert whole.cost is None
    assert "cores_per_node" in whole.price_basis
    said = dict(accounts(free))
    assert said["cores"].endswith("granted, unknown asked")
    assert "GPUs" not in said


def test_gpus_without_a_price_leave_no_cost_that_is_too_low() -> None:
    found = account(nodes(cores_per_node=4, gpus_per_node=4, price_per_core_hour=0.1))
    assert found.cost is None
    assert "price_per_gpu_hour" in found.price_basis
    both = nodes(cores_per_node=4, gpus_per_node=4, price_per_core_hour=0.1, price_per_gpu_hour=2.0)
    hours = 100 / 3600
    assert account(both).cost == pytest.approx(4 * 0.1 * hours + 4 * 2.0 * hours)


def test_a_study_on_two_sites_pays_for_the_one_that_has_a_price() -> None:
    entries = nodes(cores_per_node=8, gpus_per_node=2, price_per_gpu_hour=3.0)
    entries += [Entry(T0 + 1000, session(2)), Entry(T0 + 1100, SessionEnded(2, "done"))]
    found = account(entries)
    assert found.gpu_hours_granted == pytest.approx(2 * 100 / 3600)
    assert found.gpu_hours_used == pytest.approx(2 * 70 / 3600)
    assert found.cost == pytest.approx(3 * found.gpu_hours_granted)
    assert found.price_basis.endswith("sessions on local have no price and count nothing")
    assert any(name == "price" for name, _ in accounts(found))


def test_the_nodes_of_a_submitted_job_are_held_since_the_job_began() -> None:
    told = {"scheduler": "slurm", "nodes": 2, "cores_per_node": 4, "workers_per_node": 1}
    told |= {"gpus_per_node": 0, "walltime_seconds": 600, "inside": True, "held_seconds": 25.0}
    found = account(at((0, session(**told)), (75, SessionEnded(1, "walltime"))))
    assert found.core_hours_granted == pytest.approx(2 * 4 * 100 / 3600)
    assert found.core_hours_asked == pytest.approx(2 * 4 * 600 / 3600)


def test_journals_of_0_1_are_read_and_say_what_they_can(tmp_path: Path) -> None:
    """Their lines have none of the newer keys."""
    import json
    import zlib

    made = journals.simulate(tmp_path / "x", SPACE, lose=(3,), fail={1: ("error", "x", "")})
    newer = {"allotment", "opened", "driver_seconds"}
    lines = []
    for line in (made / "journal.jsonl").read_text().splitlines():
        body = {key: value for key, value in json.loads(line).items() if key not in newer}
        body.pop("crc")
        if body["kind"] in ("failure", "retry", "node"):
            body.pop("seconds")
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        lines.append(f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n')
    old = [decode(line) for line in lines]
    assert old == read(made / "journal.jsonl")
    found = account(old)
    assert found.lost_seconds > 0
    spent = (found.busy_seconds, found.lost_seconds, found.travel_seconds, found.waiting_seconds)
    spent += (found.rest_seconds, found.underway_seconds)
    assert sum(spent) == pytest.approx(found.worker_seconds, abs=0.1)
    assert math.isnan(found.overhead_seconds)
    assert found.core_hours_granted == found.core_hours_asked > found.core_hours_used


def test_an_account_of_nothing_is_nothing() -> None:
    for entries in ([], at()):
        found = account(entries)
        assert (found.wall_seconds, found.busy_seconds, found.longest_chain_run) == (0, 0, "")
        assert math.isnan(found.utilisation)
        assert list(accounts(found)) == []
        assert len(timings.workers(entries)) == 0


def test_new_records_come_back_from_the_journal_as_they_were() -> None:
    for entry in nodes(cores_per_node=8, walltime_seconds=3600, price_per_core_hour=0.5):
        assert decode(encode(entry)) == entry


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        (None, 0),
        ("gpu", 1),
        ("gpu:4", 4),
        ("gpu:a100:2", 2),
        ("craynetwork:1,gpu:v100:3", 3),
        ("gpu:a:1,gpu:b:2", 3),
        ("nvme:5", 0),
        ("gpumem:16", 0),
        ("ngpus:4", 4),
        ("ngpus", 1),
    ],
)
def test_gpus_of_a_site_are_those_that_its_jobs_ask_for(gres: str | None, gpus: int) -> None:
    """Losing this: GPUs that are foretold are not counted, or have no worker for each."""
    site = Site(scheduler="slurm", gres=gres)
    assert site.gpus == gpus
    assert Machine.from_site("mine", site).gpus_per_node == gpus
    assert Place(Found("mine", site, None), (1, 1)).gpus == (gpus > 0)


def test_a_job_is_charged_what_it_takes_or_all_where_nobody_else_may_have_it() -> None:
    shared = Site(scheduler="slurm", workers_per_node=2, threads_per_worker=3, cores_per_node=36)
    assert shared.charged_cores == 6
    assert shared.model_copy(update={"exclusive": True}).charged_cores == 36
    unknown = shared.model_copy(update={"exclusive": True, "cores_per_node": None})
    assert unknown.charged_cores is None
