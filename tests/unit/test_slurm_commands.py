"""Slurm's commands: a failure taken for success loses jobs, or submits them twice."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stormsweep.cluster.commands import wait
from stormsweep.cluster.partitions import Node, Partition, misfit, read_partitions
from stormsweep.cluster.slurm import Slurm, needed, run
from stormsweep.config.sites import Site
from stormsweep.errors import SlurmError, UserError
from tests.slurm.cluster import MiniSlurm

SCRIPT = "#!/bin/bash\n#SBATCH --output=out\nsleep {}\n"


class Fakes:
    """Commands of a Slurm that are shell scripts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\necho x >>{self.folder}/{name}.calls\n{body}\n")
        path.chmod(0o755)

    def calls(self, name: str) -> int:
        file = self.folder / f"{name}.calls"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setattr("stormsweep.cluster.slurm._LOOK_AGAIN", (0.0, 0.1))
    made = Fakes(tmp_path, monkeypatch)
    made.put("squeue", "true")
    made.put("sacct", "exit 1")
    return made


def test_an_sbatch_that_fails_is_shown_whole(fakes: Fakes) -> None:
    fakes.put("sbatch", "echo half a word; echo 'error: Invalid account' >&2; exit 3")
    with pytest.raises(SlurmError) as caught:
        Slurm().submit(SCRIPT, fakes.folder)
    message = str(caught.value)
    for part in ("sbatch --parsable", "exit code 3", "half a word", "Invalid account"):
        assert part in message
    assert caught.value.said == "Invalid account"
    assert not caught.value.passing
    assert fakes.calls("squeue") == 0


@pytest.mark.parametrize("said", ["", "Submitted", "12 13", "-5", "1e5", "12;a b", "\xff\xfe"])
def test_nonsense_is_no_job(fakes: Fakes, said: str) -> None:
    fakes.put("sbatch", f"printf '%s' '{said}'")
    with pytest.raises(SlurmError, match="the number of a job is expected"):
        Slurm().submit(SCRIPT, fakes.folder)
    assert fakes.calls("sbatch") == 1


@pytest.mark.parametrize("said", ["77", "77;cluster", "Welcome to taki!\n\n77"])
def test_what_sbatch_and_its_wrappers_say_is_understood(fakes: Fakes, said: str) -> None:
    fakes.put("sbatch", f"echo '{said}'")
    assert Slurm().submit(SCRIPT, fakes.folder) == "77"


def test_an_sbatch_that_hangs_is_killed_with_all_it_started(fakes: Fakes) -> None:
    fakes.put("sbatch", f"sleep 300 & echo $! >{fakes.folder}/pid; wait")
    with pytest.raises(SlurmError, match="did not answer within 1 s") as caught:
        Slurm(patience=1).submit(SCRIPT, fakes.folder)
    assert caught.value.passing
    pid = int((fakes.folder / "pid").read_text())
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    assert stat.stdout.strip()[:1] in ("", "Z")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_an_sbatch_that_hangs_does_not_outlive_a_driver_that_is_killed(fakes: Fakes) -> None:
    """A driver asks in a thread of its own; kill -9 leaves it no time for anything."""
    fakes.put("sbatch", f"echo $$ >{fakes.folder}/pid; exec sleep 300")
    code = (
        "import threading, time\n"
        "from pathlib import Path\n"
        "from stormsweep.cluster.slurm import Slurm\n"
        f"asking = lambda: Slurm().submit('', Path({str(fakes.folder)!r}))\n"
        "threading.Thread(target=asking, daemon=True).start()\n"
        "time.sleep(300)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert wait(lambda: bool(_said(fakes.folder / "pid")), 30, 0.05)
        left = psutil.Process(int(_said(fakes.folder / "pid")))
        driver.kill()
        driver.wait()
        assert wait(lambda: not left.is_running(), 10, 0.05), left
    finally:
        driver.kill()
        driver.wait()


def _said(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_a_job_that_a_hanging_sbatch_did_submit_is_found_by_its_mark(fakes: Fakes) -> None:
    fakes.put("sbatch", f'echo "${{2#--comment=}}" >{fakes.folder}/mark; sleep 300')
    line = "RUNNING|None|n1|0:07|"
    fakes.put("squeue", f'echo "5|{line}a|b"; echo "6|{line}$(cat {fakes.folder}/mark)"')
    assert Slurm(patience=1).submit(SCRIPT, fakes.folder) == "6"
    assert fakes.calls("sbatch") == 1


def test_a_slurmctld_that_is_away_is_told_from_a_no(fakes: Fakes) -> None:
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        fakes.put(name, "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    calls = [
        lambda: Slurm().submit(SCRIPT, fakes.folder),
        lambda: Slurm().states(["1"]),
        lambda: Slurm().cancel(["1"]),
        lambda: Slurm().partitions(),
    ]
    for call in calls:
        with pytest.raises(SlurmError) as caught:
            call()
        assert caught.value.passing


def test_nonsense_of_squeue_and_sinfo_is_no_news(fakes: Fakes) -> None:
    fakes.put("squeue", "echo 'slurm_load_jobs: <html>'")
    fakes.put("sinfo", "echo 'PARTITION AVAIL'")
    with pytest.raises(SlurmError, match="cannot be understood"):
        Slurm().states(["1"])
    with pytest.raises(SlurmError, match="cannot be understood"):
        Slurm().partitions()


def test_a_wait_that_squeue_does_not_know_is_not_made_up(fakes: Fakes) -> None:
    fakes.put("squeue", "echo 2026-01-01T10:00:00 2026-01-01T13:00:05")
    assert Slurm().waited("7") == 10_805
    for said in ("2026-01-01T10:00:00 N/A", "N/A", ""):
        fakes.put("squeue", f"echo {said}")
        with pytest.raises(SlurmError):
            Slurm().waited("7")


def test_one_squeue_asks_for_a_thousand_jobs(fakes: Fakes) -> None:
    fakes.put("squeue", 'for i in {1..999}; do echo "$i|RUNNING|None|n1|5:00|"; done')
    states = Slurm().states([str(number) for number in range(1, 1001)])
    assert len(states) == 999
    assert "1000" not in states
    assert fakes.calls("squeue") == 1


def test_what_squeue_forgot_accounting_may_know(fakes: Fakes) -> None:
    fakes.put("sacct", "echo '8|CANCELLED by 1000|None|n[1-2]'")
    assert Slurm().states(["8", "9"]) == {"8": "CANCELLED"}


def test_numbers_that_are_none_never_reach_a_command(fakes: Fakes) -> None:
    fakes.put("scancel", "true")
    for id in ("", "-u root", "1;2", "--full"):
        with pytest.raises(ValueError, match="not the number of a job"):
            Slurm().cancel([id])
    assert fakes.calls("scancel") == 0


def test_no_slurm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(UserError, match="there is no Slurm here"):
        needed()
    with pytest.raises(SlurmError, match="sinfo --version: cannot be started"):
        Slurm().version()


@pytest.mark.parametrize(
    ("asked", "key", "said"),
    [
        ({}, None, ""),
        (
            {"partition": "bach"},
            "partition",
            "did you mean 'batch'?); the cluster has batch, gpu, old",
        ),
        ({"walltime": "05:00:00"}, "walltime", "allows at most 04:00:00"),
        ({"memory_gb": 4}, "memory_gb", "the largest node of partition 'batch' has 3.9"),
        ({"nodes": 3}, "nodes", "partition 'batch' has 2 that fit"),
        ({"workers_per_node": 3}, "workers_per_node", "= 3; the largest node of partition"),
        ({"gres": "gpu:1"}, "gres", "none has any"),
        ({"partition": "gpu", "gres": "gpu:3"}, "gres", "the largest has 2"),
        # A partition that is down takes jobs, one that is drained does not.
        ({"partition": "gpu", "gres": "gpu:2"}, None, ""),
        ({"partition": "old"}, "partition", "given 'old', which takes no jobs: drain"),
        ({"partition": "short", "nodes": 2}, "nodes", "'short' allows a job 1 that fits"),
        # A QOS may lift limits of the partition. It makes no nodes.
        ({"partition": "short", "nodes": 2, "qos": "long", "walltime": "05:00:00"}, None, ""),
        ({"partition": "short", "nodes": 3, "qos": "long"}, "nodes", "'short' has 2 that fit"),
        (
            {"constraint": "new"},
            "constraint",
            "no node of partition 'batch' has; they have old",
        ),
    ],
)
def test_what_a_cluster_does_not_have_is_said(
    asked: dict[str, object], key: str | None, said: str
) -> None:
    old = tuple(Node(f"n{i}", 2, 4000 / 1024, i > 1, frozenset({"old"})) for i in (1, 2))
    gpu = (Node("n3", 2, 4000 / 1024, gres={"gpu": 2}),)
    partitions = {
        "batch": Partition("batch", True, "up", 4 * 3600, None, old),
        "gpu": Partition("gpu", False, "down", 4 * 3600, None, gpu),
        "short": Partition("short", False, "up", 4 * 3600, 1, old),
        "old": Partition("old", False, "drain", None, None, old),
    }
    found = misfit(Site.model_validate({"scheduler": "slurm"} | asked), partitions)
    if key is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == key
        assert said in found[1]


def test_lines_that_are_not_sinfos_are_refused() -> None:
    for out in ("", "a|b", "batch|up|infinite|1|n1|two|4000|idle|f|g"):
        with pytest.raises(ValueError, match=r"not about a node|names no partition"):
            read_partitions(out)


def test_a_job_on_the_real_slurm(slurm: MiniSlurm, tmp_path: Path) -> None:
    commands = Slurm()
    partitions = commands.partitions()
    assert set(partitions) == {"batch", "high_mem", "gpu"}
    assert partitions["batch"].default
    assert partitions["batch"].longest is None
    assert partitions["gpu"].longest == 4 * 3600
    assert partitions["gpu"].nodes[0].gres == {"gpu": 2}
    assert [node.name for node in partitions["high_mem"].nodes] == ["n2018-1", "n2018-2"]
    ids = [
        commands.submit(SCRIPT.format(seconds), tmp_path, key)
        for seconds, key in ((0, "ab"), (300, "abc"))
    ]
    until = time.monotonic() + 60
    while commands.states(ids) != {ids[0]: "COMPLETED", ids[1]: "RUNNING"}:
        assert time.monotonic() < until, (commands.jobs(ids), slurm.logs())
        time.sleep(0.1)
    assert commands.jobs(ids)[ids[1]].nodes in ("n2013-1", "n2013-2")
    assert commands.states(["999999"]) == {}
    # A study finds its own jobs from any node, and no others.
    assert [list(commands.jobs_of(key)) for key in ("ab", "abc", "b")] == [[ids[0]], [ids[1]], []]
    commands.cancel([*ids, "999999"])
    while not commands.jobs(ids)[ids[1]].over:
        assert time.monotonic() < until, (commands.jobs(ids), slurm.logs())
        time.sleep(0.1)
    assert commands.states(ids)[ids[1]] == "CANCELLED"
    commands.cancel(ids)


def test_a_job_begins_with_the_environment_that_is_given_and_no_other_jobs_own(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = os.environ | {"MARK": "a=b", "SLURM_JOB_ID": "7", "SBATCH_EXPORT": "NONE"}
    monkeypatch.setenv("MARK", "of set-up lines")
    script = "#!/bin/bash\n#SBATCH --output=out\necho $SLURM_JOB_ID $MARK\n"
    id = Slurm().submit(script, tmp_path, environment=given)
    assert wait(lambda: Slurm().jobs([id])[id].over, 60), slurm.logs()
    assert (tmp_path / "out").read_text() == f"{id} a=b\n"


def test_a_job_whose_number_got_lost_is_found_on_the_real_slurm(
    slurm: MiniSlurm, fakes: Fakes
) -> None:
    fakes.put("sbatch", '/usr/bin/sbatch "$@" >/dev/null; echo "sbatch: oops"')
    (fakes.folder / "squeue").unlink()
    id = Slurm().submit(SCRIPT.format(300), fakes.folder)
    assert slurm.run("squeue", "--noheader", "--format=%i").split() == [id]


def test_what_the_real_slurm_refuses(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = SCRIPT.replace("#SBATCH", "#SBATCH --partition=none\n#SBATCH")
    for ask in (Slurm().submit, Slurm().test_only):
        with pytest.raises(SlurmError) as caught:
            ask(script, tmp_path)
        assert not caught.value.passing
        assert "nvalid partition" in caught.value.said
    assert "to start at" in Slurm().test_only(SCRIPT.format(1), tmp_path)
    # Users' own options for sbatch do not win over the script's.
    monkeypatch.setenv("SBATCH_PARTITION", "none")
    Slurm().test_only(SCRIPT.format(1), tmp_path)


def test_why_a_job_ends_tells_a_scancel_from_a_node_that_failed(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    commands = Slurm()
    stubborn = "trap : TERM\nfor i in {1..300}; do sleep 0.1; done\n"
    one, other = (
        commands.submit(
            f"#!/bin/bash\n#SBATCH --partition={partition} --time=10 --no-requeue\n{stubborn}",
            tmp_path,
        )
        for partition in ("batch", "high_mem")
    )
    assert wait(lambda: set(commands.states([one, other]).values()) == {"RUNNING"}, 30)
    assert 500 < commands.time_left(one) <= 600
    slurm.run("scancel", one)
    node = commands.jobs([other])[other].nodes
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert wait(lambda: commands.ended_for(other) == "NodeDown", 10)
    assert commands.states([one]) in ({one: "COMPLETING"}, {one: "CANCELLED"})
    assert commands.ended_for(one) == ""


def test_a_job_waits_in_the_queue_from_when_the_one_before_it_is_over(
    slurm: MiniSlurm, tmp_path: Path
) -> None:
    """Else each job of a chain is said to have waited for as long as the one before it ran."""
    commands = Slurm()
    first = commands.submit("#!/bin/bash\n#SBATCH --time=10\nsleep 5\n", tmp_path)
    script = f"#!/bin/bash\n#SBATCH --time=10 --dependency=afterany:{first}\nsleep 60\n"
    second = commands.submit(script, tmp_path)
    assert wait(lambda: commands.states([second])[second] == "RUNNING", 60)
    columns = "--Format=SubmitTime:32,StartTime:32"
    said = slurm.run("squeue", "--noheader", f"--jobs={second}", columns).split()
    submitted, began = (dt.datetime.fromisoformat(word).timestamp() for word in said)
    assert 0 <= commands.waited(second) <= began - submitted - 4
    slurm.run("scancel", second)


def test_a_command_that_somebody_killed_was_not_refused() -> None:
    """Else an sbatch that is ended with its own job is taken for Slurm's no."""
    with pytest.raises(SlurmError) as failed:
        run(["bash", "-c", "kill -TERM $$"])
    assert failed.value.passing
