"""The published numbers: if these fail, one's own are laid over what nobody published."""

from __future__ import annotations

from importlib.resources import files

import pytest

from stormsweep.errors import UserError
from stormsweep.scaling import published

PAPER = published.load("umbc-2019")


def test_the_grid_is_whole_and_holds_the_numbers_of_the_publication() -> None:
    keys = ["learning_rate", "epochs", "batch_size"]
    table = PAPER.scores.set_index(keys)
    assert len(table) == 54
    assert table.index.is_unique
    shown = {
        (0.001, 5, 128): (0.8250, 0.0620),
        (0.001, 5, 1024): (0.7982, 0.1052),
        (0.001, 15, 4096): (0.7922, 0.0652),
        (0.005, 10, 256): (0.9491, 0.0113),
        (0.005, 15, 512): (0.9626, 0.0114),
        (0.01, 15, 2048): (0.8396, 0.1210),
        (0.01, 5, 4096): (0.7879, 0.0752),
    }
    for key, (mean, sd) in shown.items():
        assert tuple(table.loc[key, ["accuracy_mean", "accuracy_sd"]]) == (mean, sd)
    assert table["accuracy_mean"].idxmax() == (0.005, 15, 512)


def test_the_means_are_those_that_follow_from_the_publication() -> None:
    mean = PAPER.scores.groupby("epochs")["accuracy_mean"].mean().round(3)
    assert mean.tolist() == [0.842, 0.876, 0.897]
    mean = PAPER.scores.groupby("batch_size")["accuracy_mean"].mean().round(3)
    assert mean.tolist() == [0.910, 0.910, 0.893, 0.864, 0.838, 0.816]
    mean = PAPER.scores.groupby("learning_rate")["accuracy_mean"].mean().round(3)
    assert mean.tolist() == [0.842, 0.891, 0.882]


def test_the_times_are_those_of_the_publication() -> None:
    by_kind = PAPER.times.set_index(["kind", "batch_size"])["seconds"]
    assert by_kind["2013 nodes"].to_dict() == {
        128: 3864.4712,
        256: 3319.0052,
        512: 2949.0057,
        1024: 2779.8445,
        2048: 2678.4618,
        4096: 2643.0482,
    }
    assert by_kind["2018 nodes"].to_dict() == {512: 1662, 1024: 1225, 2048: 1304, 4096: 1674}
    # 5.06 node-hours on six nodes, 79 % busy; 1.63 on four, 88 %.
    hours = by_kind.groupby("kind").sum() / 3600
    assert hours.round(2).tolist() == [5.06, 1.63]
    nodes = {kind["name"]: kind["nodes"] for kind in PAPER.about["kind"]}
    busy = hours * 3600 / by_kind.groupby("kind").max() / [nodes[kind] for kind in hours.index]
    assert busy.round(2).tolist() == [0.79, 0.88]


def test_the_files_say_where_they_are_from_and_what_contradicts_them() -> None:
    folder = files(published)
    text = " ".join((folder / "umbc-2019-accuracy.csv").read_text().replace("#", "").split())
    for said in ("C. Becker, W. Mayfield, S. Murphy, B. Wang", "0.0001, 0.0005 and 0.001"):
        assert said in text
    assert "the smallest is" in text
    text = (folder / "umbc-2019-times.csv").read_text()
    assert "1.46" in text
    assert "no repeats" in text


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match=r"published:umbc-2020: no such .* published:umbc-2019"):
        published.load("umbc-2020")
