"""Losing these: a notebook shows `<object at 0x...>`, stays silent for hours, or shows markup."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from stormsweep.config.load import load_study
from stormsweep.errors import UserError
from stormsweep.records import RunFailed
from stormsweep.results import frames, journal
from stormsweep.results.standing import Leader
from stormsweep.study.notebook import NotebookProgress, in_notebook, usual_watcher
from stormsweep.study.session import Outcome
from stormsweep.study.study import Study
from stormsweep.study.watching import Silent, State
from tests.integration.conftest import digits_study
from tests.journals import simulate

SPACE = "batch_size = [32]\nlearning_rate = [0.01]\nepochs = [2, 4]"
STATE = State(
    tasks=10,
    tasks_done=4,
    share=0.4,
    failed=1,
    workers=2,
    busy=2,
    patches_per_second=9000.0,
    seconds=60.0,
    seconds_left=90.0,
    metric="roc_auc",
    leader=Leader({"batch_size": 64, "name": "<b>"}, 0.9123, 2),
    failures=("run a: diverged & gone",),
    cases="patches",
)


def executed(folder: Path, *cells: str) -> list[Any]:
    """Run a notebook of cells with a real kernel; return the outputs of each."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    spec = {"name": "own", "display_name": "own", "language": "python"}
    book.metadata["kernelspec"] = spec
    client = nbclient.NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.create_kernel_manager()
    # This interpreter, whatever kernels the machine has.
    client.km._kernel_spec = _spec()
    client.execute()
    return [cell.outputs for cell in book.cells]


def _spec() -> Any:
    from jupyter_client.kernelspec import KernelSpec

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    # Cells import from the tests, which a kernel finds only where it is told of this checkout.
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return KernelSpec(argv=argv, display_name="own", language="python", env={"PYTHONPATH": path})


def html(outputs: list[Any]) -> str:
    return "".join(output["data"]["text/html"] for output in outputs if "data" in output)


def test_a_notebook_shows_study_plan_results_and_how_far_it_is(tmp_path: Path) -> None:
    space = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}
    folder = simulate(tmp_path / "runs" / "storms", space)
    entries = journal.read(folder / "journal.jsonl")
    study, plan, results, summary, progress, text = executed(
        tmp_path,
        "from stormsweep import Study\nstudy = Study.from_toml('runs/storms')\nstudy",
        "study.plan()",
        "study.results()",
        "study.summary()",
        "from stormsweep.study.notebook import usual_watcher\n"
        "from tests.integration.test_notebook import STATE\n"
        "watcher = usual_watcher()\n"
        "for share in (0.1, 1.0):\n    watcher.stage('preparing data', share)\n"
        "watcher.state(STATE)\nwatcher.note('a note')\nNone",
        "print(repr(study))",
    )
    best = frames.configurations(entries).iloc[0]
    assert f"{best['roc_auc_mean']:.4g}" in html(study)
    assert "24 of 24" in html(study)
    assert "The data are synthetic" in html(study)
    assert "Plan" in html(plan)
    assert best["configuration"] in html(results)
    assert "<td>finished</td>" in html(summary)
    # One output, drawn over: not one for each step.
    assert len(progress) == 1
    assert "<td>100 %</td>" in html(progress)
    assert "4 of 10 tasks, 2 of 2 workers busy" in html(progress)
    assert "a note" in html(progress)
    assert text[0]["text"].strip() == "<Study 'taki-2019' in runs/storms>"


@pytest.mark.slow
def test_a_study_runs_in_a_notebook(tmp_path: Path) -> None:
    digits_study(tmp_path, search__space=SPACE)
    done, again, left = executed(
        tmp_path,
        "from stormsweep import Study\nstudy = Study.from_toml('digits.toml')\nstudy.run()",
        "study.run()",
        "import sys\nprint('tensorflow' in sys.modules)",
    )
    shown = html(done)
    assert "<td>4 of 4 tasks" in shown
    assert "starting workers" in shown
    assert "best roc_auc" in shown
    assert "Session: done" in shown
    assert "<th>tasks done now</th><td>0</td>" in html(again)
    assert left[0]["text"].strip() == "False"
    table = Study.from_toml(tmp_path / "runs" / "digits").results()
    assert list(table["complete"]) == [True, True]


def test_progress_says_what_the_terminal_says_and_escapes_it() -> None:
    watcher = NotebookProgress(every=1e9)
    watcher._draw = lambda now: None  # type: ignore[method-assign]
    watcher.stage("reading <files>", 0.5)
    watcher.state(STATE)
    shown = watcher._repr_html_()
    assert "reading &lt;files&gt;" in shown
    assert "best roc_auc 0.9123 over 2 folds: batch_size 64, name &lt;b&gt;" in shown
    assert "run a: diverged &amp; gone" in shown
    assert "9,000 patches/s" in shown
    assert "1 failed run" in shown


def test_outside_of_a_notebook_nobody_is_shown_anything() -> None:
    assert not in_notebook()
    assert isinstance(usual_watcher(), Silent)


def test_a_study_is_shown_before_it_is_begun_and_when_its_journal_is_damaged(
    tmp_path: Path,
) -> None:
    path = digits_study(tmp_path, validation="folds = 2\nrounds = 3")
    study = Study(load_study(path), path, tmp_path / "runs" / "digits")
    assert "<td>not begun</td>" in study._repr_html_()
    # Of all rounds, as the plan counts them.
    assert "<th>folds</th><td>6</td>" in study._repr_html_()
    assert "<th>learning_rate</th><td>0.003, 0.01</td>" in study._repr_html_()
    study.directory.mkdir(parents=True)
    study.journal_path.write_text("no journal\nat all\n")
    assert "journal.jsonl" in study._repr_html_()


def test_a_mistake_is_one_line_in_a_notebook_too(tmp_path: Path) -> None:
    """IPython asks errors how they want to be shown."""
    with pytest.raises(UserError) as said:
        Study.from_toml(tmp_path / "missing.toml")
    assert said.value._render_traceback_() == [f"StudyFileError: {said.value}"]


def test_an_outcome_shows_its_failures() -> None:
    failed = RunFailed("a", 0, 5, "error", "x < y", "worker-0", 1)
    shown = Outcome(Path("runs/x"), [failed], 3, 12, True)._repr_html_()
    assert "work is left" in shown
    assert "run a (error): x &lt; y" in shown
