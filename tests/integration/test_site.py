"""A study on a real Slurm, every node a job of its own.

Losing these: the scores of a local run; nodes that are paid for and not used; a study that a node,
a worker or a driver takes with it; jobs and processes that outlive their driver; the door locked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stormsweep.cluster.slurm import Slurm
from stormsweep.records import NodeEvent, PlaceRefused, RunFailed, WorkerEvent
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling import timings
from stormsweep.scaling.accounts import account
from stormsweep.study.directory import study_key
from stormsweep.study.study import Study
from tests.marks import slow
from tests.pbs.fake import FakePbs
from tests.slurm.cluster import MiniSlurm

from .conftest import MODELS, called, digits_study, scores, start, stormsweep, tasks, wait_for

SITES = """
[site.two]
scheduler = "slurm"
partition = "{partition}"
walltime = "00:10:00"
nodes = 2
memory_gb = 3
workers_per_node = {workers}
"""


@pytest.fixture
def folder(tmp_path: Path, slurm: MiniSlurm) -> Path:
    return site(tmp_path)


def site(folder: Path, partition: str = "batch", workers: int = 1, more: str = "") -> Path:
    text = SITES.format(partition=partition, workers=workers) + more
    (folder / "sites.toml").write_text(text, encoding="utf-8")
    return folder


def agents(folder: Path) -> Iterator[psutil.Process]:
    """Yield the nodes' agents and their workers, of studies in a folder."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "stormsweep.cluster.node" in line and str(folder) in line:
            yield process
            yield from process.children(recursive=True)


def nothing_is_left(slurm: MiniSlurm, folder: Path, seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while left := list(agents(folder)) or slurm.run("squeue", "--noheader").split():
        assert time.monotonic() < end, left
        time.sleep(0.1)


def events(directory: Path) -> list[WorkerEvent]:
    return of_kind(read(directory / "journal.jsonl"), WorkerEvent)


def what_it_took_is_what_slurm_says(directory: Path) -> None:
    """Compare the account with Slurm's own count of how long the jobs of the two nodes ran."""
    entries = read(directory / "journal.jsonl")
    spent, table = account(entries), timings.workers(entries)
    jobs = Slurm().jobs_of(f"{study_key(directory)}-workers").values()
    ran = sum(job.seconds or 0.0 for job in jobs)
    # Two cores a node, ten minutes each; leaving takes the nodes some seconds.
    assert spent.core_hours_asked == pytest.approx(2 * 2 * 600 / 3600)
    assert 0 < spent.core_hours_used <= spent.core_hours_granted <= spent.core_hours_asked
    assert 2 * (ran - 40) <= 3600 * spent.core_hours_granted <= 2 * (ran + 4)
    assert spent.cost == pytest.approx(0.5 * spent.core_hours_granted)
    assert (table["asked"] <= table["granted"]).all()
    assert (table["granted"] < table["ready"]).all()
    parts = table[[f"{part}_seconds" for part in timings.PARTS]].sum(axis=1)
    assert parts.tolist() == pytest.approx(table["available_seconds"].tolist(), abs=0.01)
    assert spent.underway_seconds == 0


def test_two_nodes_of_a_partition_give_the_scores_of_this_machine(
    folder: Path, slurm: MiniSlurm, digits: Path
) -> None:
    near = folder / "near"
    near.mkdir()
    more = f'scratch = "{near}"\ncopy_data = true\nprice_per_core_hour = 0.5\n'
    site(folder, "high_mem", workers=2, more=more)
    done = stormsweep(folder, "run", digits_study(folder), "--site", "two", "--no-report")
    assert done.returncode == 0, done.stderr
    directory = folder / "runs" / "digits"
    assert scores(directory) == scores(digits)
    used = {task.worker.rsplit("-", 2)[0] for task in tasks(directory)}
    assert used == {"n2018-1", "n2018-2"}
    ready = [event for event in events(directory) if event.event == "ready"]
    assert sorted(event.host for event in ready) == ["n2018-1"] * 2 + ["n2018-2"] * 2
    nodes = of_kind(read(directory / "journal.jsonl"), NodeEvent)
    assert sorted(node.event for node in nodes) == ["asked", "asked", "granted", "granted"]
    logs = [path.read_text() for path in (directory / "logs").glob("slurm-*.out")]
    assert len(logs) == 2
    assert all(f"copied {folder / 'data'}" in log for log in logs), logs
    assert list(near.iterdir()) == []
    assert not (directory / ".private").exists()
    nothing_is_left(slurm, folder)
    what_it_took_is_what_slurm_says(directory)
    # The directory knows its site: it goes on, or has nothing to do, from there.
    again = stormsweep(folder, "run", directory, "--no-report")
    assert "Nothing was left to train." in again.stdout


@pytest.mark.slow
def test_what_is_lost_on_a_node_is_made_good_and_named(
    folder: Path, slurm: MiniSlurm, digits: Path
) -> None:
    driver = start(folder, "run", digits_study(folder), "--site", "two", "--no-report")
    directory = folder / "runs" / "digits"
    for number, kind in enumerate(("worker", "agent", "job", "node")):
        wait_for(lambda least=5 * number: len(tasks(directory)) > least, driver)
        lost = [event.pid for event in events(directory) if event.event == "lost"]
        victim = next(event for event in events(directory) if event.pid not in lost)
        strike(kind, victim, slurm, directory)
        wait_for(lambda pid=victim.pid: loss(directory, pid) is not None, driver)
        expected = {"worker": "killed", "agent": "killed", "job": "cancelled"}
        told = loss(directory, victim.pid)
        assert told is not None
        assert told.failure == expected.get(kind, "node-failure"), (kind, told)
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert scores(directory) == scores(digits)
    nothing_is_left(slurm, folder)


def loss(directory: Path, pid: int) -> WorkerEvent | None:
    found = (one for one in events(directory) if one.event == "lost" and one.pid == pid)
    return next(found, None)


def strike(kind: str, victim: WorkerEvent, slurm: MiniSlurm, directory: Path) -> None:
    if kind == "worker":
        os.kill(victim.pid, signal.SIGKILL)
    elif kind == "agent":
        for process in psutil.Process(victim.pid).parents():
            if "stormsweep.cluster.node" in " ".join(process.cmdline()):
                process.kill()
                return
        raise AssertionError("no agent")
    elif kind == "job":
        number = victim.worker.rsplit("-", 2)[1]
        nodes = of_kind(read(directory / "journal.jsonl"), NodeEvent)
        asked = next(one for one in nodes if one.node == number and one.event == "asked")
        slurm.run("scancel", asked.detail.split()[-1])
    else:
        slurm.run("scontrol", "update", f"nodename={victim.host}", "state=down", "reason=test")


def test_a_driver_that_is_killed_leaves_nothing_and_nobody_else_is_let_in(
    folder: Path, slurm: MiniSlurm
) -> None:
    study = digits_study(folder)
    # One of its jobs waits in the queue when the driver dies.
    script = "#!/bin/bash\n#SBATCH --exclusive\nsleep 300\n"
    other = Slurm().submit(script, folder)
    driver = start(folder, "run", study, "--site", "two", "--no-report")
    directory = folder / "runs" / "digits"
    wait_for(lambda: len(tasks(directory)) > 3, driver)
    private = directory / ".private"
    assert {path.stat().st_mode & 0o077 for path in (private, *private.rglob("*"))} == {0}
    order = json.loads(next(private.rglob("node.json")).read_text())
    doors = [order["scheduler"]] + [
        f"tls://{connection.laddr.ip}:{connection.laddr.port}"
        for process in agents(folder)
        for connection in process.net_connections()
        if connection.status == "LISTEN"
    ]
    open_ = {door for door in doors if not door.startswith("tls://127.")}
    assert len(open_) >= 3, doors  # The scheduler, a node's agent, its worker.
    for door in open_:
        assert_locked(door)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    Slurm().cancel([other])
    nothing_is_left(slurm, folder)


def assert_locked(door: str) -> None:
    """Find that a port speaks TLS, and only with who has the certificate."""
    host, _, port = door.removeprefix("tls://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        plain.settimeout(10)
        # An alert of TLS, or nothing; no answer in clear.
        try:
            said = plain.recv(64)
        except ConnectionError:
            said = b""
        assert not said or said[:1] == b"\x15", said
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        try:
            with context.wrap_socket(raw) as strange:
                strange.sendall(b"x")
                let_in = bool(strange.recv(1))
        except (ssl.SSLError, ConnectionError):
            let_in = False
    assert not let_in, "a stranger without a certificate was let in"


def test_wrong_use_of_a_site_is_one_line(tmp_path: Path, slurm: MiniSlurm) -> None:
    site(
        tmp_path,
        more="""
[site.long]
scheduler = "slurm"
partition = "gpu"
walltime = "05:00:00"
[site.elsewhere]
scheduler = "slurm"
shared_folder = "/nonexistent"
[site.debtor]
scheduler = "slurm"
constraint = "hpcf1913"
""",
    )
    study = digits_study(tmp_path)
    for arguments, said in (
        (("--site", "tow"), "--site: given 'tow' (did you mean 'two'?)"),
        (("--site", "long"), "site.long.walltime: given 05:00:00; partition 'gpu' allows at most"),
        (
            ("--site", "elsewhere"),
            "site.elsewhere.shared_folder: given '/nonexistent'; there is no folder",
        ),
        (("--site", "two", "--nodes", "9"), "--nodes: given 9"),
        (("--site", "two", "--nodes", "3:2"), "--nodes: given '3:2'"),
        (("--site", "two", "--workers", "3"), "--workers: is for this machine"),
        (("--nodes", "2"), "--nodes: is for sites of a cluster"),
        (("--dry-run",), "--dry-run: there is no job script on this machine"),
    ):
        done = called(tmp_path, "run", study, *arguments)
        assert done.returncode == 2, (arguments, done)
        assert said in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    shown = called(tmp_path, "run", study, "--site", "two", "--dry-run")
    assert "#SBATCH --partition=batch" in shown.stdout
    unfit = called(tmp_path, "run", study, "--site", "long", "--dry-run")
    assert (unfit.returncode, "--partition=gpu" in unfit.stdout) == (2, True)
    assert "site.long.walltime: given 05:00:00" in unfit.stderr
    assert not (tmp_path / "runs").exists()
    assert slurm.run("squeue", "--noheader") == ""


def test_a_study_trains_on_the_nodes_in_service_and_names_those_that_are_not(
    slurm: MiniSlurm, folder: Path
) -> None:
    """Losing this: "1 node waits in the queue", for days, and nobody knows what for."""
    slurm.run("scontrol", "update", "nodename=n2013-1", "state=drain", "reason=disk")
    space = "learning_rate = [0.01]\nbatch_size = [32]\nepochs = [2]"
    data = f'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ncache = "{folder}/data"'
    study = digits_study(folder, data=data + "\ntest_fraction = 0.2", search__space=space)
    gone = "1 of the 2 nodes that fit are down or drained (n2013-1)"
    script = called(folder, "run", study, "--site", "two", "--dry-run")
    assert script.stderr == f"stormsweep: jobs would wait in the queue: {gone}\n"
    done = stormsweep(folder, "run", study, "--site", "two", "--no-report")
    assert done.returncode == 0, done.stderr
    assert f"site two: {gone}; jobs wait in the queue.\n" in done.stderr
    assert {one.host for one in events(folder / "runs" / "digits")} == {"n2013-2"}
    # A verification has one worker, for which the other node is there; and then none is.
    assert Study.from_toml(folder / "runs" / "digits").check_site((1, 1)) == ""
    slurm.run("scontrol", "update", "nodename=n2013-2", "state=drain", "reason=disk")
    gone = "2 of the 2 nodes that fit are down or drained (n2013-1, n2013-2)"
    verify = start(folder, "verify", folder / "runs" / "digits")
    assert verify.stderr is not None
    # It would wait for ever.
    ends = threading.Timer(90, verify.kill)
    ends.start()
    line = f"site two: {gone}; jobs wait in the queue.\n"
    assert line in verify.stderr
    ends.cancel()
    verify.send_signal(signal.SIGINT)
    verify.communicate(timeout=60)
    nothing_is_left(slurm, folder)


#: Appended to the models: one node is bad, and the other waits until that has shown so often.
BAD_NODE = """
HERE = os.environ.get("SLURMD_NODENAME", "")

def met():
    with open("{folder}/met", "a") as file:
        file.write("x")

{imported}

def on_a_bad_node(input_shape, learning_rate):
    if HERE == "n2013-1":
        met()
        {built}
    end = time.monotonic() + 60
    while len(Path("{folder}/met").read_text()) < {often} and time.monotonic() < end:
        time.sleep(0.05)
    return digits_cnn(input_shape, learning_rate)
"""
WAYS = {
    "raises": (3, "", "raise OSError(28, 'No space left on device', '/scratch')"),
    "kills": (5, "", "os.kill(os.getpid(), 9)"),
    "imports": (1, "if HERE == 'n2013-1':\n    met()\n    import not_there", "raise"),
}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "raised OSError: [Errno 28] No space left on device: '/scratch'"),
        slow("kills", "the last one: its worker process died without a word"),
        slow("imports", "raised ModuleNotFoundError: No module named 'not_there'"),
    ],
    ids=list(WAYS),
)
def test_a_bad_node_fails_no_run_and_is_named(
    folder: Path, slurm: MiniSlurm, way: str, said: str
) -> None:
    """Losing this: runs, the study, or a node that Slurm gives again and again."""
    often, imported, built = WAYS[way]
    text = BAD_NODE.format(folder=folder, often=often, imported=imported, built=built)
    (folder / "models.py").write_text(MODELS.read_text() + text, encoding="utf-8")
    (folder / "met").touch()
    space = "learning_rate = [0.01]\nbatch_size = [16, 32]\nepochs = [2]"
    model = 'build = "models.py:on_a_bad_node"'
    study = digits_study(folder, model=model, search__space=space)
    done = stormsweep(folder, "run", study, "--site", "two", "--no-report")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "workers there get no work" in line]
    assert line.startswith("n2013-1: "), line
    assert said in line
    directory = folder / "runs" / "digits"
    entries = read(directory / "journal.jsonl")
    assert of_kind(entries, RunFailed) == []
    assert len(scores(directory)) == 4
    assert {task.worker.rsplit("-", 2)[0] for task in tasks(directory)} == {"n2013-2"}
    (refused,) = of_kind(entries, PlaceRefused)
    assert (refused.place, line.startswith(refused.reason)) == ("n2013-1", True), line
    assert refused.reason in called(folder, "status", directory).stdout
    assert [one.host for one in events(directory)].count("n2013-1") <= 2 * 2 * often + 2
    nothing_is_left(slurm, folder)


def test_nodes_that_are_jobs_of_their_own_are_judged_one_by_one(
    slurm: MiniSlurm, folder: Path
) -> None:
    """Losing this: a study is refused, or said to wait, whose jobs Slurm begins at once."""
    study = digits_study(folder)

    def said(nodes: str) -> tuple[int, str]:
        done = called(folder, "run", study, "--site", "two", "--nodes", nodes, "--dry-run")
        return done.returncode, done.stderr

    slurm.run("scontrol", "update", "partitionname=batch", "maxnodes=1")
    try:
        assert said("2") == (0, "")
        assert said("1:2") == (0, "")
        code, refused = said("1:3")
        assert (code, "--nodes: given 3; partition 'batch' has 2 that fit" in refused) == (2, True)
    finally:
        slurm.run("scontrol", "update", "partitionname=batch", "maxnodes=unlimited")
    slurm.run("scontrol", "update", "nodename=n2013-1", "state=drain", "reason=disk")
    assert said("1:2") == (0, "")
    assert "jobs would wait in the queue: 1 of the 2 nodes" in said("2")[1]


@pytest.mark.slow
def test_a_search_that_learns_has_as_many_nodes_as_it_may(folder: Path, slurm: MiniSlurm) -> None:
    """Losing this: the second node, let go when the first worker of the first one is there."""
    site(folder, workers=2)
    study = digits_study(
        folder,
        search='strategy = "tpe"\ntrials = 12',
        search__space="learning_rate = {low = 1e-4, high = 0.1, log = true}\n"
        "batch_size = [32]\nepochs = [40]",
    )
    done = stormsweep(folder, "run", study, "--site", "two", "--nodes", "1:2", "--no-report")
    assert done.returncode == 0, done.stderr
    directory = folder / "runs" / "digits"
    assert {task.worker.rsplit("-", 2)[0] for task in tasks(directory)} == {"n2013-1", "n2013-2"}
    nodes = of_kind(read(directory / "journal.jsonl"), NodeEvent)
    assert [node.event for node in nodes].count("asked") == 2, nodes
    nothing_is_left(slurm, folder)


@pytest.mark.slow
def test_a_gpu_that_slurm_gives_and_jax_does_not_see_is_refused(
    tmp_path: Path, slurm: MiniSlurm
) -> None:
    pytest.importorskip("jax", reason="JAX, the engine for GPUs, is not installed")
    gpu = """
[site.gpu]
scheduler = "slurm"
partition = "gpu"
walltime = "00:10:00"
gres = "gpu:{gpus}"
memory_gb = 3
workers_per_node = 2
"""
    study = digits_study(tmp_path, engine='use = "jax"')
    for gpus, code, said in (
        (2, 2, "JAX sees no GPU on n2018-2, although the site asks for some"),
        (1, 1, "n2018-2 shows the job 1 of the GPUs that 2 workers need; see the site's gres"),
    ):
        site(tmp_path, more=gpu.format(gpus=gpus))
        done = stormsweep(tmp_path, "run", study, "--site", "gpu", "--no-report")
        assert done.returncode == code, done
        assert said in done.stderr.strip().splitlines()[-1], done.stderr
        nothing_is_left(slurm, tmp_path)


@pytest.mark.slow
def test_a_study_on_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Path) -> None:
    """PBS's commands are a mock, since no server of it can be installed; all else is real."""
    (tmp_path / "pbs").mkdir()
    pbs = FakePbs(tmp_path / "pbs", monkeypatch)
    sites = '[site.casper]\nscheduler = "pbs"\nwalltime = "00:10:00"\nnodes = 2\n'
    (tmp_path / "sites.toml").write_text(sites, encoding="utf-8")
    try:
        done = stormsweep(
            tmp_path, "run", digits_study(tmp_path), "--site", "casper", "--no-report"
        )
    finally:
        pbs.end()
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "runs" / "digits"
    assert scores(directory) == scores(digits)
    assert len(pbs.calls("qsub")) == 2
    assert list(agents(tmp_path)) == []


@pytest.mark.slow
def test_the_quickstart_comes_to_the_same_scores_on_one_machine_and_on_two_partitions(
    tmp_path: Path, slurm: MiniSlurm
) -> None:
    """Both ways to run on a cluster."""
    quickstart = Path(__file__).parents[2] / "studies" / "quickstart.toml"
    text = quickstart.read_text(encoding="utf-8").replace(
        "[data]\n", f'[data]\ncache = "{tmp_path}/data"\n'
    )
    found = {}
    for name, partition in (("here", ""), ("jobs", "batch"), ("steps", "high_mem")):
        study = tmp_path / f"{name}.toml"
        study.write_text(text.replace('"quickstart"', f'"{name}"'), encoding="utf-8")
        if partition:
            site(tmp_path, partition)
        if name == "steps":
            done = stormsweep(tmp_path, "submit", study, "--site", "two")
            assert done.returncode == 0, done.stderr
            nothing_is_left(slurm, tmp_path, 500)
        else:
            more = ("--site", "two") if partition else ()
            done = stormsweep(tmp_path, "run", study, "--no-report", *more)
            assert done.returncode == 0, done.stderr
        directory = tmp_path / "runs" / name
        found[name] = scores(directory)
        if partition:
            assert len({event.host for event in events(directory)}) == 2
    assert len(found["here"]) == 54
    assert found["here"] == found["jobs"] == found["steps"]
