"""Measuring layouts through the command line, here and on a real Slurm.

Losing these: half a measurement that counts, one that is made twice, scores that depend on the
layout, a mistake that leaves something behind.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pandas as pd
import pytest

from stormsweep.cluster import machine
from stormsweep.records import SessionBegun, TaskDone
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling.measured import over_in
from tests.slurm.cluster import MiniSlurm

from .conftest import called, digits_study, start, stormsweep, tasks, wait_for

SPACE = "batch_size = [16, 32]\nlearning_rate = [0.01]\nepochs = [1, 2]"


def small_study(folder: Path, **changes: str) -> Path:
    return digits_study(folder, search__space=SPACE, site="workers = 1", **changes)


def measurements(folder: Path, site: str = "local") -> dict[str, Path]:
    place = folder / "runs" / "digits" / "scale" / site
    return {path.parent.name: path.parent for path in sorted(place.glob("*/journal.jsonl"))}


@pytest.mark.slow
@pytest.mark.skipif(machine.cores() < 2, reason="with one core there is one layout")
def test_layouts_are_measured_once_with_the_same_scores_and_shown(
    tmp_path: Path, no_orphans: None
) -> None:
    study = small_study(tmp_path)
    asked = ("scale", study, "--workers", "1,2", "--repeats", "1", "--weak")
    # Stopped in its second measurement, it goes on with that one.
    driver = start(tmp_path, *asked)
    wait_for(lambda: len(measurements(tmp_path)) == 2, driver)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert f"go on with: stormsweep scale {study} --workers 1,2 --repeats 1 --weak" in err
    kept = {name: path for name, path in measurements(tmp_path).items() if over_in(path)}
    before = {name: (path / "journal.jsonl").read_bytes() for name, path in kept.items()}
    assert before
    done = stormsweep(tmp_path, *asked)
    assert done.returncode == 0, done.stderr
    assert "Best layout: " in done.stdout
    assert "The scores are the same in all layouts" in done.stdout
    found = measurements(tmp_path)
    assert set(found) == {"1x1.4-runs.1", "2x1.4-runs.1", "1x1.2-runs.1"}
    for name, journal in before.items():
        assert (found[name] / "journal.jsonl").read_bytes() == journal, "measured twice"
    for name, path in found.items():
        (begun,) = of_kind(read(path / "journal.jsonl"), SessionBegun)
        assert f"{begun.workers}x{begun.threads_per_worker}" == name.partition(".")[0]
        assert len(tasks(path)) == 2 * int(name.split(".")[1].removesuffix("-runs"))
        # Each worker has a core to itself, whatever the layout leaves free.
        cores = {(task.worker, *task.cores) for task in tasks(path)}
        assert len(cores) == begun.workers
        assert all(len(one) == 2 for one in cores)
    one, two = (
        {(task.run, task.to_epoch): task.scores for task in tasks(found[name])}
        for name in ("1x1.4-runs.1", "2x1.4-runs.1")
    )
    assert one == two
    report = tmp_path / "runs" / "digits" / "scale" / "local" / "report"
    table = pd.read_csv(report / "tables" / "scaling-strong.csv")
    assert list(table["workers"]) == [1, 2]
    assert (report / "figures" / "scaling-weak.png").is_file()

    again = called(tmp_path, *asked)
    assert again.returncode == 0, again.stderr
    assert "Nothing was left to measure." in again.stdout
    # Other times would be compared with those of another study.
    small_study(tmp_path, validation="folds = 3")
    other = called(tmp_path, *asked)
    assert other.returncode == 2
    assert "validation.folds was 2, is 3" in other.stderr


def test_a_wrong_measurement_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    study, cores = small_study(tmp_path), machine.cores()
    for arguments, said in (
        (("--workers", "1,x"), "--workers: given '1,x'; must be numbers from 1, such as 1,2,4"),
        (
            ("--workers", str(cores + 1)),
            f"--workers: {cores + 1} workers x 1 thread is wider than the machine",
        ),
        (("--threads", str(cores + 1)), f"--threads: given {cores + 1}; this machine has"),
        (("--nodes", "2"), "--nodes: is for sites of a cluster"),
        (("--walltime", "01:00:00"), "--walltime: is for sites of a cluster"),
        (("--pin", "sideways"), "--pin: given 'sideways'; must be any of within, across, none"),
        (("--site", "nowhere"), "given 'nowhere'"),
        (("--repeats", "0"), "--repeats"),
    ):
        done = called(tmp_path, "scale", study, *arguments)
        assert done.returncode == 2, (arguments, done)
        assert said in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_that_cannot_be_trained_leaves_no_half_a_measurement(tmp_path: Path) -> None:
    study = small_study(tmp_path, model='build = "no_such_package.models:net"')
    done = called(tmp_path, "scale", study, "--workers", "1")
    assert done.returncode == 2
    assert "there is no module 'no_such_package'" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_layouts_are_measured_on_the_nodes_of_a_site(tmp_path: Path, slurm: MiniSlurm) -> None:
    (tmp_path / "sites.toml").write_text(
        '[site.two]\nscheduler = "slurm"\npartition = "batch"\nwalltime = "00:10:00"\n'
        "nodes = 2\nmemory_gb = 3\nworkers_per_node = 1\n",
        encoding="utf-8",
    )
    study = small_study(tmp_path)
    wide = called(tmp_path, "scale", study, "--site", "two", "--nodes", "9")
    assert wide.returncode == 2, wide
    assert "site.two.nodes: given 9" in wide.stderr
    assert not (tmp_path / "runs").exists()
    done = stormsweep(tmp_path, "scale", study, "--site", "two", "--nodes", "1,2", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    found = measurements(tmp_path, "two")
    assert set(found) == {"1x1.4-runs.1", "2x1-on-2.4-runs.1"}
    (begun,) = of_kind(read(found["2x1-on-2.4-runs.1"] / "journal.jsonl"), SessionBegun)
    assert (begun.site, begun.workers) == ("two", 2)
    one, two = (
        {(task.run, task.to_epoch): task.scores for task in tasks(path)} for path in found.values()
    )
    assert one == two
    assert len({task.worker for task in tasks(found["2x1-on-2.4-runs.1"])}) == 2
    about = json.loads((found["1x1.4-runs.1"].parent / "scale.json").read_text())
    assert about["machine"] == "site two"
    assert of_kind(read(found["1x1.4-runs.1"] / "journal.jsonl"), TaskDone)
    assert slurm.run("squeue", "--noheader") == ""
