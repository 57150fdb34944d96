"""`submit`: a study that a cluster's walltimes cut into jobs must end as if there were none."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stormsweep.cluster import machine
from stormsweep.cluster.slurm import Slurm
from stormsweep.errors import StudyInterrupted
from stormsweep.files import write_json
from stormsweep.records import SessionBegun, SessionEnded, WorkerEvent
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling.accounts import account
from stormsweep.study import drive, lock
from stormsweep.study import jobs as jobs_of_study
from stormsweep.study.directory import study_key
from stormsweep.study.lock import driver_of
from stormsweep.study.places import Place
from stormsweep.study.submission import driver_key
from tests.slurm.cluster import MiniSlurm

from .conftest import called, digits_study, scores, start, stormsweep, tasks, wait_for

SITES = """
[site.mine]
scheduler = "slurm"
partition = "{partition}"
walltime = "{walltime}"
nodes = {nodes}
memory_gb = {memory}
workers_per_node = {workers}
{more}
"""
#: One run of a fold, one task: the smallest that there is.
TINY = {"search__space": "learning_rate = [0.01]\nbatch_size = [32]\nepochs = [2]"}


def write_site(place: Path, more: str = "", **values: object) -> None:
    given = {"partition": "batch", "walltime": "00:20:00", "nodes": 1, "memory": 2, "workers": 1}
    (place / "sites.toml").write_text(SITES.format(**given | values, more=more), encoding="utf-8")


def submit(folder: Path, study: Path | str, *more: str) -> str:
    """Submit a study to the site and return the job's number."""
    done = called(folder, "submit", study, "--site", "mine", *more)
    assert done.returncode == 0, (done.stdout, done.stderr)
    found = re.match(r"Job (\d+) on mine; Slurm expects it to start at \S+ on n", done.stdout)
    assert found is not None, done.stdout
    return found[1]


def queue(slurm: MiniSlurm) -> dict[str, str]:
    """Return what is in the queue: number and state."""
    lines = slurm.run("squeue", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def until(true: Callable[[], bool], directory: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, said(directory)
        time.sleep(0.1)


def driver(directory: Path) -> int:
    found = driver_of(directory)
    assert found is not None
    return int(found["pid"])


def sessions(directory: Path) -> int:
    return len(of_kind(read(directory / "journal.jsonl"), SessionBegun))


def ended(directory: Path) -> list[SessionEnded]:
    return of_kind(read(directory / "journal.jsonl"), SessionEnded)


def blocked(slurm: MiniSlurm, *options: str) -> str:
    """Have a job of somebody else's hold nodes; return its number."""
    given = ["--parsable", "--time=5", "--output=/dev/null", *options, "--wrap=sleep 300"]
    return slurm.run("sbatch", *given).strip()


def running(slurm: MiniSlurm) -> str:
    return next(id for id, state in queue(slurm).items() if state == "RUNNING")


def said(directory: Path) -> str:
    """Return all that the study's jobs said."""
    return "".join(
        f"--- {file.name}\n{file.read_text(errors='replace')}"
        for file in sorted((directory / "logs").glob("*"))
        if file.name.startswith(("slurm-", "driver"))
    )


def test_a_study_is_done_and_leaves_nothing_in_the_queue(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path, "threads_per_worker = 2")
    sites = tmp_path / "sites.toml"
    sites.write_text(sites.read_text().replace("memory_gb = 2\n", ""))
    job = submit(tmp_path, digits_study(tmp_path, **TINY), "--walltime", "00:15:00")
    directory = tmp_path / "runs" / "digits"
    until(lambda: not queue(slurm), directory)
    assert len(tasks(directory)) == 2, said(directory)
    # Nobody is confined here: of what Slurm gives a processor, 1000 MiB, nine tenths.
    (log_of_the_node,) = (directory / "logs").glob(f"slurm-{job}.out")
    assert re.search(r"1 workers on n2013-\d, 1\.76 GiB each", log_of_the_node.read_text())
    # The job that would have gone on was asked for with the same walltime.
    told = slurm.run("squeue", "--states=all", "--noheader", "--format=%Z %l").splitlines()
    assert [line.split()[-1] for line in told if line.startswith(str(tmp_path))] == ["15:00"] * 2
    assert (directory / "report" / "index.html").exists()
    jobs = Slurm().jobs_of(study_key(directory))
    assert sorted(one.state for one in jobs.values()) == ["CANCELLED", "COMPLETED"]
    followed = stormsweep(tmp_path, "watch", directory)
    assert "digits: finished" in followed.stdout
    assert "2/2 tasks (100 %)" in followed.stderr
    entries = read(directory / "journal.jsonl")
    (begun,) = of_kind(entries, SessionBegun)
    assert begun.allotment["inside"]
    assert begun.allotment["walltime_seconds"] == 15 * 60
    assert 0 <= begun.allotment["queued_seconds"] < 600
    # Data are prepared once: no later job starts as slowly.
    assert 0 < begun.allotment["prepared_seconds"] < begun.allotment["held_seconds"]
    ready = [one for one in of_kind(entries, WorkerEvent) if one.event == "ready"]
    assert {one.processor for one in ready} == {machine.processor()}
    # The job's nodes are charged from its first second to its last; the report is after the end
    # of the session.
    spent, per_node = account(entries), begun.allotment["cores_per_node"]
    ran = max(one.seconds or 0.0 for one in jobs.values())
    held = 3600 * spent.core_hours_granted / per_node / begun.allotment["nodes"]
    assert ran - 60 <= held <= ran + 2
    assert held > spent.wall_seconds + 0.5
    assert 0 < spent.core_hours_used <= spent.core_hours_granted <= spent.core_hours_asked
    log = (directory / "logs" / "slurm-mine.out").read_text()
    assert f"job {job}, number 1 of at most 100, on n2013-" in log
    assert "Best: " in log
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", x) for x in log.splitlines())


@pytest.mark.slow
def test_killed_and_told_to_leave_it_comes_to_the_scores_of_one_session(
    slurm: MiniSlurm, tmp_path: Path, digits: Path
) -> None:
    """The first job is killed, the second leaves, the third ends: as if nothing had happened."""
    # Set-up lines, such as a `module swap`, need not bear what they did themselves.
    once = """setup = ['test -z "$DONE" || exit 1', 'export DONE=1']"""
    write_site(tmp_path, workers=2, memory=3, more=once)
    first = submit(tmp_path, digits_study(tmp_path))
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) > 1, directory)
    os.kill(driver(directory), signal.SIGKILL)
    until(lambda: queue(slurm).get(first) is None and "RUNNING" in queue(slurm).values(), directory)
    second = running(slurm)
    until(lambda: sessions(directory) > 1, directory)
    before = len(tasks(directory))
    until(lambda: len(tasks(directory)) > before, directory)
    slurm.run("scancel", "--signal=USR1", "--batch", second)
    until(lambda: "goes on" in said(directory).rpartition(f"job {second},")[2], directory)
    until(lambda: not queue(slurm), directory, 300)
    assert scores(directory) == scores(digits)
    states = [one.state for one in Slurm().jobs_of(study_key(directory)).values()]
    assert sorted(states) == ["CANCELLED", "COMPLETED", "COMPLETED", "FAILED"], said(directory)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_dies_before_its_driver_begins_does_not_end_the_chain(
    slurm: MiniSlurm, tmp_path: Path, digits: Path
) -> None:
    """As on a node where Python does not start: after one that left, the one after it goes on."""
    bad = tmp_path / "bad"
    setup = f"setup = ['mv {bad} {bad}-$SLURM_JOB_ID 2>/dev/null && exit 1']"
    write_site(tmp_path, workers=2, memory=3, more=setup)
    first = submit(tmp_path, digits_study(tmp_path))
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) > 1 and len(queue(slurm)) == 2, directory)
    second = next(id for id in queue(slurm) if id != first)
    bad.touch()
    slurm.run("scancel", "--signal=USR1", "--batch", first)
    until(lambda: not queue(slurm), directory, 400)
    assert (tmp_path / f"bad-{second}").exists()
    assert scores(directory) == scores(digits)
    jobs = Slurm().jobs_of(study_key(directory))
    states = [jobs[id].state for id in sorted(jobs, key=int)]
    assert states == ["COMPLETED", "FAILED", "COMPLETED", "CANCELLED"], said(directory)


@pytest.mark.slow
def test_a_full_disk_costs_a_job_and_not_the_chain(
    slurm: MiniSlurm, tmp_path: Path, digits: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=755", "small", str(runs)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        write_site(tmp_path, workers=2, memory=3)
        first = submit(tmp_path, digits_study(tmp_path))
        directory = runs / "digits"
        until(lambda: len(tasks(directory)) > 1, directory)
        with contextlib.suppress(OSError), open(runs / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 16))
        until(lambda: queue(slurm).get(first) is None, directory)
        (runs / "filler").unlink()
        until(lambda: not queue(slurm), directory)
        assert scores(directory) == scores(digits)
        assert sessions(directory) > 1
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)


@pytest.mark.slow
def test_a_job_that_is_requeued_is_not_taken_for_one_that_was_cancelled(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    """Else it cancels its successor, and should it not start again the study is lost."""
    write_site(tmp_path)
    job = submit(tmp_path, digits_study(tmp_path))
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) > 0 and len(queue(slurm)) == 2, directory)
    slurm.run("scontrol", "update", f"jobid={job}", "requeue=1")
    slurm.run("scontrol", "requeue", job)
    until(lambda: "Slurm ends this job; job " in said(directory), directory)
    until(lambda: queue(slurm).get(job) == "PENDING", directory)
    assert sorted(queue(slurm).values()) == ["PENDING", "PENDING"]


@pytest.mark.slow
def test_no_more_jobs_than_were_asked_for(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path, workers=2, memory=3)
    job = submit(tmp_path, digits_study(tmp_path), "--max-jobs", "1")
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) > 1, directory)
    assert list(queue(slurm)) == [job]
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    until(lambda: not queue(slurm), directory)
    assert f"go on with: stormsweep submit {directory} --site mine" in said(directory)
    assert Slurm().jobs([job])[job].state == "FAILED"


@pytest.mark.parametrize("by", ["scancel", "cancel"])
def test_a_study_that_is_cancelled_does_not_go_on(
    slurm: MiniSlurm, tmp_path: Path, by: str, no_orphans: None
) -> None:
    write_site(tmp_path)
    job = submit(tmp_path, digits_study(tmp_path))
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) > 0 and len(queue(slurm)) == 2, directory)
    if by == "scancel":
        slurm.run("scancel", job)
    else:
        done = called(tmp_path, "cancel", "runs/digits")
        assert f"driver {job}, RUNNING on n2013-" in done.stdout
        assert "PENDING: cancelled" in done.stdout.splitlines()[-1] + done.stdout.splitlines()[0]
    until(lambda: not queue(slurm), directory)
    jobs = Slurm().jobs_of(study_key(directory))
    assert [one.state for one in jobs.values()] == ["CANCELLED", "CANCELLED"], said(directory)
    assert [one.nodes for id, one in jobs.items() if id != job] == [""], "the successor started"
    assert ended(directory)[-1].outcome == "interrupted"
    again = called(tmp_path, "cancel", "runs/digits")
    assert "no job and no driver" in again.stdout


def test_a_successor_does_not_go_on_after_a_job_that_was_cancelled(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slurm cancels so fast that the driver cannot cancel its successor any more."""
    write_site(tmp_path, walltime="00:05:00")
    (tmp_path / "blocker").write_text(
        "#!/bin/bash\n#SBATCH -N2 --exclusive -t 5 -o /dev/null\nsleep 300\n"
    )
    blocker = slurm.run("sbatch", "--parsable", str(tmp_path / "blocker")).strip()
    job = submit(tmp_path, digits_study(tmp_path, **TINY))
    directory = tmp_path / "runs" / "digits"
    # Sent ahead by the one before, to go on should this one be over before it begins.
    later = "#!/bin/bash\n#SBATCH --begin=now+1hour -o /dev/null\nsleep 1\n"
    ahead = Slurm().submit(later, tmp_path, driver_key(directory, "999"))
    slurm.run("scancel", job, blocker)
    monkeypatch.setenv("SLURM_JOB_ID", "999")
    given = ["--site", "mine", "--sites", tmp_path / "sites.toml", "--after", job, "--job", "2"]
    done = called(tmp_path, "drive", "runs/digits", *given)
    assert done.returncode == 130
    assert f"job {job} was cancelled: this one does not go on" in done.stdout
    assert not (directory / "journal.jsonl").exists()
    assert ahead not in queue(slurm)


@pytest.mark.parametrize("late", [False, True])
def test_a_second_chain_leaves_alone_what_goes_on_after_the_first(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Losing this: two submissions at a time, and the study ends at its first walltime."""
    write_site(tmp_path)
    blocker = blocked(slurm, "-N2", "--exclusive")
    until(lambda: queue(slurm).get(blocker) == "RUNNING", tmp_path)
    called(tmp_path, "submit", digits_study(tmp_path, **TINY), "--site", "mine")
    directory = tmp_path / "runs" / "digits"
    (first,) = queue(slurm).keys() - {blocker}
    later = "#!/bin/bash\n#SBATCH --begin=now+1hour -o /dev/null\nsleep 1\n"
    ahead = Slurm().submit(later, tmp_path, driver_key(directory, first))
    if late:
        # The first one's driver begins just after the second one looked for it.
        monkeypatch.setattr(drive, "refuse_if_busy", lambda directory: None)
    monkeypatch.setenv("SLURM_JOB_ID", blocker)
    with lock.DriverLock(directory):
        given = ["--site", "mine", "--sites", tmp_path / "sites.toml"]
        done = called(tmp_path, "drive", "runs/digits", *given)
    assert done.returncode == 2
    assert "another driver is at work on this study" in done.stderr
    assert queue(slurm) == {blocker: "RUNNING", first: "PENDING", ahead: "PENDING"}
    others = Slurm().jobs_of(study_key(directory)).keys() - {first, ahead}
    assert len(others) == late, "a job that is of no use was submitted"


def test_a_driver_ends_its_workers_by_what_is_left_of_its_job(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: it waits for them until the job is over, and the study ends with it."""
    write_site(tmp_path)
    job = blocked(slurm, "-N2", "--exclusive")  # Of five minutes, where its site says twenty.
    until(lambda: queue(slurm).get(job) == "RUNNING", tmp_path)
    submit(tmp_path, digits_study(tmp_path, **TINY))
    places: list[Place] = []

    def train(study: object, place: Place, *_: object) -> None:
        places.append(place)
        raise StudyInterrupted

    monkeypatch.setattr(drive, "train", train)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    given = ["--site", "mine", "--sites", tmp_path / "sites.toml"]
    done = called(tmp_path, "drive", "runs/digits", *given)
    assert "Slurm ends this job; job" in done.stdout, done.stderr
    assert places[0].ends < time.monotonic() + 300


def test_a_job_that_waits_is_told_of_and_is_the_only_one(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path, nodes=2, more="exclusive = true")
    blocker = blocked(slurm, "-N1")
    study = digits_study(tmp_path, **TINY)
    job = submit(tmp_path, study)
    told = called(tmp_path, "status", study)
    assert told.returncode == 0, told.stderr
    assert f"job {job} PENDING" in told.stdout
    again = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert again.returncode == 2
    assert f"job {job} of this study is in the queue already: PENDING" in again.stderr
    ahead = Slurm().submit(
        "#!/bin/bash\n#SBATCH --begin=now+1hour -o /dev/null\n",
        tmp_path,
        driver_key(tmp_path / "runs" / "digits", job),
    )
    slurm.run("scancel", blocker)
    until(lambda: queue(slurm).get(job) == "RUNNING", tmp_path / "runs" / "digits")
    again = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert f"job {job} of this study is in the queue already: RUNNING" in again.stderr, ahead
    assert f"driver {job}, " in called(tmp_path, "cancel", study).stdout
    until(lambda: not queue(slurm), tmp_path / "runs" / "digits")


def test_a_job_whose_nodes_are_out_of_service_is_queued_as_sbatch_would(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    """Losing this: a study refused, or a chain ended, for a node that an operator has drained."""
    write_site(tmp_path, nodes=2)
    slurm.run("scontrol", "update", "nodename=n2013-1", "state=drain", "reason=disk")
    study = digits_study(tmp_path, **TINY)
    done = called(tmp_path, "submit", study, "--site", "mine")
    assert done.returncode == 0, done.stderr
    waits = "1 of the 2 nodes that fit are down or drained (n2013-1)"
    assert f"on mine; Slurm expects it to wait: {waits}" in done.stdout
    wait_in_vain(slurm, tmp_path)
    # A whole partition: what sites do for their maintenance.
    write_site(tmp_path)
    slurm.run("scontrol", "update", "partitionname=batch", "state=down")
    done = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert done.returncode == 0, done.stderr
    assert "on mine; Slurm expects it to wait: partition 'batch' is down" in done.stdout
    wait_in_vain(slurm, tmp_path)
    slurm.run("scontrol", "update", "partitionname=batch", "state=drain")
    refused = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert "partition: given 'batch', which takes no jobs: drain" in refused.stderr
    slurm.run("scontrol", "update", "partitionname=batch", "state=down")
    # What is wrong otherwise is refused all the same.
    write_site(tmp_path, nodes=3)
    refused = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert "nodes: given 3; partition 'batch' has 2 that fit" in refused.stderr
    assert not queue(slurm)


def wait_in_vain(slurm: MiniSlurm, place: Path) -> None:
    (job,) = queue(slurm)
    assert queue(slurm) == {job: "PENDING"}
    slurm.run("scancel", job)
    until(lambda: not queue(slurm), place / "runs" / "digits")


@pytest.mark.slow
def test_watch_follows_from_the_queue_to_the_end(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path)
    job = submit(tmp_path, digits_study(tmp_path, **TINY))
    watched = stormsweep(tmp_path, "watch", "runs/digits")
    assert watched.returncode == 0, watched.stderr
    report = "runs/digits/report/index.html"
    assert watched.stdout == f"digits: finished\nReport: {report}\n"
    assert (tmp_path / report).exists()
    assert f"job {job} " in watched.stderr
    assert watched.stderr.splitlines()[-1] == "writing the report ..."
    assert "2/2 tasks (100 %), " in watched.stderr.splitlines()[-2]


def test_a_dry_run_prints_the_script_and_does_nothing(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path)
    study = digits_study(tmp_path, **TINY)
    done = called(tmp_path, "submit", study, "--site", "mine", "--dry-run", "--max-jobs", "7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=digits-stormsweep\n")
    assert f"-m stormsweep drive {tmp_path}/runs/digits --site mine" in done.stdout
    assert "--signal=B:USR1@120" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("digits.npz", "digits.toml", "sites.toml")
    ]
    assert not queue(slurm)


def test_it_is_quick_and_imports_nothing_numerical_on_the_login_node(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    write_site(tmp_path)
    digits_study(tmp_path, **TINY)
    code = (
        "import sys; from stormsweep import Study; "
        "Study.from_toml('digits.toml').submit('mine', dry_run=True); "
        "print([m for m in ('numpy', 'pandas', 'tensorflow', 'keras', 'dask') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("values", "more", "said"),
    [
        ({"partition": "bach"}, [], "site.mine.partition: given 'bach' (did you mean 'batch'?)"),
        ({"partition": "gpu", "walltime": "05:00:00"}, [], "site.mine.walltime: given 05:00:00"),
        ({"memory": 64}, [], "site.mine.memory_gb: given 64; the largest node"),
        ({}, ["--walltime", "01:00:00"], "--walltime: given 01:00:00; a job may take 00:20:00"),
        ({"nodes": 3}, [], "site.mine.nodes: given 3; partition 'batch' has 2"),
        ({}, ["--nodes", "3"], "--nodes: given 3; partition 'batch' has 2"),
        ({"more": "setup = ['echo \"']"}, [], "site.mine.setup: bash cannot read it"),
        ({"more": "shared_folder = '/usr'"}, [], "site.mine.shared_folder: given '/usr'; "),
        ({"more": "constraint = 'a|b'"}, [], "site.mine.constraint: given 'a|b'; Slurm refuses it"),
        ({}, ["--site", "mime"], "--site: given 'mime' (did you mean 'mine'?)"),
        ({}, ["--site", "local"], "--site: given 'local', which is this machine"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    slurm: MiniSlurm, tmp_path: Path, values: dict[str, str], more: list[str], said: str
) -> None:
    write_site(tmp_path, **values)
    study = digits_study(tmp_path, **TINY)
    given = more if "--site" in more else ["--site", "mine", *more]
    done = called(tmp_path, "submit", study, *given)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not queue(slurm)


@pytest.mark.parametrize("verb", ["submit", "run"])
def test_what_the_study_file_asks_of_a_site_is_refused_by_its_key(
    slurm: MiniSlurm, tmp_path: Path, verb: str
) -> None:
    """Losing this: an option is blamed that was not given."""
    write_site(tmp_path)
    study = digits_study(tmp_path, **TINY, site="nodes = 3")
    done = called(tmp_path, verb, study, "--site", "mine")
    said = f"{study}: site.nodes: given 3; partition 'batch' has 2 that fit"
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    done = called(tmp_path, verb, study, "--site", "mine", "--nodes", "4")
    assert "--nodes: given 4; partition 'batch' has 2 that fit" in done.stderr


def test_a_study_that_the_job_would_refuse_is_refused_here(
    slurm: MiniSlurm, tmp_path: Path, digits: Path
) -> None:
    write_site(tmp_path)
    study = digits_study(tmp_path, **TINY, model='build = "nowhere.py:model"')
    assert "nowhere.py" in called(tmp_path, "submit", study, "--site", "mine").stderr
    shutil.copytree(digits, tmp_path / "runs" / "digits")
    done = called(tmp_path, "submit", digits_study(tmp_path, **TINY), "--site", "mine")
    assert done.returncode == 2
    assert "search.space.epochs was [6, 12, 18, 24], is [2]" in done.stderr
    done = called(tmp_path, "submit", "runs/digits", "--site", "mine")
    assert "nothing is left to train" in done.stderr
    assert not queue(slurm)


def test_a_study_that_grew_keeps_its_earlier_file_when_it_is_submitted(
    slurm: MiniSlurm, tmp_path: Path, digits: Path
) -> None:
    """Losing this, the job takes the study for one that was always so."""
    write_site(tmp_path)
    directory = tmp_path / "runs" / "digits"
    shutil.copytree(digits, directory)
    before = (directory / "study.toml").read_text()
    (tmp_path / "digits.toml").write_text(re.sub(r"\b24\b", "24, 25", before))
    submit(tmp_path, tmp_path / "digits.toml")
    assert (directory / "study.1.toml").read_text() == before
    assert "25" in (directory / "study.toml").read_text()
    assert called(tmp_path, "cancel", directory).returncode == 0


def test_a_study_asks_for_less_time_than_its_site_lets_jobs_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this, a short study waits for long, or shortens the jobs of all others."""
    write_site(tmp_path, walltime="90")
    monkeypatch.setenv("PATH", str(tmp_path))
    plain = digits_study(tmp_path, **TINY)
    own = digits_study(tmp_path, "own", **TINY, site='walltime = "00:45:00"')
    local = digits_study(tmp_path, "here", **TINY, site='use = "local"\nwalltime = "00:45:00"')
    for study, more, walltime in (
        (plain, (), "01:30:00"),
        (plain, ("--walltime", "01:30:00"), "01:30:00"),
        (plain, ("--walltime", "00:30:00"), "00:30:00"),
        (own, (), "00:45:00"),
        (own, ("--walltime", "01:00:00"), "01:00:00"),
    ):
        for verb in ("submit", "run"):
            shown = called(tmp_path, verb, study, "--site", "mine", "--dry-run", *more)
            assert f"#SBATCH --time={walltime}\n" in shown.stdout, (verb, more, shown.stderr)
    # The jobs that go on are asked for with it too.
    first = called(tmp_path, "submit", own, "--site", "mine", "--dry-run").stdout
    assert "--walltime 00:45:00" in first
    longer = digits_study(tmp_path, "own", **TINY, site='walltime = "02:00:00"')
    for study, more, said in (
        (plain, ("--walltime", "91"), "--walltime: given 91; a job may take 90 at most ("),
        (plain, ("--walltime", "00:30"), "--walltime: given '00:30'; Slurm reads this as minutes"),
        (longer, (), f"{longer}: site.walltime: given 02:00:00; a job may take 90 at most ("),
    ):
        for verb in ("submit", "run"):
            refused = called(tmp_path, verb, study, "--site", "mine", "--dry-run", *more)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert said in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
    here = called(tmp_path, "run", local, "--walltime", "00:30:00")
    assert "--walltime: is for sites of a cluster" in here.stderr
    assert called(tmp_path, "plan", local).returncode == 0


def test_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_site(tmp_path)
    study = digits_study(tmp_path, **TINY)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = called(tmp_path, "submit", study, "--site", "mine")
    assert done.returncode == 2
    assert "there is no Slurm here" in done.stderr
    dry = called(tmp_path, "submit", study, "--site", "mine", "--dry-run")
    assert dry.returncode == 0
    assert dry.stdout.startswith("#!/bin/bash")
    assert "not checked: there is no Slurm here" in dry.stderr
    dry = called(tmp_path, "run", study, "--site", "mine", "--dry-run")
    assert (dry.returncode, dry.stdout[:11]) == (0, "#!/bin/bash")
    # Slurm's commands, and nobody who answers them.
    trouble = "Unable to contact slurm controller (connect failure)"
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        text = f"#!/bin/sh\necho '{name}: error: first' >&2\necho '{name}: error: {trouble}' >&2\n"
        (tmp_path / name).write_text(f"{text}exit 1\n")
        (tmp_path / name).chmod(0o755)
    said = f"Slurm does not answer: {trouble}"
    for verb in ("submit", "run"):
        dry = called(tmp_path, verb, study, "--site", "mine", "--dry-run")
        assert (dry.returncode, dry.stdout[:11]) == (0, "#!/bin/bash"), dry.stderr
        assert dry.stderr == f"stormsweep: not checked: {said}\n"
    done = called(tmp_path, "submit", study, "--site", "mine")
    assert (done.returncode, done.stderr) == (1, f"stormsweep: {said}\n")
    assert not (tmp_path / "runs").exists()
    assert called(tmp_path, "drive", "runs/x", "--site", "m", "--sites", "s").returncode == 2


@pytest.mark.slow
def test_folders_of_odd_names_do_no_harm(slurm: MiniSlurm, tmp_path: Path) -> None:
    """Quoted for sbatch, for bash, and for Slurm's own names of logs."""
    here, runs = tmp_path / "50% %j $HOME;id #x \u00e9's", '%x "a" `id` $(id)'
    here.mkdir()
    write_site(here)
    submit(here, digits_study(here, **TINY), "--runs", runs)
    directory = here / runs / "digits"
    until(lambda: not queue(slurm), directory)
    assert len(tasks(directory)) == 2, said(directory)
    assert "number 1 of at most 100" in (directory / "logs" / "slurm-mine.out").read_text()
    assert [path.name for path in tmp_path.iterdir()] == [here.name]


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x1bb"])
def test_names_that_a_job_script_cannot_bear_are_refused(
    slurm: MiniSlurm, tmp_path: Path, name: str
) -> None:
    write_site(tmp_path)
    study = digits_study(tmp_path, **TINY)
    done = called(tmp_path, "submit", study, "--site", "mine", "--runs", name)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / name).exists()


def test_an_sbatch_in_trouble_is_tried_again_while_the_study_runs(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path, workers=2, memory=3)
    tools = tmp_path / "tools"
    error = "sbatch: error: Batch job submission failed: Unable to contact slurm controller"
    trouble = f"""
if [[ $text == *--dependency* && ! -e {tools}/tried ]]; then
  touch {tools}/tried; echo "{error}" >&2; exit 1
fi"""
    monkeypatch.setenv("PATH", wrapped(tools, trouble))
    submit(tmp_path, digits_study(tmp_path))
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(queue(slurm)) == 2, directory)
    assert "Slurm is in trouble" in said(directory)
    assert "is submitted to go on after this one" in said(directory)


def wrapped(tools: Path, what: str) -> str:
    """Put an sbatch before the real one that does something with the script, $text; its PATH."""
    tools.mkdir()
    real = shutil.which("sbatch")
    (tools / "sbatch").write_text(
        f'#!/bin/bash\ntext=$(cat)\n{what}\nexec {real} "$@" <<<"$text"\n'
    )
    (tools / "sbatch").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_an_sbatch_that_fails_leaves_no_directory(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path)
    error = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    trouble = f'[[ $* == *test-only* ]] || {{ echo "{error}" >&2; exit 1; }}'
    monkeypatch.setenv("PATH", wrapped(tmp_path / "tools", trouble))
    done = called(tmp_path, "submit", digits_study(tmp_path, **TINY), "--site", "mine")
    assert done.returncode == 2
    assert "site.mine.*: Slurm refuses it: Batch job submission failed: Job vio" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_driver_on_this_machine_is_interrupted(tmp_path: Path, no_orphans: None) -> None:
    driver = start(tmp_path, "run", digits_study(tmp_path))
    wait_for(lambda: len(tasks(tmp_path / "runs" / "digits")) > 0, driver)
    done = called(tmp_path, "cancel", "runs/digits")
    assert done.returncode == 0, done.stderr
    said = f"process {driver.pid} on this machine, the driver: interrupted"
    assert done.stdout.splitlines()[0] == said
    driver.communicate()
    assert driver.returncode == 130


def test_a_driver_elsewhere_is_told_of(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "runs" / "digits"
    shutil.copytree(digits, directory)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.5)
    monkeypatch.setattr(jobs_of_study, "_ELSEWHERE_S", 1.0)
    over = threading.Event()

    def live() -> None:
        said = {"host": "elsewhere", "pid": 77, "started": 0, "token": "t", "seen": "now"}
        for beat in itertools.count():
            write_json(directory / "driver.json", said | {"beat": beat, "dashboard": 8787})
            if over.wait(0.02):
                return

    thread = threading.Thread(target=live)
    thread.start()
    try:
        until(lambda: (directory / "driver.json").exists(), directory)
        done = called(tmp_path, "cancel", "runs/digits")
        status = called(tmp_path, "status", "runs/digits")
    finally:
        over.set()
        thread.join()
    assert done.returncode == 1
    assert "its driver, process 77 on elsewhere, was told to end 1 s ago and is sti" in done.stderr
    assert "kill -KILL 77 there ends it" in done.stderr
    assert not (directory / "stop.json").exists(), "it would stop, long after, nobody knows why"
    assert "dashboard  ssh -N -L 8787:127.0.0.1:8787 elsewhere" in status.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_of_many_walltimes_is_done_unattended(slurm: MiniSlurm, tmp_path: Path) -> None:
    """Seven at least. Each takes a good part of its minute to start; none is killed by walltime."""
    write_site(tmp_path, walltime="00:01:00")
    space = "batch_size = [16, 32]\nlearning_rate = [0.003, 0.01]\n"
    space += f"epochs = {list(range(600, 2401, 600))}"
    submit(tmp_path, digits_study(tmp_path, search__space=space))
    directory = tmp_path / "runs" / "digits"
    until(lambda: not queue(slurm), directory, 1700)
    assert len(scores(directory)) == 8 * 4
    assert sessions(directory) >= 7, said(directory)
    outcomes = [one.outcome for one in ended(directory)]
    assert outcomes == ["walltime"] * (len(outcomes) - 1) + ["done"], said(directory)
    assert (directory / "report" / "index.html").exists()
