"""`simulate` and `advise`: losing them, one asks for nodes by feel, or for what nobody charges."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.results.journal import read
from stormsweep.study.next_time import next_time
from tests.journals import simulate as write_study
from tests.journals import with_space

from .conftest import called, digits_study, scores, stormsweep

SPACE = "batch_size = [128, 512, 2048]\nlearning_rate = [0.001, 0.005, 0.01]\nepochs = [5, 10]"
SITES = """
[site.cheap]
scheduler = "slurm"
partition = "batch"
walltime = "04:00:00"
nodes = 2
exclusive = true
cores_per_node = 8
workers_per_node = 4
price_per_core_hour = 0.01

[site.whole]
scheduler = "slurm"
walltime = "04:00:00"
exclusive = true
workers_per_node = 4
price_per_core_hour = 0.01

[site.plain]
scheduler = "slurm"
walltime = "01:00:00"
cores_per_node = 4
workers_per_node = 4
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Write the directory of a study with a whole journal of two workers, and sites beside it."""
    directory = tmp_path / "runs" / "taki-2019"
    space = {"batch_size": [128, 512, 2048], "learning_rate": [0.001, 0.005, 0.01]}
    sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
    write_study(directory, {**space, "epochs": [5, 10]}, fold_sizes=sizes)
    path = directory / "study.toml"
    more = f"\n[search.space]\n{SPACE}\n\n[site]  # where it runs\nuse = 'local'  # this machine\n"
    path.write_text(path.read_text() + more)
    (tmp_path / "sites.toml").write_text(SITES)
    return directory


def test_more_workers_are_foretold_to_be_faster_and_sites_to_cost(study: Path) -> None:
    folder = study.parents[1]
    one = called(folder, "simulate", study, "--workers", "1")
    assert one.returncode == 0, one.stderr
    assert "local with 1 worker x 1 thread: " in one.stdout
    picture = folder / "timeline.png"
    many = called(
        *(folder, "simulate", study, "--nodes", "3", "--site", "cheap", "--timeline", picture),
        *("--queue-wait", "10min:1h", "--failures-per-hour", "0.1", "--repeats", "5"),
    )
    assert many.returncode == 0, many.stderr
    assert "cheap with 3 nodes of 4 workers x 1 thread" in many.stdout
    assert "simulated 5 times" in many.stdout
    assert "in the queue" in many.stdout
    assert picture.stat().st_size > 10_000
    for name in ("time", "core-hours", "cost", "utilisation", "jobs"):
        assert f"\n  {name} " in many.stdout


def test_core_hours_that_nobody_can_know_are_not_foretold(study: Path) -> None:
    """Losing this: a cost that is a part of the bill, by which a budget is judged."""
    told = called(study.parents[1], "simulate", study, "--site", "whole", "--repeats", "2")
    assert told.returncode == 0, told.stderr
    assert re.search(r"core-hours +not known$", told.stdout, re.M)
    assert "\n  cost " not in told.stdout
    assert "core-hours are not known without its cores_per_node" in told.stdout


def test_advice_is_the_simulation_of_its_layout_and_can_be_written_down(study: Path) -> None:
    folder = study.parents[1]
    shutil.copy(study / "study.toml", folder / "mine.toml")
    found = called(folder, "advise", "mine.toml", "--site", "cheap", "--deadline", "3h", "--write")
    assert found.returncode == 0, found.stderr
    assert "Advised: cheap with" in found.stdout
    assert "#SBATCH --nodes=" in found.stdout
    assert "[site.cheap]" not in found.stdout, "the command says all that is advised"
    walltime = re.search(r"submit \S+ --site cheap --nodes \d+ --walltime (\S+)", found.stdout)
    assert walltime is not None
    assert f"#SBATCH --time={walltime[1]}\n" in found.stdout
    text = (folder / "mine.toml").read_text()
    assert 'use = "cheap"  # this machine' in text
    assert "# where it runs" in text
    # The Python interface gives the same numbers, by either way.
    chosen = Study.from_toml(folder / "mine.toml", folder / "runs")
    advice = chosen.advise(sites=["cheap"], deadline=3 * 3600.0)
    again = chosen.simulate(nodes=advice.chosen.machine.nodes, site="cheap")
    assert again == advice.chosen
    assert f"nodes = {again.machine.nodes}\n" in text
    assert f'walltime = "{walltime[1]}"\n' in text
    # `submit` and `simulate` take from now on what the file says.
    assert chosen.simulate().machine.nodes == again.machine.nodes
    assert again.cost is not None


def test_of_a_finished_study_advice_is_for_another_one_in_the_report_too(tmp_path: Path) -> None:
    """Losing this: the command that is advised does nothing, since nothing is left."""
    space = {"batch_size": [128, 512], "learning_rate": [0.001, 0.005], "epochs": [2]}
    sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
    for name, stops in (("whole", ()), ("stopped", (30.0,))):
        directory = tmp_path / name / "taki-2019"
        write_study(directory, space, fold_sizes=sizes, stops=stops, go_on=False)
        with_space(directory, space)
        done = called(tmp_path, "advise", directory)
        assert done.returncode == 0, done.stderr
        found = next_time(directory, read(directory / "journal.jsonl"))
        told = [found.purpose, *(f"  {line}" for line in found.lines)]
        assert done.stdout.endswith("\n".join(["", *told, ""]))
        if name == "whole":
            assert told[0] == "For another study like it:"
            assert told[1].startswith("  stormsweep run STUDY.toml --site local --workers ")
        else:
            assert told[0] == "To go on with what is left:"
            assert told[1].startswith(f"  stormsweep run {directory} --site local --workers ")


@pytest.mark.parametrize(
    ("site", "verb", "runs"), [("local", "run", []), ("cheap", "submit", ["--runs", "my runs"])]
)
def test_the_command_for_a_grown_study_trains_what_is_new(
    tmp_path: Path, study: Path, site: str, verb: str, runs: list[str]
) -> None:
    """Losing this: the study's old record is named, and a job waits to train nothing."""
    text = (study / "study.toml").read_text()
    (tmp_path / "grown.toml").write_text(text.replace("[128, 512,", "[64, 128, 512,"))
    shutil.copytree(tmp_path / "runs", tmp_path / "my runs")
    few = "--repeats", "2", "--most-nodes", "2"
    done = called(tmp_path, "advise", "grown.toml", "--site", site, *few, *runs)
    assert done.returncode == 0, done.stderr
    line = done.stdout.split("To go on with what is left:\n")[1].splitlines()[0]
    words = ["stormsweep", verb, "grown.toml", *runs, "--site", site]
    assert shlex.split(line)[: len(words)] == words


def test_a_time_without_its_queue_is_not_shown_beside_others_as_if_it_were_all(study: Path) -> None:
    """Losing this: a cluster looks fastest, where its jobs wait for hours before they begin."""
    asked = "advise", study, "--site", "plain", "--site", "local", "--repeats", "2"
    told = called(study.parents[1], *asked, "--most-nodes", "1", "--deadline", "9d").stdout
    table, _, after = told.partition(" layouts simulated;")
    assert "Advised: local with" in after, "no note of the advised one says it"
    rows = [line[2:] for line in table.splitlines() if " with " in line]
    assert {line.split()[0]: line.endswith("%  + queue") for line in rows} == {
        "plain": True,
        "local": False,
    }
    assert "\n+ queue: the wait in the queue comes on top of that (--queue-wait)\n" in after
    known = called(study.parents[1], *asked, "--most-nodes", "1", "--queue-wait", "1s").stdout
    assert "plain with" in known
    assert "+ queue" not in known


def test_advice_on_this_machine_names_its_own_command(study: Path) -> None:
    found = called(study.parents[1], "advise", study)
    assert found.returncode == 0, found.stderr
    assert "stormsweep run" in found.stdout
    assert "--workers" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("simulate STUDY --workers 4096", "--workers 4096 x 1 thread: this machine has"),
        ("simulate STUDY --nodes 2", "--nodes: is for sites of a cluster"),
        ("simulate STUDY --site chaep", "given 'chaep' (did you mean 'cheap'?)"),
        ("simulate STUDY --site cheap --workers 6", "the nearest is 8"),
        ("simulate STUDY --site cheap --threads 9", "a node of cheap has 8 cores"),
        ("simulate STUDY --queue-wait soon", "--queue-wait: given 'soon'; must be a time"),
        ("simulate STUDY --queue-wait 1h:10min", "the second must be the longer one"),
        ("simulate STUDY --queue-wait 0min:1h", "the median must be above 0"),
        ("simulate STUDY --timeline x.gif", "must end in .png, .pdf or .svg"),
        ("advise STUDY --site whole --budget 12", "set cores_per_node of it in sites.toml"),
        ("advise STUDY --site whole --budget 9core-h", "set cores_per_node of it in sites.toml"),
        ("advise STUDY --site whole", "nodes of whole are exclusive, and nobody says how many"),
        ("advise STUDY --site plain --budget 12", "price_per_core_hour: is not set"),
        (
            "advise STUDY --budget 12",
            "this machine has no prices; give the budget in hours",
        ),
        ("advise STUDY --budget 12hours", "--budget: given '12hours'; must be hours such as"),
        ("advise STUDY --site cheap --deadline 10s", "the nearest is cheap with"),
        ("advise STUDY --site cheap --budget 0.01core-h", "--budget: nothing keeps to 0.01 core-h"),
        ("simulate empty.toml", "no finished run to reckon with; run a pilot first: stormsweep"),
    ],
)
def test_wrong_use_is_told_in_one_line(study: Path, arguments: str, said: str) -> None:
    folder = study.parents[1]
    text = (study / "study.toml").read_text().replace("taki-2019", "empty")
    (folder / "empty.toml").write_text(text)
    words = [str(study) if word == "STUDY" else word for word in arguments.split()]
    done = called(folder, *words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_study_that_ran_in_another_folder_is_named(study: Path) -> None:
    """Losing this: from the wrong folder, a pilot trains anew what is long on record."""
    folder = study.parents[1]
    (folder / "mine.toml").write_text((study / "study.toml").read_text())
    (folder / "elsewhere").mkdir()
    for command in ("simulate", "advise"):
        done = called(folder / "elsewhere", command, "../mine.toml")
        assert done.returncode == 2
        looked, meant = folder / "elsewhere" / "runs" / "taki-2019", "../runs/taki-2019"
        said = f"{looked}: there is no such study (did you mean {meant!r}?)\n"
        assert done.stderr == f"stormsweep: {said}"
    assert called(folder / "elsewhere", "simulate", "../runs/taki-2019").returncode == 0
    # The study files may have a folder of their own, beside that of the runs.
    (folder / "studies").mkdir()
    (folder / "studies" / "mine.toml").write_text((study / "study.toml").read_text())
    done = called(folder / "elsewhere", "simulate", "../studies/mine.toml")
    assert f"there is no such study (did you mean {meant!r}?)" in done.stderr
    shutil.rmtree(study)
    done = called(folder, "simulate", "mine.toml")
    assert f"{study}: there is no such study, and so no finished run" in done.stderr


def test_the_journal_stays_as_it_was(study: Path) -> None:
    before = read(study / "journal.jsonl")
    done = called(study.parents[1], "advise", study)
    assert done.returncode == 0, done.stderr
    assert read(study / "journal.jsonl") == before


@pytest.mark.slow
def test_a_pilot_trains_one_run_of_each_kind_and_what_it_trains_counts(tmp_path: Path) -> None:
    space = "batch_size = [32, 64]\nlearning_rate = [0.003, 0.01]\nepochs = [1, 2]"
    path = digits_study(tmp_path, **{"search__space": space})
    found = stormsweep(tmp_path, "advise", path, "--pilot", "5")
    assert found.returncode == 0, found.stderr
    assert "Advised: local with" in found.stdout
    directory = tmp_path / "runs" / "digits"
    plan = Study.from_toml(directory).plan()
    piloted = {run for run, _ in scores(directory)}
    kinds = [run.hyperparameters["batch_size"] for run in plan.runs if run.id in piloted]
    assert sorted(kinds) == [32, 64]
    summary = Study.from_toml(directory).summary()
    assert summary.runs_planned == len(plan.runs)
    assert not summary.finished, "a study of which most is to be trained is called finished"
    left = Study.from_toml(directory).simulate()
    assert left.runs == len(plan.runs) - 2
    done = stormsweep(tmp_path, "run", path, "--no-report")
    assert done.returncode == 0, done.stderr
    assert len(scores(directory)) == plan.tasks


def test_a_damaged_journal_is_not_taken_for_one_with_nothing_in_it(study: Path) -> None:
    path = study / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:-20] + b"\n", *lines[2:]]))
    done = called(study.parents[1], "simulate", study, "--workers", "2")
    assert done.returncode == 2
    assert "journal.jsonl" in done.stderr
    assert "pilot" not in done.stderr
