"""Losing these: a study that grows trains again what it has, or other than a new one would."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.config.growth import shrunk
from stormsweep.config.study import StudyFile
from stormsweep.records import (
    Entry,
    PlanCut,
    Proposed,
    Record,
    RunFailed,
    RunPlanned,
    SearchEnded,
    StudyBegun,
    TaskDone,
)
from stormsweep.results import facts
from stormsweep.results.progress import Progress, progress_of
from stormsweep.search.expected import expected
from stormsweep.search.growth import beside, fitted
from stormsweep.search.plan import Queue, make_plan
from stormsweep.search.proposals import Event, Known, Outcome, Proposal
from stormsweep.search.search import Search
from stormsweep.search.space import grid
from stormsweep.study.remaining import Remaining, plan_of, remaining
from stormsweep.work import Run, Task

MILESTONES = st.sets(st.integers(1, 12), min_size=1, max_size=4)


def scored(runs: Sequence[Run]) -> dict[tuple[str, int], set[int]]:
    """Return the epochs at which each structure and fold is scored."""
    found: dict[tuple[str, int], set[int]] = {}
    for run in runs:
        place = found.setdefault((run.id.partition(".")[0], run.fold), set())
        assert not place & set(run.milestones), "an epoch is scored twice"
        place |= set(run.milestones)
    return found


@given(st.lists(MILESTONES, min_size=1, max_size=5))
def test_every_milestone_is_scored_once_however_a_study_grows(steps: list[set[int]]) -> None:
    known: dict[str, Run] = {}
    wanted: set[int] = set()
    for step in steps:
        wanted |= step
        new = make_plan([{"x": 1, "epochs": epochs} for epochs in sorted(wanted)], {}, 2)
        plan = fitted(new, known)
        assert all(found == wanted for found in scored(plan.runs).values())
        for run in plan.runs:
            before = known.get(run.id)
            if before is not None:
                # It goes on from its checkpoint: nothing comes in before its end.
                assert run.milestones[: len(before.milestones)] == before.milestones
        assert set(known) <= {run.id for run in plan.runs}
        known = {run.id: run for run in plan.runs}
        assert list(fitted(new, known).runs) == list(plan.runs), "planned again, something is new"


def test_200_configurations_grown_to_300_train_100_more() -> None:
    space = {"learning_rate": [n / 1000 for n in range(1, 51)], "batch_size": [32, 64, 128, 256]}
    before = make_plan(grid(space), {}, 3)
    after = make_plan(grid(space | {"batch_size": [16, 32, 48, 64, 128, 256]}), {}, 3)
    assert (len(before.configurations), len(after.configurations)) == (200, 300)
    known = {run.id: run for run in before.runs}
    whole = fitted(after, known)
    assert len([run for run in whole.runs if run != known.get(run.id)]) == 100 * 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"x": [1, 2]}, {"x": [2, 1, 3]}, ""),
        ({"x": [1, 2]}, {"x": [1]}, "search.space.x was [1, 2], is [1]"),
        ({"x": [1, 2]}, {"x": [1.0, 2]}, "search.space.x was [1, 2], is [1.0, 2]"),
        ({"x": [1, 2]}, {"x": [1, 2], "y": [1]}, "search.space.y is new"),
        ({"x": [1], "y": [1]}, {"x": [1]}, "search.space.y was [1], is gone"),
        ({"x": [1]}, {"x": [1], "epochs": [10, 20]}, ""),
        ({"x": [1]}, {"x": [1], "epochs": [20]}, "search.space.epochs was [10], is [20]"),
        ({"x": [1, 2]}, {"x": {"low": 1, "high": 3, "integer": True}}, ""),
        ({"x": [1, 2.5]}, {"x": {"low": 1, "high": 3, "integer": True}}, "search.space.x was"),
        ({"x": {"low": 1, "high": 2}}, {"x": {"low": 0.5, "high": 2}}, ""),
        ({"x": {"low": 1, "high": 2}}, {"x": {"low": 1.5, "high": 2}}, "search.space.x was"),
        ({"x": {"low": 1, "high": 2}}, {"x": [1, 2]}, "search.space.x was"),
    ],
)
def test_a_study_may_only_grow(old: dict, new: dict, said: str) -> None:
    def file(space: dict) -> StudyFile:
        search = {"strategy": "random", "space": space}
        return StudyFile.model_validate({"study": {"name": "x"}, "search": search})

    lost = shrunk(file(old), file(new))
    assert bool(lost) == bool(said)
    assert all(line.startswith(said) for line in lost), lost


def test_what_was_fixed_may_be_searched_and_the_other_way_round_if_it_was_all() -> None:
    def file(parameters: dict, space: dict) -> StudyFile:
        return StudyFile.model_validate(
            {"study": {"name": "x"}, "model": {"parameters": parameters}}
            | {"search": {"space": space}}
        )

    fixed, searched = file({"x": 1}, {"y": [1]}), file({}, {"x": [1, 2], "y": [1]})
    assert shrunk(fixed, searched) == []
    assert shrunk(searched, fixed) == [
        "model.parameters.x was [1, 2], is [1] (a study may only grow)"
    ]


class Halves:
    """Begins trials; of every two that came back, the better one goes on to twice the epochs."""

    def __init__(self, trials: int, last: int = 8) -> None:
        self.trials, self.last = trials, last
        self.next, self.rungs, self.out = 0, {}, {}
        self.known: list[Known] = []

    def propose(self) -> list[Proposal]:
        for epochs, found in sorted(self.rungs.items(), reverse=True):
            best = sorted((m for m in found if m[0] > -math.inf), reverse=True)
            for _, trial in best[: len(found) // 2]:
                if (trial, 2 * epochs) not in self.out and 2 * epochs <= self.last:
                    return [Proposal(trial, {"x": trial}, 2 * epochs, 2)]
        if self.next < self.trials:
            return [Proposal(self.next, {"x": self.next}, 1, 2)]
        return []

    def take(self, event: Event) -> None:
        match event:
            case Proposal(trial=trial, epochs=epochs):
                self.next = max(self.next, trial + 1)
                self.out[trial, epochs] = event
            case Outcome(trial=trial, epochs=epochs):
                merit = -math.inf if event.failed else event.merits[0]
                assert (trial, epochs) in self.out
                found = self.rungs.setdefault(epochs, [])
                found[:] = [one for one in found if one != (-math.inf, trial)]
                assert trial not in [other for _, other in found], "told twice"
                found.append((merit, trial))
            case Known():
                self.known.append(event)


def search(trials: int = 6) -> Search:
    return Search(lambda: Halves(trials), {}, 2, lambda scores: (scores["roc_auc"],))


def done(run: Run, start: int, epoch: int, score: float) -> TaskDone:
    task = run.id, start, epoch, {"roc_auc": score}, "w", 1, 0.0, 0.0, 0.0, {}, [], 0, 0, 0.0, 0
    return TaskDone(*task)


def play(
    searching: Search, workers: int, seed: int, most: int = 10**6, again: bool = False
) -> list[Record]:
    """Train what a search asks for, out of order; return the journal.

    What fails is tried `again` sooner or later, or never.
    """
    chance, journal, waiting = random.Random(seed), [], []
    reached: dict[str, int] = {}
    while len(journal) < most:
        while len(waiting) < workers:
            proposed, runs = searching.more()
            if not proposed:
                break
            journal += proposed
            journal += [RunPlanned(r.id, r.hyperparameters, r.fold, [*r.milestones]) for r in runs]
            waiting += [run.id for run in runs]
        if not waiting:
            break
        name = waiting.pop(chance.randrange(len(waiting)))
        run = searching.runs[name]
        start = reached.get(name, 0)
        if chance.random() < 0.1:
            record: Record = RunFailed(name, start, start + 1, "error", "bad", "w", 1)
            waiting += [name] if again else []
        else:
            stop = next(stop for stop in run.milestones if stop > start)
            # A score that anybody can compute again: it depends on run and epoch only.
            record = done(run, start, stop, random.Random(f"{name} {stop}").random())
            reached[name] = stop
            if stop < run.milestones[-1]:
                waiting.append(name)
        journal.append(record)
        searching.take(record)
    return journal


@given(st.integers(1, 16), st.integers(0, 10**6), st.integers(0, 200), st.booleans())
def test_a_search_that_was_stopped_anywhere_goes_on_with_the_very_next_proposal(
    workers: int, seed: int, cut: int, again: bool
) -> None:
    journal = play(search(), workers, seed, again=again)
    asked = [(p.trial, p.epochs) for p in journal if isinstance(p, Proposed)]
    assert len(asked) == len(set(asked)), "proposed twice"
    before, after = search(), search()
    for record in journal[:cut]:
        before.take(record)
    # As a driver does that lives on: what `more` says is taken in again when it is on record.
    played = play(after, workers, seed, min(cut, len(journal)), again)
    assert played[: len(journal[:cut])] == journal[:cut]
    for record in played[len(journal[:cut]) :]:
        before.take(record)
    assert before.more() == after.more()
    assert before.over == after.over
    assert list(before.runs.values()) == list(after.runs.values())


def test_a_run_that_failed_and_was_tried_again_counts_with_its_score() -> None:
    """Losing this: what a full disk took is the worst trial there is, in every later session."""
    searching, plain = search(), search()
    journal = play(searching, 3, 2, again=True)
    assert any(isinstance(record, RunFailed) for record in journal)
    for record in journal:
        if not isinstance(record, RunFailed):
            plain.take(record)
    own, other = searching._strategy, plain._strategy
    assert isinstance(own, Halves)
    assert isinstance(other, Halves)
    assert {at: sorted(found) for at, found in own.rungs.items()} == {
        at: sorted(found) for at, found in other.rungs.items()
    }


def test_promoted_trials_go_on_in_the_same_runs_and_failed_ones_do_not() -> None:
    searching = search(8)
    journal = play(searching, 3, 2)
    failed = {record.run for record in journal if isinstance(record, RunFailed)}
    assert failed
    assert searching.over
    longest = max(run.milestones[-1] for run in searching.runs.values())
    assert longest > 1
    assert len(searching.runs) == 16, "a promotion began runs anew"
    for name in failed:
        # Its other fold is not gone on with for nothing, either.
        trial = searching.runs[name].hyperparameters["x"]
        asked = {p.epochs for p in journal if isinstance(p, Proposed) and p.trial == trial}
        assert max(asked) == max(searching.runs[name].milestones)


def test_another_strategy_knows_the_scores_of_the_first_and_trains_only_what_is_new() -> None:
    about = StudyBegun("x", 0, "", "grid", "roc_auc", 2, "", {}, {}, {}, [])
    plan = make_plan([{"x": 0, "epochs": 4}, {"x": 7, "epochs": 1}], {}, 2)
    journal: list[Record] = [about]
    journal += [RunPlanned(r.id, r.hyperparameters, r.fold, [*r.milestones]) for r in plan.runs]
    journal += [done(run, 0, run.milestones[-1], 0.9) for run in plan.runs]
    other = StudyBegun("x", 0, "", "halves", "roc_auc", 2, "", {}, {}, {}, [])
    made: list[Halves] = []

    def begin() -> Halves:
        made.append(Halves(6))
        return made[-1]

    searching = Search(begin, {}, 2, lambda scores: (scores["roc_auc"],))
    for record in [*journal, other]:
        searching.take(record)
    known = {(point.hyperparameters["x"], point.epochs) for point in made[-1].known}
    assert known == {(0, 4), (7, 1)}
    assert all(point.here for point in made[-1].known), (
        "what is scored here is not to be trained again"
    )
    # Trial 0 at epoch 1 was not scored on the way to epoch 4: it needs runs of its own.
    proposed, runs = searching.more()
    assert (proposed[0].trial, proposed[0].epochs) == (0, 1)
    assert [(run.id[-2:], run.milestones) for run in runs] == [(".1", (1,)), (".1", (1,))]


def test_what_is_expected_of_a_strategy_is_what_it_asks_for() -> None:
    def begin() -> Search:
        return Search(lambda: Halves(6), {"width": 8}, 2, lambda _: ())

    plan = expected(begin(), {"width": 8}, 2, seed=3)
    assert plan.expected
    assert len(plan.configurations) == 6
    assert len(plan.runs) == 12
    assert 12 < plan.epochs < 12 * 8
    assert all(point["width"] == 8 for point in plan.configurations)
    assert plan == expected(begin(), {"width": 8}, 2, seed=3)


def test_a_queue_that_grows_gives_out_every_stretch_once() -> None:
    first, second = (
        Run("a-f0", {"batch_size": 8}, 0, (2, 4)),
        Run("b-f0", {"batch_size": 8}, 0, (2,)),
    )
    queue = Queue([first], {}, (), [100])
    given_out: list[tuple[str, int, int]] = []

    def take() -> Task:
        task = queue.take()
        assert task is not None
        given_out.append((task.run.id, task.from_epoch, task.to_epoch))
        return task

    task = take()
    longer = Run("a-f0", {"batch_size": 8}, 0, (2, 4, 8))
    queue.add(longer, reached=0, at_work=True)
    assert not queue, "what a worker has is not given to another"
    queue.add(second)
    queue.done(task)
    while queue:
        queue.done(take())
    queue.add(Run("b-f0", {"batch_size": 8}, 0, (2, 6)), reached=2)
    queue.done(take())
    assert not queue
    spans = {("a-f0", 0, 2), ("a-f0", 2, 4), ("a-f0", 4, 8), ("b-f0", 0, 2), ("b-f0", 2, 6)}
    assert set(given_out) == spans
    assert len(given_out) == len(spans)


def test_a_run_without_a_known_one_is_new() -> None:
    run = Run("a-f0", {}, 0, (3,))
    assert beside({}, run) == [run]
    assert beside({"a-f0": run}, run) == []


def about(strategy: str) -> StudyBegun:
    return StudyBegun("x", 0, "", strategy, "roc_auc", 2, "", {}, {}, {}, [])


def recorded(run: Run) -> RunPlanned:
    return RunPlanned(run.id, run.hyperparameters, run.fold, [*run.milestones])


def test_another_strategy_trains_what_the_first_left_half_trained_where_it_asks_for_it() -> None:
    """Losing this, the driver waits for ever for runs that nobody was given."""
    plan = make_plan([{"x": x, "epochs": e} for x in range(4) for e in (1, 2, 4)], {}, 2)
    half = [done(run, 0, 1, 0.5) for run in plan.runs if run.hyperparameters["x"] == 3]
    journal = [about("grid"), *map(recorded, plan.runs), *half]
    searching, progress = search(4), Progress()
    for record in journal:
        searching.take(record)
        progress.take(Entry(0.0, record))
    searching.go_by("halves")
    left = searching.drop(progress.reached)
    assert left == {run.id: progress.reached.get(run.id, 0) for run in plan.runs}
    journal += [about("halves"), PlanCut(left)]
    played = play(searching, 2, 1)
    assert searching.over
    assert any(isinstance(record, TaskDone) for record in played)
    # What it did not ask for is not waited for, by those who look at the journal either.
    entries = [Entry(0.0, record) for record in [*journal, *played, SearchEnded(4)]]
    planned = facts.planned_runs(entries)
    reached = progress_of(entries).reached
    failed = {record.run for record in played if isinstance(record, RunFailed)}
    assert all(run in failed or reached[run] == one.milestones[-1] for run, one in planned.items())
    assert facts.search_over(entries)
    # Taken in again, it is the same search.
    again = search(4)
    for entry in entries:
        again.take(entry.record)
    assert again.runs == searching.runs
    assert again.over


def test_a_run_that_was_planned_and_never_trained_is_trained_when_a_trial_needs_it() -> None:
    searching = search(4)
    run = make_plan([{"x": 0, "epochs": 1}], {}, 2).runs[0]
    for record in (about("halves"), recorded(run)):
        searching.take(record)
    proposed, runs = searching.more()
    assert proposed
    assert run.id in {one.id for one in runs}


def test_a_search_is_over_where_a_grid_takes_over_and_not_before_it_began() -> None:
    def entries(*records: Record) -> list[Entry]:
        return [Entry(0.0, record) for record in records]

    asked = Proposed(0, {"x": 0}, 1, 2)
    assert facts.search_over(entries(about("grid")))
    assert not facts.search_over(entries(about("tpe")))
    assert not facts.search_over(entries(about("grid"), about("tpe"), asked))
    assert facts.search_over(entries(about("tpe"), asked, about("grid")))
    assert facts.search_over(entries(about("tpe"), asked, SearchEnded(1)))


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ({"strategy": "random", "trials": 9}, {"strategy": "random", "trials": 8}, True),
        ({"strategy": "random", "trials": 9}, {"strategy": "random", "trials": 10}, False),
        ({"strategy": "random", "trials": 9}, {"strategy": "tpe", "trials": 3}, False),
        ({}, {"strategy": "tpe", "trials": 3}, False),
    ],
)
def test_trials_may_not_become_fewer_but_another_strategy_counts_its_own(
    old: dict, new: dict, lost: bool
) -> None:
    def file(search: dict) -> StudyFile:
        whole = {"study": {"name": "x"}, "search": {**search, "space": {"x": [1, 2]}}}
        return StudyFile.model_validate(whole)

    assert bool(shrunk(file(old), file(new))) == lost


def test_a_failed_run_that_nothing_needs_any_more_fails_the_study_no_more() -> None:
    """A constraint is the one way to take a configuration out that always fails."""

    def file(*constraints: str) -> StudyFile:
        search = {"space": {"x": [1, 2], "epochs": [2, 4]}, "constraints": constraints}
        about = {"study": {"name": "x"}, "search": search, "validation": {"folds": 2}}
        return StudyFile.model_validate(about)

    journal: list[Record] = []
    for run in plan_of(file()).runs:
        journal.append(RunPlanned(run.id, run.hyperparameters, run.fold, [*run.milestones]))
        journal.append(done(run, 0, 2, 0.5))
        good = run.hyperparameters["x"] == 1
        failed = RunFailed(run.id, 2, 4, "error", "no such layer", "0", 1)
        journal.append(done(run, 2, 4, 0.5) if good else failed)

    def left(file: StudyFile) -> Remaining:
        return remaining(file, [Entry(0.0, record) for record in journal])

    bad = {run.id for run in plan_of(file()).runs if run.hyperparameters["x"] == 2}
    assert left(file()).progress.failed.keys() == bad
    assert left(file()).dropped == {}
    shut_out = left(file("x < 2"))
    assert shut_out.dropped == dict.fromkeys(bad, 2)
    assert shut_out.progress.failed == {}
    assert not shut_out.left(retry_failed=False)
    journal.append(PlanCut(shut_out.dropped))
    again = left(file("x < 2"))
    assert (again.dropped, again.progress.failed) == ({}, {})
    assert left(file()).left(retry_failed=False), "let in again, it is tried again"


def test_a_failed_run_that_another_strategy_does_not_ask_for_is_dropped() -> None:
    searching = search()
    run = Run("other-f0", {"x": 99}, 0, (3,))
    searching.take(RunPlanned(run.id, run.hyperparameters, run.fold, [3]))
    searching.take(RunFailed(run.id, 0, 3, "error", "no such layer", "0", 1))
    assert searching.drop({}) == {run.id: 0}
    assert searching.drop({}) == {}
    assert searching._failed == set()
