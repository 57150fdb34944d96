"""Losing these: more folds change those there were, leak, or pretend to more than they tell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.utils.fixes import parse_version

from stormsweep.config.growth import grew, shrunk
from stormsweep.config.load import differences as changes
from stormsweep.config.load import dump_study, load_study
from stormsweep.config.study import StudyFile
from stormsweep.data.folds import Fold, folds
from stormsweep.errors import DataError, StudyFileError
from stormsweep.records import Entry, Proposed, Record, RunPlanned, StudyBegun, TaskDone
from stormsweep.results import facts, frames, summary
from stormsweep.results.contenders import against
from stormsweep.results.grid_variance import decompose
from stormsweep.results.importance import fold_noise
from stormsweep.scaling import differences
from stormsweep.search.growth import fitted
from stormsweep.search.plan import make_plan
from stormsweep.search.proposals import Event, Outcome, Proposal
from stormsweep.search.search import Search
from stormsweep.study.protocol import fold_rows, protocol_of, whole_part
from stormsweep.study.remaining import remaining, search_of
from stormsweep.study.stretches import fingerprint
from stormsweep.work import Protocol, Run, Task, TaskOrder
from tests import journals
from tests.unit.test_growth import done
from tests.unit.test_protocol import part, protocol

GROUPED = ("grouped", "stratified-grouped")
DRAWN = (*GROUPED, "stratified", "k-fold")


@st.composite
def problems(draw: st.DrawFn, splits: tuple[str, ...] = DRAWN) -> tuple[Any, ...]:
    n, seed = draw(st.integers(12, 120)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, draw(st.integers(3, 20)), n) * 3 - 4
    labels = (rng.random(n) < draw(st.floats(0.2, 0.8))).astype(np.uint8)
    split = draw(st.sampled_from(splits))
    return labels, groups if split in GROUPED else None, draw(st.integers(2, 4)), seed, split


def partition(made: list[Fold]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(validation.tolist()) for _, validation in made)


@given(problems(), st.integers(2, 4))
def test_each_round_is_another_partition_and_keeps_groups_whole(
    problem: tuple[Any, ...], rounds: int
) -> None:
    labels, groups, count, seed, split = problem
    try:
        once = folds(labels, groups, count, seed, split)
        made = folds(labels, groups, count, seed, split, rounds)
    except DataError:
        assume(False)
    assert len(made) == count * rounds
    every = [made[number * count : (number + 1) * count] for number in range(rounds)]
    for own in every:
        assert sorted(np.concatenate([held for _, held in own]).tolist()) == [*range(len(labels))]
        for train, held in own:
            assert sorted([*train, *held]) == [*range(len(labels))]
            assert 0 < labels[held].sum() < len(held)
            if groups is not None:
                assert not set(groups[train]) & set(groups[held])
    assert len({partition(own) for own in every}) == rounds, "a round is one that was there"
    # More rounds leave those before them as they are.
    for fewer in (once, folds(labels, groups, count, seed, split, rounds - 1)):
        for one, other in zip(fewer, made[: len(fewer)], strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@given(problems(("grouped",)))
def test_groups_dealt_out_by_chance_make_folds_of_about_the_same_size(
    problem: tuple[Any, ...],
) -> None:
    labels, groups, count, seed, split = problem
    try:
        made = folds(labels, groups, count, seed, split, 3)
    except DataError:
        assume(False)
    largest = np.unique(groups, return_counts=True)[1].max()
    for number in range(3):
        sizes = [len(held) for _, held in made[number * count : (number + 1) * count]]
        assert max(sizes) - min(sizes) <= largest


@pytest.mark.parametrize(
    ("split", "known"),
    [
        ("grouped", "c2a414fa5bb2"),
        ("stratified-grouped", "31720daaab2a"),
        ("chronological", "8fbe410d5a83"),
        ("stratified", "9548a2111957"),
        ("k-fold", "fea78753135b"),
        ("consecutive", "436952acc17a"),
    ],
)
def test_the_first_round_is_what_folds_were_before_there_were_rounds(
    split: Any, known: str
) -> None:
    # Made by the code that knew no rounds: studies that were begun with it go on.
    if split == "stratified-grouped" and parse_version(sklearn.__version__) < parse_version("1.8"):
        pytest.skip("scikit-learn before 1.8 divides groups into other folds")
    rng = np.random.Generator(np.random.PCG64(7))
    labels = (rng.random(300) < 0.3).astype(np.uint8)
    groups = rng.integers(0, 25, 300).astype(np.int32)
    by = groups if split in (*GROUPED, "chronological") else None
    digest = hashlib.sha256()
    rounds = 1 if split in ("chronological", "consecutive") else 3
    for train, held in folds(labels, by, 3, 11, split, rounds)[:3]:
        digest.update(train.tobytes() + b"|" + held.tobytes() + b"/")
    assert digest.hexdigest()[:12] == known


def test_more_rounds_than_ways_to_split_are_refused_in_one_line() -> None:
    labels, groups = [0, 1] * 6, np.repeat([0, 1, 2], 4)
    # Three groups into two folds: three ways.
    assert len(folds(labels, groups, 2, 0, "grouped", 3)) == 6
    with pytest.raises(DataError, match=r"^validation.rounds: .*must be at most 3$"):
        folds(labels, groups, 2, 0, "grouped", 4)
    with pytest.raises(DataError, match=r"^validation.rounds: given 2; must be 1 .*'consecutive'"):
        folds(labels, None, 2, 0, "consecutive", 2)


def study(**tables: Any) -> StudyFile:
    return StudyFile.model_validate({"study": {"name": "x"}, **tables})


@pytest.mark.parametrize("split", ["chronological", "consecutive"])
def test_a_study_file_with_rounds_that_cannot_be_is_refused(tmp_path: Path, split: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'[study]\nname = "x"\n[validation]\nsplit = "{split}"\nrounds = 2\n')
    with pytest.raises(StudyFileError, match=r"validation.rounds: given 2; must be 1") as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


def test_rounds_may_be_raised_only_and_stand_in_the_way_of_other_folds() -> None:
    one, two = study(), study(validation={"rounds": 2})
    assert shrunk(one, two) == changes(one, two, growing=True) == []
    assert grew(one, two)
    assert changes(two, one, growing=True) == [
        "validation.rounds was 2, is 1 (a study may only grow)"
    ]
    (said,) = changes(one, study(validation={"folds": 4}), growing=True)
    assert said.startswith("validation.folds was 3, is 4 (")
    assert "raise validation.rounds" in said
    assert changes(one, two) == ["validation.rounds was 1, is 2"]


def test_study_files_and_journals_without_rounds_have_one(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(dump_study(study()).replace("rounds = 1\n", ""))
    assert "rounds" not in path.read_text()
    assert load_study(path).validation.rounds == 1
    begun = StudyBegun("x", 0, "", "grid", "roc_auc", 3, "", {}, {}, {}, [])
    assert (begun.rounds, begun.splits) == (1, 3)
    grown = replace(begun, folds=6, rounds=2)
    assert grown.splits == 3


@pytest.mark.parametrize("before", [False, True])
def test_cases_of_the_first_folds_and_of_the_final_model_stay_as_they_are(before: bool) -> None:
    rng = np.random.default_rng(1)
    data = part(rng.random(120) < 0.3, rng.integers(0, 15, 120))
    few = protocol(before_split=before, balance="oversample")
    many = replace(few, rounds=3)
    assert many.total == 9
    once, more = fold_rows(data, few), fold_rows(data, many)
    assert len(more) == 9
    for one, other in zip(once, more[:3], strict=True):
        assert np.array_equal(one.train, other.train)
        assert np.array_equal(one.validation, other.validation)
    groups = data.groups["run_date"]
    for fold in more:
        assert not set(groups[fold.train]) & set(groups[fold.validation])
    assert np.array_equal(whole_part(data, few).train, whole_part(data, many).train)


def order(protocol: Protocol, run: Run) -> TaskOrder:
    text = dict.fromkeys(("build", "model", "data", "fingerprint", "turned"), "x")
    return TaskOrder(
        **text,
        task=Task(run, 0, 1),
        protocol=protocol,
        score_test=False,
        engine="tensorflow",
        precision="float32",
        packing=True,
        checkpoints="",
        threads=1,
        worker="w",
        session=1,
        submitted=0.0,
    )


def test_checkpoints_outlive_a_raise_of_rounds_and_are_not_those_of_the_whole_part() -> None:
    few = protocol_of(study())
    many = replace(few, rounds=4)
    first = Run("a-f2", {}, 2, (1,))
    assert fingerprint(order(few, first)) == fingerprint(order(many, first))
    # Before there were rounds, a search knew no fold 3, and 3 was the whole part.
    assert "rounds" not in repr(few)
    new, whole = Run("a-f3", {}, 3, (1,)), Run("a-f3", {}, 3, (1,), whole=True)
    assert fingerprint(order(many, whole)) == fingerprint(order(few, whole))
    assert fingerprint(order(many, new)) != fingerprint(order(many, whole))


def test_a_plan_that_gets_a_round_holds_new_runs_for_its_folds_only() -> None:
    points = [{"x": x, "epochs": epochs} for x in (1, 2) for epochs in (2, 4)]
    before, after = make_plan(points, {}, 3), make_plan(points, {}, 6)
    known = {run.id: run for run in before.runs}
    new = [run for run in fitted(after, known).runs if run != known.get(run.id)]
    assert {run.fold for run in new} == {3, 4, 5}
    assert len(new) == 6


class Two:
    """Proposes two trials on all folds, then the better of them for longer."""

    def __init__(self, folds: int) -> None:
        self.folds, self.taken, self.merits = folds, [], {}

    def propose(self) -> list[Proposal]:
        if len(self.taken) < 2:
            return [Proposal(len(self.taken), {"x": len(self.taken)}, 1, self.folds)]
        if len(self.taken) == 2 == len(self.merits):
            best = max(self.merits, key=lambda trial: self.merits[trial])
            return [Proposal(best, {"x": best}, 2, self.folds)]
        return []

    def take(self, event: Event) -> None:
        match event:
            case Proposal():
                self.taken.append(event)
            case Outcome(trial, 1, folds, merits):
                assert folds == self.folds
                self.merits[trial] = merits


def begun(folds: int, rounds: int = 1) -> StudyBegun:
    about = StudyBegun("x", 0, "", "two", "roc_auc", folds, "", {}, {}, {}, [])
    return replace(about, rounds=rounds)


def trained(searching: Search, journal: list[Record], told: StudyBegun) -> None:
    """Train all that a search asks for, as a session of a driver does."""
    reached = {task.run: task.to_epoch for task in journal if isinstance(task, TaskDone)}
    known = {plan.run for plan in journal if isinstance(plan, RunPlanned)}
    new = [run for run in searching.runs.values() if run.id not in known]
    records: list[Record] = [told, *(planned(run) for run in new)]
    for record in records:
        searching.take(record)
    journal += records
    waiting = list(searching.wanted(reached))
    while True:
        while waiting:
            run = searching.runs[waiting.pop(0).id]
            for epoch in run.milestones:
                if epoch > reached.get(run.id, 0):
                    score = run.hyperparameters["x"] + run.fold / 100 + epoch / 1000
                    record = done(run, reached.get(run.id, 0), epoch, score)
                    reached[run.id] = epoch
                    journal.append(record)
                    searching.take(record)
        proposed, waiting = searching.more()
        journal += [*proposed, *map(planned, waiting)]
        if not proposed:
            return


def planned(run: Run) -> RunPlanned:
    return RunPlanned(run.id, run.hyperparameters, run.fold, list(run.milestones))


def searching(folds: int, first_folds: int | None = None) -> Search:
    merits = lambda scores: (scores["roc_auc"],)  # noqa: E731
    return Search(lambda: Two(folds), {}, folds, merits, first_folds=first_folds)


def test_a_search_that_is_over_trains_the_new_folds_of_all_it_proposed_and_no_more() -> None:
    journal: list[Record] = []
    first = searching(2)
    trained(first, journal, begun(2))
    assert first.over
    before = {(task.run, task.to_epoch) for task in journal if isinstance(task, TaskDone)}
    assert len(before) == 2 * 2 + 2
    asked = len([record for record in journal if isinstance(record, Proposed)])

    second = searching(4)
    for record in journal:
        second.take(record)
    assert not second.over, "what is new is not seen"
    count = len(journal)
    trained(second, journal, begun(4, 2))
    assert second.over
    added = journal[count:]
    after = {(task.run, task.to_epoch) for task in added if isinstance(task, TaskDone)}
    assert not before & after
    assert {run.rpartition("-f")[2] for run, _ in after} == {"2", "3"}
    assert len(after) == 2 * 2 + 2
    assert not [record for record in added if isinstance(record, Proposed)]
    known = {record.run for record in journal if isinstance(record, RunPlanned)}
    assert known == set(second.runs), "a run is trained that is not on record"

    # A driver that reads all of it finds nothing left.
    third = searching(4)
    for record in journal:
        third.take(record)
    assert third.over
    assert asked == 3


@pytest.mark.parametrize(
    ("strategy", "first_folds"),
    [
        *(("tpe", None), ("cma-es", None), ("nsga2", None)),
        *((name, first) for name in ("halving", "hyperband", "asha") for first in (None, 1, 2)),
    ],
)
def test_strategies_go_on_with_more_folds(strategy: str, first_folds: int | None) -> None:
    def file(rounds: int) -> StudyFile:
        space = {"x": {"low": 0.0, "high": 1.0}, "epochs": [1, 3]}
        search = {"strategy": strategy, "trials": 9, "space": space}
        search |= {"first_folds": first_folds} if first_folds else {}
        return study(search=search, validation={"folds": 2, "rounds": rounds})

    journal: list[Record] = []
    for rounds in (1, 2):
        one = search_of(file(rounds))
        assert one is not None
        for record in journal:
            one.take(record)
        assert not one.over
        before = [(t.run, t.to_epoch) for t in journal if isinstance(t, TaskDone)]
        trained(one, journal, begun(2 * rounds, rounds))
        assert one.over
        after = [(t.run, t.to_epoch) for t in journal if isinstance(t, TaskDone)]
        assert after[: len(before)] == before
        assert len(set(after)) == len(after), "trained again"
        assert {run.fold for run in one.runs.values()} == {*range(2 * rounds)}
    again = search_of(file(2))
    assert again is not None
    for record in journal:
        again.take(record)
    assert again.over, "what is all trained is not over"


def test_random_trials_of_an_earlier_range_go_on_with_more_folds() -> None:
    """Losing this: trials that lack only the new round are left, and as many begun anew."""

    def file(high: float, trials: int, rounds: int) -> StudyFile:
        search = {"strategy": "random", "trials": trials, "space": {"x": {"low": 0, "high": high}}}
        return study(search=search, validation={"folds": 2, "rounds": rounds})

    journal: list[Entry] = []

    def go_on(asked: StudyFile, rounds: int, most: int = 1000) -> set[str]:
        journal.append(Entry(0.0, begun(2 * rounds, rounds)))
        left = remaining(asked, journal)
        reached, planned = left.progress.reached, left.progress.planned
        for run in left.plan.runs:
            if run.id not in planned:
                told = RunPlanned(run.id, run.hyperparameters, run.fold, [*run.milestones])
                journal.append(Entry(0.0, told))
        for run in [run for run in left.plan.runs if run.id not in reached][:most]:
            journal.append(Entry(0.0, done(run, 0, run.milestones[-1], 0.5)))
        assert not left.dropped
        return {run.id for run in left.plan.runs}

    old = go_on(file(1.0, 8, 1), 1)
    both = go_on(file(2.0, 12, 1), 1)
    assert old < both
    assert len(both) == 12 * 2
    # Stopped in the middle of the new round, and gone on with.
    for most in (5, 1000):
        more = go_on(file(2.0, 12, 2), 2, most)
        assert both < more
        assert len(more) == 12 * 4


def test_trials_that_were_to_be_scored_on_the_first_folds_only_stay_there() -> None:
    journal: list[Record] = [begun(2), Proposed(0, {"x": 0}, 1, 2)]
    for first_folds, runs in ((None, 4), (2, 2)):
        one = searching(4, first_folds)
        for record in journal:
            one.take(record)
        assert len(one.runs) == runs


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """The journal of a study of 2 x 3 folds."""
    space = {"learning_rate": [0.001, 0.01], "epochs": [2]}
    directory = journals.simulate(tmp_path_factory.mktemp("twice"), space, folds=6)
    lines = frames_of(directory)
    return [
        replace(entry, record=replace(entry.record, rounds=2))
        if isinstance(entry.record, StudyBegun)
        else entry
        for entry in lines
    ]


def frames_of(directory: Path) -> list[Entry]:
    from stormsweep.results import journal

    return journal.read(directory / "journal.jsonl")


def test_repeats_widen_the_test_between_configurations_by_the_folds_of_one_round(
    twice: list[Entry],
) -> None:
    fits = frames.fits(twice).pivot_table(index="configuration", columns="fold", values="roc_auc")
    names = frames.configurations(twice)["configuration"]
    gaps = (fits.loc[names[0]] - fits.loc[names[1]]).to_numpy()
    error = gaps.std(ddof=1) * np.sqrt(1 / 6 + 1 / 2)
    half = stats.t.ppf(0.975, 5) * error
    row = summary.differences(twice).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    paired = differences.paired(np.zeros(6), gaps, rounds=2)
    assert paired.error == pytest.approx(error)
    welch = differences.unpaired((0.0, 0.1, 3), (1.0, 0.2, 6), (1, 2))
    parts = 0.1**2 * (1 / 3 + 1 / 2), 0.2**2 * (1 / 6 + 1 / 2)
    assert welch.error == pytest.approx(np.sqrt(sum(parts)))


def test_the_interval_of_a_mean_does_not_take_repeats_for_other_cases(
    twice: list[Entry],
) -> None:
    row = frames.configurations(twice).iloc[0]
    own = frames.fits(twice)
    scores = own.loc[own["configuration"] == row["configuration"], "roc_auc"].to_numpy()
    variance = ((scores - scores.mean()) ** 2).sum() / 4
    half = stats.t.ppf(0.975, 4) * np.sqrt(variance / 3)
    assert row["roc_auc_mean"] - row["roc_auc_low"] == pytest.approx(half)
    best = summary.summary(twice).best
    assert best is not None
    assert (best.folds, best.folds_expected, best.rounds) == (6, 6, 2)


@pytest.mark.parametrize(("count", "rounds"), [(3, 1), (3, 4), (5, 2)])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(count: int, rounds: int) -> None:
    # A score is a mean over cases, and all rounds validate the same ones.
    draw, hits, plain = np.random.default_rng(5), 0, 0
    size, repeats = 12 * count, 2000
    width = frames._half_width(np.array([count * rounds]), count)[0]
    simple = stats.t.ppf(0.975, count * rounds - 1) / np.sqrt(count * rounds)
    for _ in range(repeats):
        cases = draw.normal(0, 1, size)
        scores = np.concatenate(
            [draw.permutation(cases).reshape(count, -1).mean(axis=1) for _ in range(rounds)]
        )
        sd = scores.std(ddof=1)
        hits += abs(scores.mean()) <= width * sd
        plain += abs(scores.mean()) <= simple * sd
    assert hits / repeats == pytest.approx(0.95, abs=0.015)
    assert rounds == 1 or plain / repeats < 0.87


def test_what_is_foretold_of_folds_that_are_new_is_what_is_known_of_the_first() -> None:
    sizes = [{"epoch_patches": count} for count in (10, 20)]
    entries = [Entry(0.0, replace(begun(2), fold_sizes=sizes))]
    assert facts.epoch_patches(entries, 2) == [10, 20]
    assert facts.epoch_patches(entries, 5) == [10, 20, 10, 20, 10]


def test_what_mattered_and_who_contends_do_not_take_repeats_for_other_cases() -> None:
    # The same folds twice over: nothing is known that one round did not tell.
    rng = np.random.default_rng(2)
    once = rng.normal(0, 1, (6, 3)) + 2 * np.arange(6)[:, None]
    twice = np.tile(once, 2)
    assert fold_noise(twice, 2) == pytest.approx(fold_noise(once))
    assert fold_noise(twice) < 0.5 * fold_noise(once)
    # The variance of a difference is then that of all six folds, times 1/6 + 1/2.
    gaps = twice[0] - twice[1:]
    error = gaps.std(axis=1, ddof=1) * np.sqrt(1 / 6 + 1 / 2)
    tests = against(0, twice, 2)
    assert tests.half == pytest.approx(stats.t.ppf(0.975, 5) * error)
    cube = np.moveaxis(twice.reshape(2, 3, 6), -1, 0)
    for one, other in zip(decompose(cube, 2), decompose(cube), strict=True):
        assert one.high - one.low > other.high - other.low
        assert one.share == other.share
