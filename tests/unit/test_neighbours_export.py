"""Losing these: a study opened in a neighbour's tool shows other numbers than ours, or files go."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stormsweep.errors import UserError
from stormsweep.neighbours import owned
from stormsweep.neighbours.export import export, place
from stormsweep.neighbours.optuna_trials import trials
from stormsweep.neighbours.told import State, told
from stormsweep.records import Entry, RunPlanned, SearchEnded, TaskDone
from stormsweep.results import frames, journal
from tests.journals import plausible_scores, simulate

SPACE = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A study with one run that failed at its last milestone, as one sees it at the end."""
    folder = simulate(
        tmp_path_factory.mktemp("study"), SPACE, fail={1: ("diverged", "loss is nan", "")}
    )
    return journal.read(folder / "journal.jsonl")


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = simulate(tmp_path_factory.mktemp("study"), SPACE, stops=(50.0,), go_on=False)
    return journal.read(folder / "journal.jsonl")


def test_what_is_told_is_what_results_say(finished: list[Any]) -> None:
    table = frames.configurations(finished).set_index("configuration")
    study = told(finished)
    assert len(study.configurations) == 8
    for one in study.configurations:
        row = table.loc[one.id]
        assert one.rank == row["rank"]
        assert one.seconds == pytest.approx(row["seconds"] if row["complete"] else one.seconds)
        assert (one.state is State.complete) == row["complete"]
        if one.state is State.complete:
            assert one.means["roc_auc"] == row["roc_auc_mean"]
            assert one.curve()[one.epochs]["roc_auc"] == pytest.approx(row["roc_auc_mean"])
            assert list(one.curve()) == [epoch for epoch in (2, 4) if epoch <= one.epochs]
            assert all(list(fit.losses) == list(range(1, one.epochs + 1)) for fit in one.fits)
    failed = [one for one in study.configurations if one.state is State.failed]
    assert [(one.epochs, one.failure) for one in failed] == [(4, "diverged: loss is nan")]


def test_optuna_reads_trials_values_curves_and_failures(
    finished: list[Any], tmp_path: Path
) -> None:
    import optuna

    path = tmp_path / "optuna.db"
    done = export(finished, "optuna", path)
    assert done.opens == f"optuna-dashboard sqlite:///{path}"
    study = optuna.load_study(study_name="taki-2019", storage=f"sqlite:///{path}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    assert study.metric_names == ["roc_auc"]
    table = frames.configurations(finished)
    best = table.iloc[0]
    assert study.best_value == best["roc_auc_mean"]
    assert study.best_params == {name: best[name] for name in SPACE}
    assert study.best_trial.user_attrs["configuration"] == best["configuration"]
    assert study.best_trial.user_attrs["seconds"] == pytest.approx(best["seconds"])
    for trial in study.trials:
        steps = [epoch for epoch in (2, 4) if epoch <= trial.params["epochs"]]
        assert list(trial.intermediate_values) == steps
        assert trial.datetime_complete >= trial.datetime_start
        point = {**trial.params}
        folds = trial.user_attrs["roc_auc_folds"]
        for fold, score in folds.items():
            assert score == plausible_scores(point, int(fold))["roc_auc"]
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert [trial.user_attrs["failure"] for trial in failed] == ["diverged: loss is nan"]


def test_optuna_is_told_of_a_score_that_is_to_be_small(tmp_path: Path) -> None:
    import optuna

    folder = simulate(tmp_path / "study", SPACE, metric="brier_score")
    entries = journal.read(folder / "journal.jsonl")
    export(entries, "optuna", tmp_path / "o.db")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'o.db'}")
    assert study.direction.name == "MINIMIZE"
    assert study.best_value == frames.configurations(entries).iloc[0]["brier_score_mean"]
    both = told(entries, ["roc_auc", "loss"])
    assert [len(trial.values) for trial in trials(both)] == [2] * 8


def test_ranges_lists_and_values_from_before_the_space_grew(tmp_path: Path) -> None:
    """Losing this: Optuna refuses the trials, or draws a log range as a list of names."""
    space = {"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True, "integer": False}}
    points = [
        {"learning_rate": 0.002, "filters": [8, 16], "batch_size": 256},
        {"learning_rate": 0.05, "filters": [8, 16], "batch_size": 256},
    ]
    folder = simulate(
        tmp_path / "s",
        {**space, "filters": [[8, 16], [16]]},
        points=points,
        milestones=[3],
    )
    found = trials(told(journal.read(folder / "journal.jsonl")))
    rate = found[0].distributions["learning_rate"]
    assert (rate.low, rate.high, rate.log) == (1e-3, 0.05, True)
    assert found[0].params == {"learning_rate": 0.002, "filters": "[8, 16]"}
    assert found[0].user_attrs["fixed"] == {"batch_size": 256, "epochs": 3}


def test_a_score_that_is_no_number_is_a_failed_trial(tmp_path: Path) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        return {"roc_auc": float("nan") if point["learning_rate"] == 0.01 else 0.9}

    folder = simulate(tmp_path / "s", SPACE, scores=scores)
    found = trials(told(journal.read(folder / "journal.jsonl")))
    failed = {trial.params["learning_rate"] for trial in found if trial.state.name == "FAIL"}
    assert failed == {0.01}
    assert {trial.state.name for trial in found} == {"FAIL", "COMPLETE"}


def _halved(folder: Path, left: dict[float, int], over: bool = True) -> list[Entry]:
    """Return the journal of an ASHA study of 4 trials, of epochs 2 and 4.

    The trials of some learning rates were left after 2 epochs, scored on so many folds.
    """
    space = {"learning_rate": [0.001, 0.003, 0.01, 0.03], "epochs": [2, 4]}
    directory = simulate(folder, space, strategy="asha")
    found, gone = [], set()
    for entry in journal.read(directory / "journal.jsonl"):
        record = entry.record
        if isinstance(record, RunPlanned):
            folds = left.get(record.hyperparameters["learning_rate"])
            if folds is not None and record.fold >= folds:
                gone.add((record.run, 2))
                gone.add((record.run, 4))
                continue
            if folds is not None:
                gone.add((record.run, 4))
                entry = dataclasses.replace(
                    entry, record=dataclasses.replace(record, milestones=[2])
                )
        if isinstance(record, TaskDone) and (record.run, record.to_epoch) in gone:
            continue
        found.append(entry)
    return [*found, Entry(found[-1].time, SearchEnded(4))] if over else found


def test_a_trial_of_asha_is_one_trial_and_pruned_where_it_was_left(tmp_path: Path) -> None:
    """Losing this: a dashboard shows no pruning, and a trial once for each of its milestones."""
    import optuna

    entries = _halved(tmp_path / "s", {0.001: 3, 0.003: 1})
    export(entries, "optuna", tmp_path / "o.db")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'o.db'}")
    table = frames.configurations(entries).set_index(["learning_rate", "epochs"])["roc_auc_mean"]
    state = {trial.params["learning_rate"]: trial.state.name for trial in study.trials}
    assert len(study.trials) == 4
    assert state == {0.001: "PRUNED", 0.003: "PRUNED", 0.01: "COMPLETE", 0.03: "COMPLETE"}
    for trial in study.trials:
        rate = trial.params["learning_rate"]
        reached = [2] if rate < 0.01 else [2, 4]
        assert trial.intermediate_values == pytest.approx(
            {epoch: table[rate, epoch] for epoch in reached}
        )
        # As Optuna has it of a trial that it prunes itself.
        assert trial.value == pytest.approx(table[rate, reached[-1]])
        assert set(trial.params) == {"learning_rate"}
        assert trial.user_attrs["epochs"] == reached[-1]
    assert study.best_value == max(table[rate, 4] for rate in (0.01, 0.03))


def test_a_milestone_on_fewer_folds_leaves_those_before_as_they_were(tmp_path: Path) -> None:
    """Losing this: a trial that goes on with one fold first has the scores of that fold alone."""
    entries, first = [], set()
    for entry in _halved(tmp_path / "s", {}):
        record = entry.record
        if isinstance(record, RunPlanned):
            if record.fold:
                record = dataclasses.replace(record, milestones=[2])
                entry = dataclasses.replace(entry, record=record)
            else:
                first.add(record.run)
        if not isinstance(record, TaskDone) or record.to_epoch == 2 or record.run in first:
            entries.append(entry)
    table = frames.fits(entries)
    for trial in trials(told(entries)):
        own = table[table["learning_rate"] == trial.params["learning_rate"]]
        for epoch, folds in ((2, 3), (4, 1)):
            scores = own.loc[own["epochs"] == epoch, "roc_auc"]
            assert len(scores) == folds
            assert trial.intermediate_values[epoch] == pytest.approx(scores.mean())


def test_while_asha_goes_on_a_trial_that_may_go_on_is_not_pruned(tmp_path: Path) -> None:
    entries = _halved(tmp_path / "s", {0.001: 3}, over=False)
    found = trials(told(entries))
    assert [trial.state.name for trial in found if trial.params["learning_rate"] == 0.001] == [
        "RUNNING"
    ]
    assert len(found) == 4
    # What was reported stays as it was while folds of the next milestone are scored.
    final = {trial.params["learning_rate"]: trial.intermediate_values for trial in found}
    before: dict[float, set[int]] = {}
    for count in range(20, len(entries), 3):
        for trial in trials(told(entries[:count])):
            rate, now = trial.params["learning_rate"], trial.intermediate_values
            assert now == {epoch: final[rate][epoch] for epoch in now}
            assert before.get(rate, set()) <= set(now)
            before[rate] = set(now)


def test_an_unfinished_study_has_open_trials_and_is_replaced_when_it_is_done(
    unfinished: list[Any], tmp_path: Path
) -> None:
    import optuna

    path = tmp_path / "o.db"
    export(unfinished, "optuna", path)
    states = [
        t.state.name for t in optuna.load_study(study_name=None, storage=f"sqlite:///{path}").trials
    ]
    assert "RUNNING" in states
    assert len(states) < 8
    for one in told(unfinished).configurations:
        assert one.state in (State.complete, State.open)
        if one.state is State.open:
            assert len(one.fits) == 3
    before = path.read_bytes()
    export(unfinished, "optuna", path)
    assert path.read_bytes() != b""
    assert len(before) > 0
    assert [child.name for child in tmp_path.iterdir()] == ["o.db"]


def test_a_mean_over_folds_that_are_still_to_come_is_not_told(tmp_path: Path) -> None:
    """Losing this: the mean changes from export to export, and a store shows both."""
    folder = simulate(tmp_path / "s", SPACE, fail={1: ("diverged", "loss is nan", "")})
    entries = journal.read(folder / "journal.jsonl")
    whole = {one.id: one.curve() for one in told(entries).configurations}
    told_so_far = 0
    for count in range(20, len(entries), 4):
        for one in told(entries[:count]).configurations:
            for epoch, scores in one.curve().items():
                assert scores == whole[one.id][epoch]
                told_so_far += 1
    assert told_so_far > 20


@pytest.mark.parametrize("to", ["optuna", "mlflow"])
def test_a_database_of_somebody_else_is_left_alone(
    to: str, finished: list[Any], tmp_path: Path
) -> None:
    import optuna

    path = tmp_path / "mine.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="mine")
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds more than an export of Stormsweep's"):
        export(finished, to, path)
    path.write_text("notes")
    with pytest.raises(UserError, match="holds more than"):
        export(finished, to, path)
    assert path.read_text() == "notes"
    assert before


def test_the_export_of_another_study_is_left_alone(finished: list[Any], tmp_path: Path) -> None:
    folder = simulate(tmp_path / "other", SPACE, name="other")
    other = journal.read(folder / "journal.jsonl")
    export(other, "optuna", tmp_path / "o.db")
    export(other, "csv", tmp_path / "csv")
    for to, where in (("optuna", "o.db"), ("csv", "csv")):
        with pytest.raises(UserError, match="holds the export of another study, 'other'"):
            export(finished, to, tmp_path / where)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_the_frames_and_files_of_others_stay(
    kind: str, finished: list[Any], unfinished: list[Any], tmp_path: Path
) -> None:
    folder = tmp_path / kind
    export(finished, kind, folder)
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    table = read(folder / f"configurations.{kind}")
    expected = frames.configurations(finished)
    assert list(table["configuration"]) == list(expected["configuration"])
    assert list(table["roc_auc_mean"]) == pytest.approx(list(expected["roc_auc_mean"]), nan_ok=True)
    names = {"configurations", "fits", "tasks", "workers", "sessions", "failures", "retries"}
    ours = {f"{name}.{kind}" for name in names | {"account"}} | {owned.MARKER}
    assert {file.name for file in folder.iterdir()} == ours
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("keep")
    (folder / f"fits.{kind}").unlink()
    export(finished, kind, folder)
    assert (folder / "notes" / "mine.txt").read_text() == "keep"
    assert len(read(folder / f"fits.{kind}")) == len(frames.fits(finished))
    assert [child.name for child in tmp_path.iterdir()] == [kind]


def test_a_folder_of_somebody_else_is_left_alone(finished: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for to in ("csv", "tensorboard"):
        with pytest.raises(UserError, match="is not empty, and no export"):
            export(finished, to, tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        export(finished, "csv", tmp_path / "mine.txt")
    assert [child.name for child in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_breaks_off_leaves_what_was_there(
    finished: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(finished, "csv", tmp_path / "csv")
    before = {file.name: file.read_bytes() for file in (tmp_path / "csv").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(UserError, match="disk full"):
        export(finished, "csv", tmp_path / "csv")
    assert {file.name: file.read_bytes() for file in (tmp_path / "csv").iterdir()} == before
    assert [child.name for child in tmp_path.iterdir()] == ["csv"]


@pytest.fixture
def tensorboard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard as it is where TensorFlow is not installed: it asks for this module."""
    name = "tensorboard.compat.notf"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.mark.usefixtures("tensorboard_alone")
def test_tensorboard_reads_curves_and_hyperparameters(finished: list[Any], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata

    folder = tmp_path / "tb"
    export(finished, "tensorboard", folder)
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    study = told(finished)
    assert len(runs.Runs()) == 1 + 8 * 4
    by_id = {one.id: one for one in study.configurations}
    for name in runs.Runs():
        if name == ".":
            continue
        place, kind = name.split("/")
        one = by_id[place.rpartition(",")[2]]
        events = runs.Tensors(name, "validation/roc_auc")
        if kind == "mean":
            curve = {epoch: scores["roc_auc"] for epoch, scores in one.curve().items()}
        else:
            fit = one.fits[int(kind.removeprefix("fold-"))]
            curve = {epoch: scores["roc_auc"] for epoch, scores in fit.scores.items()}
            assert [e.step for e in runs.Tensors(name, "training/loss")] == list(fit.losses)
        values = {e.step: e.tensor_proto.float_val[0] for e in events}
        assert values == pytest.approx(curve, rel=1e-6)
    said = runs.PluginRunToTagToContent(metadata.PLUGIN_NAME)
    ends = [
        metadata.parse_session_end_info_plugin_data(tags[metadata.SESSION_END_INFO_TAG]).status
        for tags in said.values()
        if metadata.SESSION_END_INFO_TAG in tags
    ]
    assert sorted(ends) == [1] * 23 + [2]


@pytest.mark.usefixtures("tensorboard_alone")
def test_tensorboards_hparams_table_is_ours(finished: list[Any], tmp_path: Path) -> None:
    """Read as the page reads it: groups of folds, and the mean score of each."""
    from tensorboard.backend.event_processing import data_provider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    export(finished, "tensorboard", tmp_path / "tb")
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "tb")).Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(tmp_path / "tb"))
    asked = RequestContext()
    context = base_plugin.TBContext(data_provider=provider)
    backend = backend_context.Context(context)
    experiment = backend.experiment_from_metadata(
        asked, "", True, backend.hparams_metadata(asked, ""), []
    )
    assert {info.name for info in experiment.hparam_infos} == set(SPACE)
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        aggregation_type=api_pb2.AGGREGATION_AVG,
        col_params=[
            api_pb2.ColParams(metric=info.name)
            for info in experiment.metric_infos
            if info.name.tag == "validation/roc_auc"
        ],
    )
    found = list_session_groups.Handler(
        request_context=asked, backend_context=backend, experiment_id="", request=request
    ).run()
    means = {one.id: one.means.get("roc_auc") for one in told(finished).configurations}
    assert {group.name for group in found.session_groups} == set(means)
    for group in found.session_groups:
        if means[group.name] is None:
            continue
        values = {m.name.tag: m.value for m in group.metric_values}
        assert values["validation/roc_auc"] == pytest.approx(means[group.name], rel=1e-6)


def test_tensorboard_is_written_without_tensorflow(finished: list[Any], tmp_path: Path) -> None:
    """Losing this: an export takes ten seconds to begin, and the driver's process loads it."""
    folder = simulate(tmp_path / "study", SPACE)
    code = (
        "import sys\n"
        "from stormsweep.results import journal\n"
        "from stormsweep.neighbours.export import export\n"
        f"export(journal.read({str(folder)!r} + '/journal.jsonl'), 'tensorboard', "
        f"{str(tmp_path / 'tb')!r})\n"
        "assert 'tensorflow' not in sys.modules"
    )
    # Not from another Path type: what a user's script would do.
    code = code.replace("import sys\n", "import sys\nfrom pathlib import Path\n", 1)
    code = code.replace(
        f"journal.read({str(folder)!r} + '/journal.jsonl')",
        f"journal.read(Path({str(folder)!r}) / 'journal.jsonl')",
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mlflow_reads_experiment_runs_children_and_curves(
    finished: list[Any], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    path = tmp_path / "mlflow.db"
    done = export(finished, "mlflow", path)
    assert done.opens == f"mlflow ui --backend-store-uri sqlite:///{path}"
    assert [child.name for child in tmp_path.iterdir()] == ["mlflow.db"]
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.get_experiment_by_name("taki-2019")
    assert experiment.tags["stormsweep.metric"] == "roc_auc"
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert (len(parents), len(runs)) == (8, 8 + 24)
    order = ["metrics.roc_auc DESC"]
    best = client.search_runs(
        [experiment.experiment_id],
        "attributes.status = 'FINISHED' and tags.`stormsweep.rank` = '1'",
        order_by=order,
    )
    first = frames.configurations(finished).iloc[0]
    assert best[0].data.tags["stormsweep.configuration"] == first["configuration"]
    assert best[0].data.metrics["roc_auc"] == pytest.approx(first["roc_auc_mean"])
    assert best[0].data.params == {name: str(first[name]) for name in SPACE}
    history = client.get_metric_history(best[0].info.run_id, "roc_auc")
    assert [metric.step for metric in history] == [e for e in (2, 4) if e <= first["epochs"]]
    children = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{best[0].info.run_id}'"
    )
    assert sorted(run.data.tags["stormsweep.fold"] for run in children) == ["0", "1", "2"]
    losses = client.get_metric_history(children[0].info.run_id, "training_loss")
    assert [metric.step for metric in losses] == list(range(1, first["epochs"] + 1))
    assert children[0].data.metrics["train_seconds"] > 0
    failed = [run for run in runs if run.info.status == "FAILED"]
    assert len(failed) == 2
    assert {run.data.tags["stormsweep.failure"] for run in failed} == {"diverged: loss is nan"}

    # The same to a store, by its URI, adds nothing twice, and goes on where it was.
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    (tmp_path / "shared.db").write_bytes(path.read_bytes())
    export(finished, "mlflow", shared)
    store = MlflowClient(shared)
    again = store.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.run_id for run in again} == {run.info.run_id for run in runs}
    assert len(store.get_metric_history(best[0].info.run_id, "roc_auc")) == len(history)
    other = [dataclasses.replace(finished[0], time=finished[0].time + 1), *finished[1:]]
    with pytest.raises(UserError, match="has an experiment 'taki-2019' already"):
        export(other, "mlflow", shared)


def test_a_missing_package_is_named_with_what_to_install(
    finished: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> Any:
        return None if name in ("mlflow", "tensorboard") else find_spec(name)

    monkeypatch.setattr(owned, "find_spec", without)
    for to, package in (("mlflow", "mlflow-skinny"), ("tensorboard", "tensorboard")):
        with pytest.raises(UserError) as said:
            export(finished, to, tmp_path / to)
        assert str(said.value) == (
            f"export: --to {to} needs the package {package}; install it in the checkout: "
            f'pip install -e ".[{to}]"'
        )
    assert list(tmp_path.iterdir()) == []


def test_where_an_export_goes(tmp_path: Path) -> None:
    assert place("csv", None, tmp_path) == tmp_path / "export" / "csv"
    assert place("mlflow", "http://127.0.0.1:5000", tmp_path) == "http://127.0.0.1:5000"
    with pytest.raises(UserError, match="only --to mlflow writes to a URI"):
        place("optuna", "sqlite:///x.db", tmp_path)
    with pytest.raises(UserError, match="did you mean 'parquet'"):
        place("parket", None, tmp_path)


def test_marker_lists_what_was_written(finished: list[Any], tmp_path: Path) -> None:
    export(finished, "csv", tmp_path / "csv")
    said = json.loads((tmp_path / "csv" / owned.MARKER).read_text())
    assert "fits.csv" in said["files"]
    assert sqlite3.sqlite_version
