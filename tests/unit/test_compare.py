"""Comparing studies: if these fail, a user is told that something is better that is not."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stormsweep import compare, write_comparison
from stormsweep.errors import JournalError, UserError
from stormsweep.records import Entry, SessionBegun, TaskDone
from stormsweep.report.compare_times import time_picture
from stormsweep.report.compare_words import answer
from stormsweep.results import frames, journal
from stormsweep.results.contenders import holm
from stormsweep.results.summary import differences as against_the_best
from stormsweep.scaling import differences
from stormsweep.scaling.accounts import account
from stormsweep.scaling.compare import together
from stormsweep.scaling.sides import from_journal, kinds_of_nodes
from tests import journals

SMALL: dict[str, Any] = {
    "batch_size": [256, 1024],
    "learning_rate": [0.001, 0.01],
    "epochs": [2, 4],
}
PAPER = "published:umbc-2019"


def shifted(gain: float, noise: float = 0.003) -> journals.Scores:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        own = journals.plausible_scores(point, fold)
        own["roc_auc"] += gain + noise * journals.bell("shifted", gain, sorted(point.items()), fold)
        own["accuracy"] += gain
        return own

    return scores


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies: the baseline; a faster, better one; other folds; other space; part of the grid."""
    folder = tmp_path_factory.mktemp("runs")
    journals.simulate(folder / "slow", SMALL, name="slow", scores=shifted(-0.05))
    journals.simulate(folder / "fast", SMALL, name="fast", scores=shifted(0.0), pace=0.5, workers=4)
    journals.simulate(folder / "folds", SMALL, name="folds", group_by="none", seed=3)
    journals.simulate(folder / "grid", name="grid")
    journals.simulate(folder / "other", {"units": [8, 16], "epochs": [3]}, name="other")
    journals.simulate(folder / "part", SMALL | {"batch_size": [1024, 4096]}, name="part", pace=0.5)
    return folder


def test_speedups_are_ratios_of_the_time_that_the_same_fits_took(runs: Path) -> None:
    found = compare(runs / "slow", runs / "fast")
    spent = {}
    for name, workers in (("slow", 2), ("fast", 4)):
        tasks = frames.tasks(journal.read(runs / name / "journal.jsonl"))
        spent[name] = tasks.groupby("batch_size")["seconds"].sum() / workers
    table = found.speedups[found.speedups["measure"] == "node time"]
    by_size = table.dropna(subset="batch_size").set_index("batch_size")
    assert by_size["speedup"].to_dict() == pytest.approx((spent["slow"] / spent["fast"]).to_dict())
    whole = table[table["batch_size"].isna()].iloc[0]
    assert whole["speedup"] == pytest.approx(spent["slow"].sum() / spent["fast"].sum())
    assert whole["fits"] == 2 * 2 * 2 * 3
    wall = found.speedups[found.speedups["measure"] == "wall time"].iloc[0]
    lengths = [
        float(frames.sessions(journal.read(runs / name / "journal.jsonl"))["seconds"].sum())
        for name in ("slow", "fast")
    ]
    assert wall["speedup"] == pytest.approx(lengths[0] / lengths[1])


def test_only_fits_that_both_did_are_compared(runs: Path) -> None:
    found = compare(runs / "slow", runs / "part")
    table = found.speedups
    assert set(table["measure"]) == {"node time"}, "wall times are of different work"
    assert table["batch_size"].tolist() == [1024]
    assert table["fits"].tolist() == [2 * 2 * 3]
    tasks = [frames.tasks(journal.read(runs / n / "journal.jsonl")) for n in ("slow", "part")]
    spent = [table.loc[table["batch_size"] == 1024, "seconds"].sum() / 2 for table in tasks]
    assert table["speedup"].item() == pytest.approx(spent[0] / spent[1])


def test_of_a_run_only_the_milestones_that_both_have_count(tmp_path: Path) -> None:
    space: dict[str, Any] = {"batch_size": [256, 512], "epochs": [2, 4]}
    journals.simulate(tmp_path / "long", space, name="long")
    journals.simulate(tmp_path / "short", space | {"epochs": [2]}, name="short")
    found = compare(tmp_path / "long", tmp_path / "short")
    tasks = frames.tasks(journal.read(tmp_path / "long" / "journal.jsonl"))
    first = tasks.loc[tasks["to_epoch"] == 2, "seconds"].sum() / 2
    row = found.speedups[found.speedups["batch_size"].isna()].iloc[0]
    assert row["baseline_seconds"] == pytest.approx(first)
    assert row["fits"] == 6


def test_other_amounts_of_data_or_other_models_are_no_speedup(tmp_path: Path, runs: Path) -> None:
    entries = journal.read(runs / "slow" / "journal.jsonl")
    sizes = [dict(fold) for fold in entries[0].record.fold_sizes]  # type: ignore[union-attr]
    for fold in sizes:
        fold["epoch_patches"] *= 2
    more = [Entry(entries[0].time, dataclasses.replace(entries[0].record, fold_sizes=sizes))]  # type: ignore[type-var]
    base = from_journal(entries, "a")
    found = together([base, from_journal([*more, *entries[1:]], "b")])
    assert found.speedups["speedup"].isna().all()
    assert (found.speedups["rate_ratio"].round(6) == 2).all()
    assert found.speedups["remark"].str.contains("2 times as many cases an epoch").all()
    # What the cases are called depends on the data.
    assert "by the patches that the" in answer(found)[0]
    assert time_picture(found).figure.axes[0].get_ylabel().endswith(" per million patches")  # type: ignore[union-attr]
    table = dataclasses.replace(base, cases="cases")
    of_table = together([table, *found.sides[1:]])
    assert "by the cases that the" in answer(of_table)[0]
    picture = time_picture(of_table)
    assert picture is not None
    assert picture.figure.axes[0].get_ylabel().endswith(" per million cases")
    assert "set against the cases that their fits ask for" in picture.caption
    bigger = [
        Entry(one.time, dataclasses.replace(one.record, parameters=99))
        if isinstance(one.record, TaskDone)
        else one
        for one in entries
    ]
    found = together([base, from_journal(bigger, "b")])
    assert found.speedups["speedup"].isna().all()
    assert (found.speedups["remark"] == "models of other sizes").all()


def test_the_published_speedups_and_costs_are_what_follows_from_the_publication() -> None:
    found = compare(PAPER)
    table = found.speedups.dropna(subset="batch_size").set_index("batch_size")
    assert table["speedup"].round(2).to_dict() == {512: 1.77, 1024: 2.27, 2048: 2.05, 4096: 1.58}
    assert found.costs["fits"].tolist() == [162, 108]
    assert found.costs["shared_fits"].tolist() == [108, 108]
    # Node seconds of the times file, times 16 and 36 cores.
    costs = found.costs["core_seconds_per_fit"]
    assert costs.tolist() == pytest.approx([18233.8366 * 16 / 162, 5865 * 36 / 108])
    held = found.costs["granted_core_hours"] * 3600
    assert held.tolist() == pytest.approx([6 * 3864.4712 * 16, 4 * 1674 * 36])


def test_a_published_timing_counts_only_whole(runs: Path) -> None:
    """Of 27 fits that were timed together, no part has a time."""
    found = compare(PAPER, runs / "grid", score="accuracy")
    own = found.speedups[found.speedups["line"] == "grid"]
    assert own["fits"].tolist() == [27] * 6 + [162, 162]
    part = compare(PAPER, runs / "slow", score="accuracy")
    assert part.speedups[part.speedups["line"] == "slow"].empty


def test_a_study_on_two_kinds_of_nodes_has_a_line_for_each(runs: Path) -> None:
    entries = journal.read(runs / "slow" / "journal.jsonl")
    moved: list[Entry] = []
    for one in entries:
        record = one.record
        if isinstance(record, TaskDone) and record.from_epoch == 2:
            record = dataclasses.replace(record, session=2)
        moved.append(Entry(one.time, record))
        if isinstance(record, SessionBegun):
            again = dataclasses.replace(record, session=2, site="taki-2018")
            moved.append(Entry(one.time, again))
    side = from_journal(moved, "moved")
    assert side.kinds == ["local", "taki-2018"]
    # What went on elsewhere says nothing of either kind: the first milestones are left.
    assert set(side.timed["kind"]) == {"local"}
    assert set(side.timed["epochs"]) == {2}
    facts = {"session": 1, "processor": "one", "later": [{"session": 2, "processor": "two"}]}
    both = [
        Entry(one.time, dataclasses.replace(one.record, site="local"))
        if isinstance(one.record, SessionBegun)
        else one
        for one in moved
    ]
    assert kinds_of_nodes(both, facts) == {1: "local (one)", 2: "local (two)"}


def test_money_is_what_was_granted_at_the_price_in_the_journal(runs: Path) -> None:
    entries = journal.read(runs / "slow" / "journal.jsonl")
    price = {"price_per_core_hour": 0.5, "cores_per_node": 2, "workers_per_node": 2, "nodes": 1}
    priced = [
        Entry(one.time, dataclasses.replace(one.record, allotment=price))
        if isinstance(one.record, SessionBegun)
        else one
        for one in entries
    ]
    other = from_journal(journal.read(runs / "fast" / "journal.jsonl"), "b")
    costs = together([from_journal(priced, "a"), other]).costs
    told = account(priced)
    assert told.cost is not None
    assert costs["money"][0] == pytest.approx(told.cost)
    assert costs["granted_core_hours"][0] == pytest.approx(told.core_hours_granted)
    assert costs["money_per_fit"][0] == pytest.approx(told.cost / 24)
    assert np.isnan(costs["money"][1])


def test_every_kind_of_nodes_has_the_hours_of_its_own_sessions(tmp_path: Path) -> None:
    directory = journals.simulate(tmp_path / "moved", SMALL, stops=(60.0,))
    entries = [
        Entry(one.time, dataclasses.replace(one.record, site="taki-2018"))
        if isinstance(one.record, SessionBegun) and one.record.session == 2
        else one
        for one in journal.read(directory / "journal.jsonl")
    ]
    side = from_journal(entries, "moved")
    assert side.kinds == ["local", "taki-2018"]
    assert side.place("local")["granted_core_hours"] == pytest.approx(2 * 60 / 3600, rel=0.01)


def test_scores_on_the_same_folds_are_paired_as_in_the_report(runs: Path) -> None:
    """The same numbers as `summary.differences`, which compares within a study."""
    found = compare(runs / "slow", runs / "fast")
    table = found.differences
    assert set(table["pairing"]) == {"paired"}
    fits = [
        frames.fits(journal.read(runs / name / "journal.jsonl")).pivot_table(
            index=["batch_size", "learning_rate", "epochs"], columns="fold", values="roc_auc"
        )
        for name in ("slow", "fast")
    ]
    for row in table.to_dict("records"):
        key = (row["batch_size"], row["learning_rate"], row["epochs"])
        gaps = (fits[1].loc[key] - fits[0].loc[key]).to_numpy()
        half = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) * np.sqrt(1 / 3 + 1 / 2)
        assert row["difference"] == pytest.approx(gaps.mean())
        assert (row["low"], row["high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    assert found.overall["difference"].item() == pytest.approx(0.05, abs=0.01)
    assert found.overall["low"].item() > 0
    within = against_the_best(journal.read(runs / "slow" / "journal.jsonl")).iloc[0]
    side = from_journal(journal.read(runs / "slow" / "journal.jsonl"), "a")
    best, other = side.scores.groupby(["point", "epochs"])["roc_auc"].agg(list)[
        side.configurations.head(2).set_index(["point", "epochs"]).index
    ]
    low, high = differences.paired(other, best).interval()
    assert (within["low"], within["high"]) == pytest.approx((low, high))


def test_scores_on_other_folds_are_not_paired(runs: Path) -> None:
    found = compare(runs / "slow", runs / "folds")
    assert set(found.differences["pairing"]) == {"unpaired"}
    row = found.differences.iloc[0]
    parts = []
    for side in found.sides:
        own = side.scores[side.scores["epochs"] == row["epochs"]]
        point = next(
            name
            for name, values in side.points.items()
            if values["batch_size"] == row["batch_size"]
            and values["learning_rate"] == row["learning_rate"]
        )
        parts.append(own.loc[own["point"] == point, "roc_auc"].to_numpy())
    # Welch's test with each variance widened by the same factor.
    plain = stats.ttest_ind(parts[1], parts[0], equal_var=False)
    widened = plain.statistic / np.sqrt((1 / 3 + 1 / 2) * 3)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(widened), plain.df))


def test_published_deviations_are_brought_to_the_same_denominator(runs: Path) -> None:
    found = compare(PAPER, runs / "grid", score="accuracy")
    row = found.differences.iloc[0]
    assert (row["baseline"], row["batch_size"], row["epochs"]) == (0.9626, 512, 15)
    own = frames.configurations(journal.read(runs / "grid" / "journal.jsonl"))
    own = own[(own["batch_size"] == 512) & (own["learning_rate"] == 0.005) & (own["epochs"] == 15)]
    spread = [0.0114 * np.sqrt(3 / 2), own["accuracy_sd"].item()]
    error = np.sqrt(sum(sd**2 * (1 / 3 + 1 / 2) for sd in spread))
    freedom = error**4 / sum((sd**2 * (1 / 3 + 1 / 2)) ** 2 / 2 for sd in spread)
    gap = own["accuracy_mean"].item() - 0.9626
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(gap) / error, freedom))
    assert found.overall["pairing"].item() == "means only"
    assert np.isnan(found.overall["low"].item())


def test_of_a_score_to_be_minimized_less_is_better(runs: Path) -> None:
    up = compare(runs / "slow", runs / "folds", score="brier_skill_score").overall
    down = compare(runs / "slow", runs / "folds", score="brier_score").overall
    assert np.sign(up["difference"].item()) == np.sign(down["difference"].item())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1)), max_size=12))
def test_holm_is_between_the_plain_and_bonferronis_and_keeps_the_order(
    given_p: list[float],
) -> None:
    adjusted = holm(given_p)
    p = np.array(given_p, dtype=float)
    known = ~np.isnan(p)
    assert (np.isnan(adjusted) == ~known).all()
    assert (adjusted[known] >= p[known]).all()
    assert (adjusted[known] <= np.minimum(1, known.sum() * p[known])).all()
    order = np.argsort(p[known], kind="stable")
    assert (np.diff(adjusted[known][order]) >= 0).all()


def test_the_corrected_interval_claims_less_than_the_plain_one_and_holds_what_it_claims() -> None:
    """Folds share a common part, as overlapping training sets make them do."""
    draw, hits, plain_hits = np.random.default_rng(7), 0, 0
    for _ in range(2000):
        # Correlation of n_test / (n_test + n_train), which the correction assumes.
        common, own = draw.normal(0, np.sqrt(0.2)), draw.normal(0, np.sqrt(0.8), 5)
        low, high = differences.paired(np.zeros(5), 1.0 + common + own).interval()
        hits += low <= 1.0 <= high
        plain = stats.ttest_1samp(1.0 + common + own, 0).confidence_interval(0.95)
        plain_hits += plain.low <= 1.0 <= plain.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)
    assert plain_hits / 2000 < 0.9


def test_of_strangers_it_is_said_what_would_make_them_comparable(
    runs: Path, tmp_path: Path
) -> None:
    space = SMALL | {"learning_rate": [0.002, 0.02]}
    journals.simulate(tmp_path / "rates", space, name="rates")
    *_, nothing, way = answer(compare(runs / "slow", tmp_path / "rates"))
    assert nothing.startswith("rates and slow have no configuration in common")
    assert way.startswith("Scores can be compared of configurations that both scored on all folds")
    assert "with the same data, [validation] and seed, fold by fold." in way
    assert not any("can be compared" in text for text in answer(compare(PAPER)))
    with pytest.raises(UserError, match=r"slow has .*; scores can be compared of configurations"):
        compare(runs / "slow", runs / "other")


def test_the_same_scores_are_no_difference(runs: Path, tmp_path: Path) -> None:
    """One study on two machines: the same seed, the same scores."""
    journals.simulate(tmp_path / "again", SMALL, scores=shifted(-0.05), pace=0.7, name="again")
    found = compare(runs / "slow", tmp_path / "again")
    assert not found.differences["beyond"].any()
    assert (found.differences["p"] == 1).all()
    assert found.overall["difference"].item() == 0


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["slow"], {}, "slow only; name two studies or more"),
        ([], {}, "given no study"),
        (["slow", "slow"], {}, "is the same study; name each once"),
        (["slow", "copy"], {}, "copy: is the same study as"),
        (["slow", "other"], {}, "share nothing that could be compared: slow has batch_size"),
        (["slow", "empty"], {}, "empty: there is no journal.jsonl here"),
        (["slow", "nowhere"], {}, "nowhere: there is no such study"),
        (["slow", "begun"], {}, "begun: no fit is scored yet"),
        (["slow", PAPER], {}, "different scores .slow by roc_auc, umbc-2019 by accuracy.*--metric"),
        (["slow", "fast"], {"score": "brier"}, "given 'brier'.*did you mean 'brier_score'"),
        (["slow", "fast"], {"baseline": "fost"}, "must be one of .*did you mean 'fast'"),
        (["slow", "published:none"], {}, "no such numbers ship"),
    ],
)
def test_wrong_use_is_said_in_one_line(
    runs: Path, tmp_path: Path, names: list[str], options: dict[str, str], said: str
) -> None:
    places: dict[str, Path | str] = {name: runs / name for name in names}
    places |= {name: name for name in names if name.startswith("published:")}
    if "empty" in names:
        (tmp_path / "empty").mkdir()
        places["empty"] = tmp_path / "empty"
    if "copy" in names:
        (tmp_path / "copy").mkdir()
        text = (runs / "slow" / "journal.jsonl").read_bytes()
        (tmp_path / "copy" / "journal.jsonl").write_bytes(text)
        places["copy"] = tmp_path / "copy"
    if "begun" in names:
        with journals.writer(tmp_path / "begun" / "journal.jsonl") as append:
            append(journals.START, journals.about(SMALL, 3))
        places["begun"] = tmp_path / "begun"
    with pytest.raises((UserError, JournalError), match=said) as caught:
        compare(*(places[name] for name in names), **options)
    assert "\n" not in str(caught.value)


def test_studies_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name, pace in (("laptop", 1.0), ("cluster", 0.5)):
        journals.simulate(tmp_path / name, {"batch_size": [256, 512], "epochs": [2]}, pace=pace)
    found = compare(tmp_path / "laptop", tmp_path / "cluster", baseline="cluster")
    assert [side.label for side in found.sides] == ["cluster", "laptop"]


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = compare(PAPER, runs / "grid", score="accuracy")
    return write_comparison(found, tmp_path_factory.mktemp("out") / "comparison")


def test_the_folder_holds_page_figures_and_tables(page: Path) -> None:
    names = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert names == {
        "time-batch-size",
        "cost-batch-size",
        "score-batch-size-epochs-5",
        "score-batch-size-epochs-10",
        "score-batch-size-epochs-15",
        "score-differences",
    }
    for kind in ("pdf", "csv"):
        assert names == {path.stem for path in (page.parent / "figures").glob(f"*.{kind}")}
    drawn = pd.read_csv(page.parent / "figures" / "score-batch-size-epochs-15.csv")
    assert len(drawn) == 36
    tables = page.parent / "tables"
    scores = pd.read_csv(tables / "scores.csv")
    assert scores.groupby("study")["mean"].count().to_dict() == {"grid": 54, "umbc-2019": 54}
    assert 0.9626 in scores["mean"].to_numpy()
    for path in tables.glob("*.tex"):
        text = path.read_text()
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        rows = [line for line in rows if "caption" not in line]
        assert len({line.count("&") for line in rows}) == 1
    assert json.loads((page.parent / "comparison.json").read_text())["score"] == "accuracy"


def test_the_page_says_what_is_synthetic_dishonest_and_not_the_same_work(page: Path) -> None:
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())
    assert "The cases of grid were generated by a program" in text
    assert "The validation of umbc-2019 is not honest" in text
    assert "every event is repeated 18 times" in text
    assert "did not do the same work" in text
    assert "0.0001, 0.0005 and 0.001" in text
    assert "a node of umbc-2019, 2018 nodes was 1.88 times as fast" in text
    assert "single folds were not published" in text
    captions = (page.parent / "figures" / "captions.txt").read_text()
    assert "synthetic data: grid" in captions


def test_the_page_needs_nothing_from_outside(page: Path) -> None:
    text = page.read_text()
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', text))
    for target in re.findall(r'href="([^"]+)"', text):
        assert target.startswith(("data:", "#")) or (page.parent / target).is_file()


def test_only_a_comparison_is_replaced(page: Path, runs: Path, sketched: None) -> None:
    found = compare(runs / "slow", runs / "fast")
    with pytest.raises(UserError, match="holds no comparison"):
        write_comparison(found, runs / "slow")
    assert (runs / "slow" / "journal.jsonl").is_file()
    write_comparison(found, page.parent)
    assert json.loads((page.parent / "comparison.json").read_text())["baseline"] == "slow"


def test_the_2019_figures_hold_the_published_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back from the drawing: every line of the figure of 15 epochs, and of the times."""
    from stormsweep.report import compare_figures, compare_times, style

    found = compare(PAPER)
    with style.look():
        times = compare_times.time_picture(found)
        figures = compare_figures.score_pictures(found)
    assert times is not None
    top = times.figure.axes[0]
    drawn = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in top.lines]
    assert drawn[0][0] == [128, 256, 512, 1024, 2048, 4096]
    assert drawn[0][1] == pytest.approx(
        [s / 60 for s in (3864.4712, 3319.0052, 2949.0057, 2779.8445, 2678.4618, 2643.0482)]
    )
    assert drawn[1][1] == pytest.approx([s / 60 for s in (1662.0, 1225, 1304, 1674)])
    assert [figure.name[-2:].strip("-") for figure in figures] == ["5", "10", "15"]
    mean, sd = figures[2].figure.axes
    lines = [line.get_ydata().tolist() for line in mean.lines]
    assert lines == [
        [0.9502, 0.8905, 0.8592, 0.8495, 0.8322, 0.7922],
        [0.9512, 0.9621, 0.9626, 0.9469, 0.8618, 0.8372],
        [0.9295, 0.9241, 0.9428, 0.9421, 0.8396, 0.8695],
    ]
    assert sd.lines[2].get_ydata().tolist() == [0.0200, 0.0232, 0.0141, 0.0155, 0.1210, 0.0272]
    legend = [text.get_text() for text in figures[2].figure.legends[0].get_texts()]
    assert legend == ["0.001", "0.005", "0.01"]
