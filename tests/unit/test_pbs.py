"""PBS: a failure taken for success loses jobs; a value read as an option asks for another job.

No PBS can run here, so its commands are a mock (tests/pbs/fake.py says what it follows). What this
shows: that scripts and arguments are what the documentation asks for, that what is on record to be
printed is understood, and that hanging and failing commands do no harm. What it cannot show: that a
server takes it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stormsweep.cluster.jobscript import Order, job_script, worker_logs
from stormsweep.cluster.pbs import Pbs, needed
from stormsweep.cluster.pbs_jobs import read_jobs
from stormsweep.cluster.scheduler import Job, scheduler_of
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import Site
from stormsweep.errors import PbsError, UserError
from tests.pbs.fake import FakePbs, record

SITE = Site(scheduler="pbs", walltime="01:00:00")
#: What can be quoted, what means something to a shell or to PBS the more often.
TEXT = st.text(
    st.one_of(
        st.sampled_from("'\"\\ $`;&|<>(){}[]*?!#~%=-,:\u00e9"),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePbs]:
    monkeypatch.setattr("stormsweep.cluster.pbs._LOOK_AGAIN", (0.0, 0.1))
    place = tmp_path / "pbs"
    place.mkdir()
    made = FakePbs(place, monkeypatch)
    yield made
    made.end()


def script(command: str, logs: Path) -> str:
    return job_script(SITE, Order("try", ["bash", "-c", command], worker_logs(logs, "pbs")))


def until(look: object, patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not look():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_site_names_its_scheduler() -> None:
    assert isinstance(scheduler_of(SITE), Pbs)
    assert isinstance(scheduler_of(Site(scheduler="slurm")), Slurm)
    with pytest.raises(ValueError, match="no scheduler"):
        scheduler_of(Site(scheduler="local"))


def test_all_that_a_site_asks_for_is_in_the_script() -> None:
    site = Site(
        scheduler="pbs",
        partition="casper@casper-pbs",
        account="UABC0001",
        walltime="1-12",
        nodes=2,
        exclusive=True,
        memory_gb=40.5,
        gres="gpu:4,mps:1",
        constraint="gpu_type=v100_4way",
        workers_per_node=4,
        threads_per_worker=9,
    )
    text = job_script(site, Order("study", ["a"], worker_logs(Path("/runs/x/logs"), "pbs")))
    chunk = "ncpus=36:mpiprocs=1:mem=41472mb:ngpus=4:mps=1:gpu_type=v100_4way"
    for option in (
        "-N study",
        "-S /bin/bash",
        "-A UABC0001",
        "-q casper@casper-pbs",
        f"-l select=2:{chunk}",
        "-l place=scatter:exclhost",
        "-l walltime=36:00:00",
        "-r n",
        "-j oe",
        "-o /dev/null",
    ):
        assert f"#PBS {option}" in text.splitlines()
    assert 'exec >>/runs/x/logs/pbs-"$PBS_JOBID".out 2>&1' in text.splitlines()
    assert "place=" not in job_script(SITE, Order("study", ["a"], "/o"))


def test_directives_end_before_the_first_line_of_the_users_own() -> None:
    site = Site(scheduler="pbs", setup=["#PBS -l select=9"])
    lines = job_script(site, Order("try", ["a"], "/o")).splitlines()
    assert lines.index('cd -- "$PBS_O_WORKDIR" || exit 1') < lines.index("#PBS -l select=9")


@given(name=TEXT.filter(lambda text: "/" not in text and "\\" not in text), argument=TEXT)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_paths_and_arguments_are_read_by_bash_as_they_are(
    tmp_path: Path, name: str, argument: str
) -> None:
    folder = tmp_path / f"x{name}"
    folder.mkdir(exist_ok=True)
    order = Order("try", ["printf", "%s", argument], worker_logs(folder, "pbs"))
    text = job_script(SITE, order)
    # No value but checked ones stands in what qsub reads.
    asked = [line for line in text.splitlines() if line.startswith("#PBS")]
    assert asked == [
        line
        for line in job_script(SITE, Order("try", ["a"], "/o")).splitlines()
        if line.startswith("#PBS")
    ]
    variables = {"PBS_JOBID": "7.desched1", "PBS_O_WORKDIR": str(folder), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash"], input=text.encode(), env=variables, cwd="/", check=True)
    log = folder / "pbs-7.desched1.out"
    assert log.read_bytes() == argument.encode()
    assert log.stat().st_mode & 0o777 == 0o640
    log.unlink()
    assert not list(folder.iterdir())


def test_a_job_from_submission_to_its_end(pbs: FakePbs, tmp_path: Path) -> None:
    commands = Pbs()
    commands.needed()
    assert commands.version() == "PBS 20.0.1"
    done = commands.submit(script("pwd; echo $PBS_JOBID", tmp_path), tmp_path, "ab")
    runs = commands.submit(script("sleep 300", tmp_path), tmp_path, "abc")
    fails = commands.submit(script("exit 7", tmp_path), tmp_path, "ab")
    ids = [done, runs, fails]
    until(lambda: [job.over for job in commands.jobs(ids).values()] == [True, False, True])
    nodes = "dec0001,dec0002"
    assert commands.jobs(ids) == {
        done: Job("COMPLETED", "", nodes),
        runs: Job("RUNNING", "", nodes),
        fails: Job("FAILED", "exit status 7", nodes),
    }
    assert (tmp_path / f"pbs-{done}.out").read_text() == f"{tmp_path}\n{done}\n"
    # Whose key it is, and no other's that begins with it.
    keys = [set(commands.jobs_of(key)) for key in ("ab", "abc", "a")]
    assert keys == [{done, fails}, {runs}, set()]
    # By the key of a study its workers' jobs are found too.
    workers = commands.submit(script("exit 0", tmp_path), tmp_path, "ab-workers")
    assert set(commands.jobs_of("ab-workers")) == {workers}
    assert set(commands.jobs_of("ab")) == {done, fails, workers}
    commands.cancel([*ids, "99999.desched1"])
    assert commands.jobs([runs])[runs] == Job("CANCELLED", "exit status 271", nodes)
    commands.cancel(ids)
    assert all(call.startswith("-f -v STORMSWEEP_JOB=stormsweep-") for call in pbs.calls("qsub"))


def test_one_qstat_asks_for_all_and_never_for_everybodys(pbs: FakePbs) -> None:
    assert Pbs().jobs([]) == {}
    assert Pbs().jobs_of("ab") == {}
    assert pbs.calls("qstat") == []
    ids = [f"{number}.desched1" for number in range(500)]
    assert Pbs().jobs(ids) == {}
    assert pbs.calls("qstat") == [shlex.join(["-x", "-f", *ids])]


def test_a_job_that_qstat_does_not_show_yet_is_not_over(
    pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Pbs()
    id = commands.submit(script("true", tmp_path), tmp_path)
    pbs.put("qstat", f"echo 'qstat: Unknown Job Id {id}' >&2; exit 153")
    assert commands.jobs([id])[id].state == "PENDING"
    monkeypatch.setattr("stormsweep.cluster.pbs._FRESH_S", 0.0)
    assert commands.jobs([id]) == {}


def test_a_site_that_remembers_no_finished_jobs_is_asked_for_the_others(
    pbs: FakePbs, tmp_path: Path
) -> None:
    commands = Pbs()
    id = commands.submit(script("sleep 300", tmp_path), tmp_path, "ab")
    for name in ("qstat", "qselect"):
        real = pbs.bin / f"{name}.real"
        (pbs.bin / name).rename(real)
        said = f"{name}: PBS is not configured to maintain job history"
        pbs.put(name, f'[[ $1 != -x ]] || {{ echo "{said}" >&2; exit 153; }}; {real} "$@"')
    assert commands.jobs([id, "9.desched1"])[id].state == "RUNNING"
    assert list(commands.jobs_of("ab")) == [id]
    assert pbs.calls("qstat") == [f"-f {id} 9.desched1", f"-f {id}"]
    assert list(Pbs().jobs_of("ab")) == [id]


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ({"state": "Q"}, "PENDING"),
        ({"state": "H"}, "PENDING"),
        ({"state": "R"}, "RUNNING"),
        ({"state": "S"}, "SUSPENDED"),
        ({"state": "E"}, "COMPLETING"),
        ({"state": "F", "status": 0}, "COMPLETED"),
        ({"state": "F", "status": 1}, "FAILED"),
        ({"state": "F", "status": -29, "substate": 93}, "TIMEOUT"),
        ({"state": "F", "status": 271, "substate": 93, "used": "01:00:04"}, "TIMEOUT"),
        ({"state": "F", "status": 271, "substate": 91}, "CANCELLED"),
        ({"state": "F", "status": 271, "substate": 93}, "FAILED"),
        ({"state": "F", "status": -27, "substate": 93}, "OUT_OF_MEMORY"),
        ({"state": "F", "status": -4, "substate": 93}, "NODE_FAIL"),
        ({"state": "F", "substate": 91}, "CANCELLED"),
    ],
)
def test_how_jobs_end_in_the_common_words(
    pbs: FakePbs, tmp_path: Path, given: dict[str, object], state: str
) -> None:
    (tmp_path / "said").write_text(record("7.desched1", **given))  # type: ignore[arg-type]
    pbs.put("qstat", f"cat {tmp_path}/said")
    job = Pbs().jobs(["7.desched1"])["7.desched1"]
    assert job.state == state
    assert job.over == (given["state"] == "F")
    if given["state"] == "Q":
        assert job.reason.startswith("Job run at Wed Nov 25 at 13:00 on (dec0001:ncpus=36)+(dec")


def test_lines_that_qstat_wrapped_are_put_together() -> None:
    mark = "stormsweep-0123456789ab-0123456789abcdef0123456789abcdef"
    facts = read_jobs(record("7.desched1", "R", mark, "a/0*36+b/0*36"))["7.desched1"]
    assert f",STORMSWEEP_JOB={mark},odd=005," in facts["Variable_List"]
    assert '\'s \\, "here"' in facts["Variable_List"]


def test_odd_marks_in_a_variable_do_not_hide_the_mark() -> None:
    text = record("7.desched1", "R", "stormsweep-ab-0").replace(
        "/glade/u/home", "/a\u2028b\x0cc\x1d"
    )
    assert ",STORMSWEEP_JOB=stormsweep-ab-0," in read_jobs(text)["7.desched1"]["Variable_List"]


def test_a_variable_cannot_pass_for_a_state() -> None:
    text = record("7.desched1", "R") + "    job_state = F\n    Exit_status = 0\n"
    assert read_jobs(text)["7.desched1"]["job_state"] == "R"


@pytest.mark.parametrize("said", ["", "Submitted", "12", "12.a b", "-5.a", "12[].desched1", "\xff"])
def test_nonsense_is_no_job(pbs: FakePbs, tmp_path: Path, said: str) -> None:
    pbs.put("qsub", f"cat >/dev/null; printf '%s' '{said}'")
    with pytest.raises(PbsError, match="the id of a job is expected"):
        Pbs().submit("#!/bin/bash\n", tmp_path)


@pytest.mark.parametrize("said", ["Job Id: 7.desched1", "<html>", "Job Id: 7.d\n    job_state = ?"])
def test_nonsense_of_qstat_is_no_news(pbs: FakePbs, tmp_path: Path, said: str) -> None:
    (tmp_path / "said").write_text(said + "\n")
    pbs.put("qstat", f"cat {tmp_path}/said")
    with pytest.raises(PbsError, match="cannot be understood"):
        Pbs().jobs(["7.desched1"])


def test_what_pbs_and_its_wrappers_say_is_understood(pbs: FakePbs, tmp_path: Path) -> None:
    pbs.put("qsub", "cat >/dev/null; echo Welcome to Derecho; echo; echo 1234567.desched1")
    assert Pbs().submit("#!/bin/bash\n", tmp_path) == "1234567.desched1"


def test_a_qsub_that_fails_is_shown_whole(pbs: FakePbs, tmp_path: Path) -> None:
    text = script("true", tmp_path).replace("#PBS -N", "#PBS -q nowhere\n#PBS -N")
    with pytest.raises(PbsError) as caught:
        Pbs().submit(text, tmp_path)
    assert "qsub -f -v STORMSWEEP_JOB=" in str(caught.value)
    assert "exit code 170" in str(caught.value)
    assert caught.value.said == "Unknown queue"
    assert not caught.value.passing
    assert pbs.calls("qselect") == []


def test_a_qsub_that_hangs_is_killed_with_all_it_started(pbs: FakePbs, tmp_path: Path) -> None:
    pbs.put("qsub", f"sleep 300 & echo $! >{tmp_path}/pid; wait")
    with pytest.raises(PbsError, match="did not answer within 1 s") as caught:
        Pbs(patience=1).submit("#!/bin/bash\n", tmp_path)
    assert caught.value.passing
    pid = (tmp_path / "pid").read_text().strip()
    stat = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    assert stat.stdout.strip()[:1] in ("", "Z")


def test_a_job_that_a_hanging_qsub_did_submit_is_found_by_its_mark(
    pbs: FakePbs, tmp_path: Path
) -> None:
    real = pbs.bin / "qsub.real"
    (pbs.bin / "qsub").rename(real)
    pbs.put("qsub", f'{real} "$@" >{tmp_path}/id; sleep 300')
    other = Pbs(patience=5).submit(script("sleep 300", tmp_path), tmp_path, "ab")
    assert other == (tmp_path / "id").read_text().strip()
    assert len(pbs.calls("qsub")) == 1


def test_a_server_that_is_away_is_told_from_a_no(pbs: FakePbs, tmp_path: Path) -> None:
    for name in ("qsub", "qstat", "qselect", "qdel"):
        said = f"{name}: cannot connect to server desched1 (errno=15010)"
        pbs.put(name, f"echo Connection refused >&2; echo '{said}' >&2; exit 255")
    calls = [
        lambda: Pbs().submit("#!/bin/bash\n", tmp_path),
        lambda: Pbs().jobs(["1.desched1"]),
        lambda: Pbs().jobs_of("ab"),
        lambda: Pbs().cancel(["1.desched1"]),
        lambda: Pbs().version(),
    ]
    for call in calls:
        with pytest.raises(PbsError) as caught:
            call()
        assert caught.value.passing


def test_ids_that_are_none_never_reach_a_command(pbs: FakePbs) -> None:
    for id in ("", "7", "-W force", "1.a;2", "1[].a", "1.a\n2.b"):
        with pytest.raises(ValueError, match="not the id of a job"):
            Pbs().cancel([id])
        with pytest.raises(ValueError, match="not the id of a job"):
            Pbs().jobs([id])
    with pytest.raises(ValueError, match="not a key"):
        Pbs().submit("", pbs.place, "a,PATH=/tmp")
    assert pbs.calls("qdel") == pbs.calls("qstat") == pbs.calls("qsub") == []


def test_another_prefix_for_directives_does_not_hide_ours(
    pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PBS_DPREFIX", "#QSUB")
    pbs.put("qsub", 'cat >/dev/null; echo "1.x${PBS_DPREFIX:+bad prefix}"')
    assert Pbs().submit("#!/bin/bash\n", tmp_path) == "1.x"


def test_no_pbs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(UserError, match="there is no PBS here"):
        needed()
    with pytest.raises(PbsError, match="qstat --version: cannot be started"):
        Pbs().version()
