"""Losing these: what another tool found out is trained again, or a wrong score leads a search."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.errors import DataError, JournalError, UserError
from stormsweep.neighbours.export import export
from stormsweep.neighbours.foreign import foreign_points, import_points
from stormsweep.neighbours.points import Point, known_points, read_points, write_points
from stormsweep.neighbours.wanted import Wanted
from stormsweep.records import SearchBegun
from stormsweep.results import frames, journal
from stormsweep.search.proposals import Known
from tests.journals import simulate

RAY = Path(__file__).parents[1] / "foreign" / "ray-tune-2.60"
#: Trials that report every second epoch; a scheduler stopped all but the first.
RAY_ASHA = RAY.with_name("ray-tune-2.60-asha")
SPACE = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}

names = st.text(min_size=1, max_size=8).filter(lambda name: name != "epochs")
scalars = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
points = st.builds(
    Point,
    hyperparameters=st.dictionaries(names, scalars | st.lists(scalars, max_size=3), min_size=1),
    epochs=st.none() | st.integers(1, 1000),
    folds=st.integers(1, 10),
    scores=st.dictionaries(
        st.sampled_from(["roc_auc", "loss"]), st.floats(allow_nan=False, allow_infinity=False)
    ),
    origin=st.text(max_size=8),
)


@settings(max_examples=40)
@given(st.lists(points, max_size=4))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, told: list[Point]
) -> None:
    path = tmp_path_factory.mktemp("points") / "points.jsonl"
    write_points(path, told)
    assert read_points(path) == told


def test_points_become_known_with_merits_that_are_better_when_greater(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [
        {"hyperparameters": {"lr": 0.1}, "epochs": 5, "folds": 3, "scores": {"loss": 0.4}},
        {"hyperparameters": {"lr": 0.2}, "scores": {"roc_auc": 0.9, "loss": 0.3}},
        {"hyperparameters": {"lr": 0.3}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    assert known_points(path, ["loss"], epochs=7) == [
        Known({"lr": 0.1}, 5, 3, (-0.4,)),
        Known({"lr": 0.2}, 7, 1, (-0.3,)),
        Known({"lr": 0.3}, 7, 1, ()),
    ]
    assert [known.merits for known in known_points(path, ["roc_auc", "loss"])] == [
        (),
        (0.9, -0.3),
        (),
    ]


def test_a_table_of_points(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(
        "batch_size,optimizer,filters,epochs,score:roc_auc,from\n"
        '256,adam,"[8, 16]",10,0.9,paper\n'
        "512,sgd,,,,\n"
    )
    assert read_points(path) == [
        Point(
            {"batch_size": 256, "optimizer": "adam", "filters": [8, 16]},
            10,
            1,
            {"roc_auc": 0.9},
            "paper",
        ),
        Point({"batch_size": 512, "optimizer": "sgd"}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: is no JSON"),
        ("[]", "line 1: must be a JSON object"),
        ('\n{"scores": {}}', "line 2: hyperparameters: must be names and values"),
        (
            '{"hyperparameters": {"a": 1}, "score": 1}',
            "given the key 'score' (did you mean 'scores'?)",
        ),
        ('{"hyperparameters": {"a": 1, "epochs": 5}}', "epochs stand beside them"),
        ('{"hyperparameters": {"a": 1}, "epochs": 0}', "epochs: given 0; must be a whole number"),
        ('{"hyperparameters": {"a": 1}, "scores": {"auc": 1}}', "scores: given 'auc'"),
        ('{"hyperparameters": {"a": 1}, "scores": {"loss": NaN}}', "must be a finite number"),
    ],
)
def test_a_flaw_is_named_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        known_points(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: line ")


def test_flaws_of_tables_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    for text, said in (("a,a\n1,2\n", "line 1"), ("a,b\n1\n", "line 2: must have as many cells")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_points(path)
    with pytest.raises(UserError, match="no such file"):
        read_points(tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match=r"it has no journal\.jsonl"):
        read_points(tmp_path)


def test_an_earlier_study_is_known_as_its_results_say(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "s", SPACE, fail={1: ("diverged", "loss is nan", "")})
    entries = journal.read(folder / "journal.jsonl")
    found = known_points(folder)
    table = frames.configurations(entries).set_index([*SPACE])
    assert len(found) == len(table) == 8
    for known in found:
        row = table.loc[(*known.hyperparameters.values(), known.epochs)]
        assert known.folds == row["folds"]
        assert known.merits == pytest.approx((row["roc_auc_mean"],))
    worse = simulate(tmp_path / "b", SPACE, metric="brier_score")
    assert all(known.merits[0] < 0 for known in known_points(worse, ["brier_score"]))


def optuna_study(url: str, direction: str = "maximize", name: str = "storms") -> None:
    import optuna

    study = optuna.create_study(storage=url, study_name=name, direction=direction)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        trial.suggest_categorical("batch_size", [32, 64])
        if trial.number == 3:
            raise ValueError("diverged")
        for epoch in (1, 2, 3):
            trial.report(0.7 + rate + epoch / 100, epoch)
            if trial.number == 2:
                raise optuna.TrialPruned
        return 0.7 + rate

    study.optimize(objective, n_trials=5, catch=ValueError)


def test_an_optuna_study_becomes_known_points(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'o.db'}"
    optuna_study(url)
    before = (tmp_path / "o.db").read_bytes()
    wanted = Wanted(scores={"roc_auc": "value"}, names={"lr": "learning_rate"})
    done = import_points(
        tmp_path / "o.db", tmp_path / "points.jsonl", scores=wanted.scores, names=wanted.names
    )
    assert (len(done.points), done.scored, done.passed_over) == (4, 4, 1)
    known = known_points(tmp_path / "points.jsonl")
    trials = optuna.load_study(study_name="storms", storage=url).trials
    assert known[0] == Known(
        {"learning_rate": trials[0].params["lr"], "batch_size": trials[0].params["batch_size"]},
        3,
        1,
        (trials[0].value,),
    )
    # The pruned one is known at the step at which it was pruned.
    assert (known[2].epochs, known[2].merits) == (1, (trials[2].intermediate_values[1],))
    assert read_points(tmp_path / "points.jsonl")[0].origin == "optuna: storms, trial 0"
    # What is read is not written to; its URL does as well.
    assert (tmp_path / "o.db").read_bytes() == before
    assert foreign_points(url, wanted).points == done.points


def test_an_optuna_journal_file_becomes_known_points(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / "optuna.log"
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))), study_name="j"
    )
    study.optimize(
        lambda trial: trial.suggest_int("epochs", 3, 5) + trial.suggest_float("a", 0, 1), 2
    )
    found = foreign_points(path, Wanted(scores={"loss": "loss"})).points
    assert [(p.epochs, p.hyperparameters, p.scores) for p in found] == [
        (t.params["epochs"], {"a": t.params["a"]}, {"loss": t.value}) for t in study.trials
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_an_optuna_trial_counts_for_the_epochs_that_it_was_trained(
    first: int, tmp_path: Path
) -> None:
    """Losing this: a trial that was stopped early is taken for a bad one of all its epochs."""
    import optuna

    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'o.db'}", direction="maximize")

    def objective(trial: Any) -> float:
        trial.suggest_float("lr", 0.1, 0.2)
        epochs = 6 if trial.number in (1, 3) else trial.suggest_int("epochs", 8, 8)
        if trial.number == 2:
            raise optuna.TrialPruned  # With no value: nobody knows it for good or bad.
        for epoch in range(first, epochs + first):
            trial.report(0.5 + epoch / 100, epoch)
            if trial.number == 0 and epoch == first + 2:
                raise optuna.TrialPruned
        return 0.9

    study.optimize(objective, 5)
    killed = study.ask()
    killed.suggest_float("lr", 0.1, 0.2)
    killed.report(0.3, first)
    found = foreign_points(tmp_path / "o.db", Wanted(scores={"roc_auc": "value"}))
    assert [(p.epochs, p.scores["roc_auc"]) for p in found.points] == [
        (3, pytest.approx(0.5 + (first + 2) / 100)),
        (6, 0.9),
        (6, 0.9),
        (8, 0.9),
    ]
    assert found.passed_over == 2


def test_our_own_export_to_optuna_comes_back(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "s", SPACE)
    odd = tmp_path / "it's 50% #1?"  # names that would have to be quoted in a URL
    export(journal.read(folder / "journal.jsonl"), "optuna", odd / "o.db")
    back = foreign_points(odd / "o.db", Wanted()).points
    assert [child.name for child in odd.iterdir()] == ["o.db"]
    ours = read_points(folder)
    assert [(p.hyperparameters, p.epochs) for p in back] == [
        (p.hyperparameters, p.epochs) for p in ours
    ]
    assert [p.scores["roc_auc"] for p in back] == pytest.approx([p.scores["roc_auc"] for p in ours])


def test_what_is_wrong_with_an_optuna_study_is_said_in_one_line(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "o.db"
    optuna_study(f"sqlite:///{path}", "minimize")
    cases = [
        (Wanted(), "nobody says which score value is; say so with --metric roc_auc=value"),
        (
            Wanted(scores={"roc_auc": "value"}),
            "the study minimizes value, and less of roc_auc is worse",
        ),
        (Wanted(scores={"loss": "valu"}), "(did you mean 'value'?)"),
        (Wanted(study="storm"), "given 'storm' (did you mean 'storms'?)"),
        (
            Wanted(scores={"loss": "value"}, names={"lr": "batch_size"}),
            "two hyperparameters would be",
        ),
    ]
    for wanted, said in cases:
        with pytest.raises(UserError) as error:
            foreign_points(path, wanted)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    optuna_study(f"sqlite:///{path}", name="more")
    with pytest.raises(UserError, match=r"must be one of 'storms', 'more'|'more', 'storms'"):
        foreign_points(path, Wanted(scores={"loss": "value"}))
    with pytest.raises(UserError, match="did you mean 'roc_auc'"):
        Wanted(scores={"rocauc": "value"})
    with sqlite3.connect(tmp_path / "mine.db") as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(UserError, match="is a database, but none of Optuna's"):
        foreign_points(tmp_path / "mine.db", Wanted())
    # What Optuna keeps there is pickled.
    with pytest.raises(UserError, match="must be the URL of a database"):
        foreign_points("redis://127.0.0.1/0", Wanted())


@pytest.mark.parametrize("tool", ["optuna", "ray", "points"])
def test_a_new_name_for_what_no_trial_has_is_refused(tool: str, tmp_path: Path) -> None:
    """Losing this: with the sides swapped nothing is renamed, and a search learns from nothing."""
    source, there = RAY, "batch_size, dropout, learning_rate, net/filters"
    if tool == "optuna":
        source, there = tmp_path / "o.db", "lr, batch_size"
        optuna_study(f"sqlite:///{source}")
    if tool == "points":
        source, there = tmp_path / "p.jsonl", "lr, units"
        write_points(source, [Point({"lr": 0.1, "units": 8}, 1, 1, {"roc_auc": 0.9}, "")])
    # Said before what else may lack: the score's name.
    with pytest.raises(UserError) as caught:
        foreign_points(source, Wanted(names={"r": "x"}))
    said = str(caught.value)
    assert said.startswith(f"{source}: --rename r=x")
    assert set(said.rpartition("the trials have ")[2].split(", ")) == set(there.split(", "))


def test_a_result_folder_of_ray_tune_becomes_known_points(tmp_path: Path) -> None:
    done = import_points(RAY, tmp_path / "p.jsonl", scores={"roc_auc": "val_auc"})
    assert (len(done.points), done.passed_over) == (2, 1)
    assert done.points[0] == Point(
        {"batch_size": 64, "dropout": None, "learning_rate": 0.001, "net/filters": [8, 16]},
        3,
        1,
        {"roc_auc": pytest.approx(0.861)},
        "ray-tune: storms, trial faa58_00000",
    )
    assert [known.merits for known in known_points(tmp_path / "p.jsonl")] == [
        pytest.approx((0.861,)),
        pytest.approx((0.87,)),
    ]
    trial = next((RAY / "storms").glob("*_0_*"))
    assert foreign_points(trial, Wanted()).points[0].scores == {"loss": pytest.approx(1 / 3)}


def test_ray_tunes_torn_results_and_tables_are_read(tmp_path: Path) -> None:
    folder = shutil.copytree(RAY / "storms", tmp_path / "storms")
    first, second, _ = sorted(folder.iterdir())
    text = (first / "result.json").read_text().splitlines(keepends=True)
    (first / "result.json").write_text("".join(text[:2]) + text[2][:40])
    (second / "result.json").unlink()
    found = foreign_points(folder, Wanted(scores={"roc_auc": "val_auc"})).points
    assert [(p.epochs, p.scores["roc_auc"]) for p in found] == [
        (2, pytest.approx(0.841)),
        (3, pytest.approx(0.87)),
    ]


def ray_folder(folder: Path, trials: list[tuple[int, int]], stopped: tuple[int, ...] = ()) -> Path:
    """Write the results of trials: the epochs each was meant to have, and how many it reported.

    Ray says of those whose numbers are in `stopped` that it ended them.
    """
    for number, (epochs, results) in enumerate(trials):
        trial = folder / f"train_{number}"
        trial.mkdir(parents=True)
        (trial / "params.json").write_text(json.dumps({"lr": number, "epochs": epochs}))
        lines = [{"roc_auc": n / 10, "training_iteration": n} for n in range(1, results + 1)]
        lines[-1]["done"] = number in stopped
        (trial / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_ray_tune_trial_counts_for_the_epochs_that_it_was_trained(tmp_path: Path) -> None:
    """Losing this: what a scheduler stopped after an epoch is taken for a bad trial of them all."""
    stopped = ray_folder(tmp_path / "asha", [(8, 8), (8, 1), (8, 4)])
    assert [p.epochs for p in foreign_points(stopped, Wanted()).points] == [8, 1, 4]
    # Who reports once, at the end, says nothing of epochs.
    once = ray_folder(tmp_path / "once", [(8, 1), (4, 1)])
    assert [p.epochs for p in foreign_points(once, Wanted()).points] == [8, 4]
    both = foreign_points(tmp_path, Wanted()).points
    assert [p.epochs for p in both] == [8, 1, 4, 8, 4]


def test_the_results_of_a_ray_tune_trial_are_its_epochs_only_where_one_has_as_many(
    tmp_path: Path,
) -> None:
    """Losing this: who reports every tenth epoch teaches that a tenth of them does it."""
    tenths = ray_folder(tmp_path / "tenths", [(100, 10), (50, 5), (100, 3), (1, 1)], stopped=(2,))
    found = foreign_points(tenths, Wanted())
    assert ([p.epochs for p in found.points], found.unsure) == ([100, 50, 1], 1)
    found = foreign_points(RAY_ASHA, Wanted(scores={"roc_auc": "val_auc"}))
    assert ([p.epochs for p in found.points], found.unsure) == ([8], 3)
    # None was trained to its end: Ray ended all, or somebody ended Ray.
    for most, stopped in ((50, (0, 1)), (40, ())):
        early = ray_folder(tmp_path / str(most), [(100, 37), (100, most)], stopped)
        found = foreign_points(early, Wanted())
        assert ([p.epochs for p in found.points], found.unsure) == ([], 2)
    with pytest.raises(DataError, match="2 were stopped after nobody knows how many epochs"):
        import_points(early, tmp_path / "p.jsonl")


@pytest.mark.parametrize("name", ["error.txt", "error.pkl"])
def test_a_ray_tune_trial_that_failed_is_passed_over(name: str, tmp_path: Path) -> None:
    folder = ray_folder(tmp_path / "storms", [(8, 8), (8, 3)])
    (folder / "train_1" / name).write_bytes(b"out of memory")
    found = foreign_points(folder, Wanted())
    assert ([p.epochs for p in found.points], found.passed_over) == ([8], 1)


def test_no_pickle_of_ray_tunes_is_ever_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    folder = shutil.copytree(RAY / "storms", tmp_path / "storms")
    for name in ("tuner.pkl", *(f"{trial.name}/params.pkl" for trial in folder.iterdir())):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    assert foreign_points(folder, Wanted()).points
    assert not (tmp_path / "sprung").exists()


def test_what_is_wrong_with_a_ray_tune_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nobody says .* there are: val_auc, loss, epoch$"):
        foreign_points(RAY, Wanted(scores={"roc_auc": "auc"}))
    with pytest.raises(UserError, match=r"neither a study's directory nor a result folder"):
        foreign_points(tmp_path, Wanted())
    failed = next((RAY / "storms").glob("*_2_*"))
    with pytest.raises(UserError, match="no trial in it has hyperparameters to import"):
        import_points(failed, tmp_path / "p.jsonl")
    assert not (tmp_path / "p.jsonl").exists()


def test_an_import_never_replaces_what_it_reads(tmp_path: Path) -> None:
    optuna_study(f"sqlite:///{tmp_path / 'o.db'}")
    write_points(tmp_path / "p.jsonl", [Point({"lr": 0.1})])
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "p.jsonl")
    for name, output in (("o.db", "o.db"), ("p.jsonl", "p.jsonl"), ("p.jsonl", "link.jsonl")):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UserError, match=r"is what is read; name another file with --output$"):
            import_points(tmp_path / name, tmp_path / output, scores={"roc_auc": "value"})
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(UserError, match="is no file of known points that import wrote"):
        import_points(f"sqlite:///{tmp_path / 'o.db'}", tmp_path / "o.db")
    folder = shutil.copytree(RAY / "storms", tmp_path / "storms")
    result = next(folder.glob("*_0_*")) / "result.json"
    before = result.read_bytes()
    with pytest.raises(UserError, match="is no file of known points that import wrote"):
        import_points(folder, result, scores={"roc_auc": "val_auc"})
    assert result.read_bytes() == before


@pytest.mark.parametrize(
    "there",
    [
        "my notes\n",
        '{"a": 1}\n',
        "[1]\n",
        "lr,epochs\n0.1,3\n",
        # Somebody's own, written by hand below ours.
        '{"hyperparameters": {"lr": 0.1}, "folds": 1, "scores": {}, "from": ""}\n'
        '{"hyperparameters": {"lr": 0.2}}\n',
        b"\xff\xfe",
    ],
)
def test_an_import_replaces_only_what_an_import_wrote(there: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(there if isinstance(there, bytes) else there.encode())
    before = path.read_bytes()
    with pytest.raises(UserError) as said:
        import_points(RAY, path, scores={"roc_auc": "val_auc"})
    assert str(said.value) == (
        f"{path}: is there already and is no file of known points that import wrote; "
        "name another with --output"
    )
    assert path.read_bytes() == before


def test_an_import_replaces_its_own_and_keeps_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "p.jsonl", tmp_path / "link.jsonl"
    path.touch()  # as mktemp does
    link.symlink_to(path)
    for scores in ({"roc_auc": "val_auc"}, {"loss": "loss"}, {"roc_auc": "val_auc"}):
        import_points(RAY, link, scores=scores)
        assert link.is_symlink()
        assert read_points(path)[0].scores.keys() == scores.keys()


def test_an_import_leaves_the_points_that_a_study_began_with(tmp_path: Path) -> None:
    """They look like those that an import writes, and the study's strategy goes on from them."""
    folder = simulate(tmp_path / "s", SPACE)
    own = folder / "known.jsonl"
    write_points(own, [Point({"lr": 0.1})])
    before = own.read_bytes()
    with pytest.raises(UserError, match="belongs to the study in that folder"):
        import_points(RAY, own, scores={"roc_auc": "val_auc"})
    assert own.read_bytes() == before


def test_trials_with_infinite_hyperparameters_are_passed_over_and_counted(tmp_path: Path) -> None:
    """No file of ours holds inf or NaN, nor does a study's space."""
    import optuna

    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'o.db'}", direction="maximize")
    study.enqueue_trial({"clip": float("inf")})
    study.enqueue_trial({"clip": 1.0})
    study.optimize(lambda trial: trial.suggest_categorical("clip", [1.0, float("inf")]), 2)
    folder = shutil.copytree(RAY / "storms", tmp_path / "storms")
    first, second, _ = sorted(folder.iterdir())
    said = json.loads((second / "params.json").read_text())
    said["net"] = {"filters": [8, float("nan")]}
    (second / "params.json").write_text(json.dumps(said))
    for source, scores in ((tmp_path / "o.db", {"roc_auc": "value"}), (folder, {"loss": "loss"})):
        done = import_points(source, tmp_path / "p.jsonl", scores=scores)
        assert (len(done.points), done.not_finite) == (1, 1)
        assert len(read_points(tmp_path / "p.jsonl")) == 1
    shutil.rmtree(first)
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(UserError) as error:
        import_points(folder, tmp_path / "p.jsonl", scores={"loss": "loss"})
    assert str(error.value).endswith(
        "no trial in it has hyperparameters to import; those of 1 are infinite or NaN"
    )


@pytest.mark.parametrize("value", ["NaN", "1e999", '[1, {"a": -Infinity}]'])
def test_points_with_infinite_hyperparameters_are_named(value: str, tmp_path: Path) -> None:
    text = f'{{"hyperparameters": {{"a": 1}}}}\n{{"hyperparameters": {{"a": 1, "b": {value}}}}}\n'
    (tmp_path / "p.jsonl").write_text(text)
    table = f'a,b\n1,\n1,"{value.replace(chr(34), chr(34) * 2)}"\n'
    (tmp_path / "p.csv").write_text(table)
    for name, line in (("p.jsonl", 2), ("p.csv", 3)):
        with pytest.raises(UserError, match=rf"{name}: line {line}: hyperparameters.b: given .*;"):
            import_points(tmp_path / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("asked", [{"study": "nix"}, {"scores": {"roc_auc": "nix"}}])
def test_what_is_for_other_tools_is_refused_of_an_earlier_study(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    """Losing this: a slip is passed over, and other scores than those meant are imported."""
    simulate(tmp_path / "early", {"learning_rate": [0.01], "epochs": [2]})
    with pytest.raises(UserError, match="--study and --metric are for what other tools wrote"):
        import_points(tmp_path / "early", tmp_path / "p.jsonl", **asked)
    assert not (tmp_path / "p.jsonl").exists()
    assert len(import_points(tmp_path / "early", tmp_path / "p.jsonl").points) == 1


def test_the_directory_of_a_sweepsearchcv_is_called_that(tmp_path: Path) -> None:
    """Losing this: whoever imports one is told to run a study that is none."""
    begun = SearchBegun("SVC", "0", {"y": ""}, "one", "grid", 0, 2)
    with journal.JournalWriter(tmp_path / "journal.jsonl") as writer:
        writer.append(begun)
    with pytest.raises(JournalError, match="is that of a SweepSearchCV, not of a study"):
        import_points(tmp_path, tmp_path / "p.jsonl")
