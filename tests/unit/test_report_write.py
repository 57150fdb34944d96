"""The report: if these fail, a user hands in a page or a figure that does not tell the truth."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stormsweep.cluster import machine
from stormsweep.errors import JournalError
from stormsweep.records import TaskDone
from stormsweep.report import (
    drawing,
    interactions,
    learning,
    slices,
    style,
    timings,
    words,
    write_report,
)
from stormsweep.report.axes import Scale, scale_of
from stormsweep.report.material import Material
from stormsweep.report.tables import escape
from stormsweep.results import facts, frames, journal
from stormsweep.results.contenders import contest
from stormsweep.results.summary import differences, summary
from stormsweep.results.views import Kept
from stormsweep.scaling.accounts import account
from tests import journals

SMALL: dict[str, Any] = {
    "batch_size": [256, 1024],
    "learning_rate": [0.001, 0.01],
    "epochs": [2, 4],
}
HOSTILE = "<script>alert('x')</script> & \"quoted\" $x_1$ {{ 7 * 7 }} 50%"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a stop, a failure and a lost worker, and its report."""
    directory = journals.simulate(
        tmp_path_factory.mktemp("study"),
        SMALL,
        stops=(60.0,),
        fail={2: ("diverged", "the training loss became nan in epoch 3", "Traceback (most ...)")},
        lose=(3,),
    )
    write_report(directory)
    return directory


def page_of(directory: Path) -> str:
    return (directory / "report" / "index.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    page = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_answer_comes_first_and_is_that_of_the_frames(study: Path) -> None:
    entries, text = journal.read(study / "journal.jsonl"), text_of(page_of(study))
    best = summary(entries).best
    assert best is not None
    answer = text.index(words.capital(words.point(best.hyperparameters)))
    assert answer < text.rindex("Scores over the space")
    assert f"ROC AUC {words.score(best.mean)}" in text
    interval = f"{words.score(best.low)} to {words.score(best.high)}, over 3 folds"
    assert f"95 % interval {interval}" in text
    assert "t-interval" in text
    for name, (mean, sd) in best.scores.items():
        label = words.capital(words.score_label(name))
        assert f"{label} {words.score(mean)} {words.score(sd)}" in text
    alike = int(contest(entries)["contender"].sum()) - 1
    assert f"{alike} cannot be told apart" in text or "None of the" in text or "All " in text


def test_costs_are_those_of_the_summary(study: Path) -> None:
    entries, text = journal.read(study / "journal.jsonl"), text_of(page_of(study))
    look = summary(entries)
    assert f"Wall time {words.duration(look.wall_seconds)}" in text
    assert f"Core-hours used {account(entries).core_hours_used:.2f}" in text
    assert f"Epochs trained {look.epochs_trained}" in text
    assert f"would have needed {look.epochs_separate}" in text


def test_tables_hold_the_whole_frames(study: Path) -> None:
    entries, folder = journal.read(study / "journal.jsonl"), study / "report" / "tables"
    for name in ("configurations", "fits", "tasks", "workers", "sessions", "failures"):
        expected = getattr(frames, name)(entries)
        given = pd.read_csv(folder / f"{name}.csv", dtype={"configuration": str})
        assert given.columns.tolist() == expected.columns.tolist()
        assert len(given) == len(expected)
    given = pd.read_csv(folder / "configurations.csv", dtype={"configuration": str})
    expected = frames.configurations(entries)
    assert given["configuration"].tolist() == expected["configuration"].tolist()
    assert given["roc_auc_mean"].to_numpy() == pytest.approx(expected["roc_auc_mean"].to_numpy())
    text = text_of(page_of(study))
    for row in expected.head(20).to_dict("records"):
        assert words.score(row["roc_auc_mean"]) in text


def test_latex_tables_are_balanced_and_escaped(study: Path) -> None:
    text = (study / "report" / "tables" / "configurations.tex").read_text()
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert len({line.count("&") for line in rows}) == 1
    assert len(rows) == 1 + len(frames.configurations(journal.read(study / "journal.jsonl")))
    assert "_" not in text.replace("tab:configurations", "")


def test_what_latex_would_print_as_other_signs_or_stop_at_is_spelt_out() -> None:
    assert escape("a<b>c|d") == r"a\textless{}b\textgreater{}c\textbar{}d"
    for infinite in (math.inf, -math.inf):
        assert escape(words.number(infinite)).isascii()


def test_figures_are_there_as_png_and_as_pdf_with_truetype_fonts(study: Path) -> None:
    folder = study / "report" / "figures"
    names = {path.stem for path in folder.glob("*.png")}
    assert names == {path.stem for path in folder.glob("*.pdf")}
    assert names == {path.stem for path in folder.glob("*.csv")}
    # A machine of one core has no other layout to draw.
    other = {"advice"} if machine.cores() > 1 else set()
    assert names == other | {
        "best-configurations",
        "score-batch-size-epochs-2",
        "score-batch-size-epochs-4",
        "score-slices",
        "score-interactions",
        "training-time-batch-size",
        "learning",
        "timeline",
        "time-breakdown",
    }
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        pdf = (folder / f"{name}.pdf").read_bytes()
        assert b"/Type3" not in pdf
        assert b"/FontFile2" in pdf
    captions = (folder / "captions.txt").read_text()
    assert all(name in captions for name in names)


def test_the_numbers_behind_the_figures_are_those_of_the_frames(study: Path) -> None:
    entries, folder = journal.read(study / "journal.jsonl"), study / "report" / "figures"
    best = pd.read_csv(folder / "best-configurations.csv")
    expected = frames.configurations(entries)
    assert best["roc_auc_mean"].to_numpy() == pytest.approx(expected["roc_auc_mean"].to_numpy())
    folds = best[[f"roc_auc_fold_{fold}" for fold in (1, 2, 3)]]
    assert folds.mean(axis=1).to_numpy() == pytest.approx(best["roc_auc_mean"].to_numpy())
    timeline, tasks = pd.read_csv(folder / "timeline.csv"), frames.tasks(entries)
    lengths = timeline["ended_seconds"] - timeline["begun_seconds"]
    assert lengths.sum() == pytest.approx(tasks["seconds"].sum(), rel=1e-6)
    assert timeline["ended_seconds"].max() <= frames.sessions(entries)["seconds"].sum()
    times = pd.read_csv(folder / "training-time-batch-size.csv")
    assert times["train_seconds"].sum() == pytest.approx(tasks["train_seconds"].sum())
    learning = pd.read_csv(folder / "learning.csv")
    assert learning["training_loss"].notna().sum() > 0
    assert set(learning["roc_auc"].dropna()) <= set(
        pd.read_csv(study / "report" / "tables" / "fits.csv")["roc_auc"]
    )


def test_synthetic_data_are_called_so_on_the_page_and_in_figures(study: Path) -> None:
    assert "Synthetic data." in text_of(page_of(study))
    assert "synthetic data (twin)" in (study / "report" / "figures" / "captions.txt").read_text()


def test_the_page_needs_nothing_from_outside(study: Path) -> None:
    page = page_of(study)
    allowed = re.search(r"script-src ([^\"]*)\"", page)
    assert allowed is not None
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    known = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert allowed.group(1) == " ".join(f"'sha256-{name}'" for name in known)
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', page))
    for target in re.findall(r'href="([^"]+)"', page):
        assert target.startswith(("data:", "#")) or (study / "report" / target).is_file()
    assert "default-src 'none'" in page


class _Tags(HTMLParser):
    """Reads every tag; what is left open at the end is a mistake."""

    empty = {"meta", "link", "img", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attributes if name == "id" and value]
        if tag not in self.empty:
            self.open.append(tag)
        elif tag == "img":
            assert dict(attributes).get("alt"), "a figure without words for those who cannot see it"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed(study: Path) -> None:
    tags = _Tags()
    tags.feed(page_of(study))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))


def test_readers_of_either_paper_can_tell_colours_from_it() -> None:
    for colour in (*style.COLOURS, *timings.PART_COLOURS.values(), style.GREY, "#440154"):
        assert drawing.contrast(drawing.counterpart(colour.lower()), drawing.DARK_PAPER) >= 1.3
        if colour.lower() not in ("#e2e2e2",):
            assert drawing.contrast(drawing.counterpart(colour.lower()), drawing.DARK_PAPER) >= 3


def test_live_figures_hold_what_the_frames_hold(study: Path) -> None:
    page = page_of(study)
    found = re.search(r'<script type="application/json" id="live-data">(.*?)</script>', page)
    assert found is not None
    figures = json.loads(found.group(1))["figures"]
    assert set(figures) == {"score-slices", "learning", "timeline"}
    for name, figure in figures.items():
        assert len(figure["roots"]) >= 2
        for place in range(len(figure["roots"])):
            assert f'id="live-{name}-{place}"' in page
    assert "synthetic data (twin)" in json.dumps(figures["timeline"])


def test_what_mattered_is_told_of_a_whole_grid_and_what_lacks_of_another(
    study: Path, tmp_path: Path, only_sections: Callable[..., None]
) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        noise = 0.001 * journals.bell(sorted(point.items()), fold)
        return {"roc_auc": 0.8 + 0.05 * (point["batch_size"] == 1024) + noise}

    journals.simulate(tmp_path, SMALL, scores=scores)
    only_sections("answer", "mattered", "configurations")
    write_report(tmp_path)
    text, folder = text_of(page_of(tmp_path)), tmp_path / "report"
    assert "Batch size mattered most: it explains on its own" in text
    assert "not distinguishable from noise" in text
    assert "cannot be told from the best, all comparisons counted" in text
    found = pd.read_csv(folder / "figures" / "importance.csv")
    assert found["share"].sum() == pytest.approx(1)
    assert found["effect"].iloc[0] == "batch_size"
    assert (folder / "figures" / "importance.pdf").is_file()
    assert "Batch size" in (folder / "tables" / "importance.tex").read_text()
    whole = pd.read_csv(folder / "tables" / "contenders.csv")
    assert len(whole) == 8
    assert whole["contender"].sum() == 4
    # A run of the other failed: its grid has a hole, and is too small for a forest.
    assert "Importance of hyperparameters: needs a whole grid, or 12" in text_of(page_of(study))


def test_views_made_once_are_those_made_each_time(study: Path) -> None:
    entries = journal.read(study / "journal.jsonl")
    kept = Kept(entries)
    for make in (
        frames.fits,
        frames.configurations,
        frames.tasks,
        frames.workers,
        differences,
        contest,
    ):
        pd.testing.assert_frame_equal(make(kept), make(entries))
    changed = frames.fits(kept)
    changed["roc_auc"] = 0.0
    pd.testing.assert_frame_equal(frames.fits(kept), frames.fits(entries))
    assert summary(kept) == summary(entries)


def test_failures_and_lost_workers_are_named(study: Path) -> None:
    text = text_of(page_of(study))
    assert "diverged : the training loss became nan in epoch 3" in text
    assert "Traceback (most ...)" in text
    assert "Repeated tasks 1" in text
    assert "1 failed" in text
    assert "interrupted" in text


def test_the_same_journal_gives_the_same_page_and_figures(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "study"
    shutil.copytree(study, directory)
    with style.look():
        picture = learning.learning_picture(Material(journal.read(study / "journal.jsonl"), study))
        assert picture is not None
        style.save(picture, tmp_path)
    for kind in ("png", "pdf", "csv"):
        figure = (study / "report" / "figures" / f"learning.{kind}").read_bytes()
        assert (tmp_path / f"learning.{kind}").read_bytes() == figure, kind
    # The page has the drawings of all, whose files take as long again.
    monkeypatch.delitem(style._KINDS, "pdf")
    monkeypatch.setattr(style, "_DPI", 50)
    (directory / "report" / "stale.txt").write_text("of an earlier report")
    assert write_report(directory) == directory / "report" / "index.html"
    assert page_of(directory).replace(str(directory), str(study)) == page_of(study)
    assert not (directory / "report" / "stale.txt").exists()


def test_a_report_that_fails_leaves_the_old_one(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = page_of(study)

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("stormsweep.report.write.write_tables", broken)
    monkeypatch.setattr("stormsweep.report.write.SECTIONS", {})
    with pytest.raises(OSError, match="no space"):
        write_report(study)
    assert page_of(study) == before
    assert not list(study.glob(".report*"))


def test_an_unfinished_study_says_so(tmp_path: Path, only_sections: Callable[..., None]) -> None:
    only_sections("failures")
    write_report(journals.simulate(tmp_path, SMALL, stops=(70.0,), go_on=False))
    text = text_of(page_of(tmp_path))
    look = summary(journal.read(tmp_path / "journal.jsonl"))
    assert f"Not finished: {look.runs_finished} of 12 runs done" in text
    assert "No run failed so far" in text


def test_a_study_without_any_score_has_a_page(tmp_path: Path) -> None:
    runs = journals.plan(journals.points_of(SMALL), 3, [2, 4])
    with journals.writer(tmp_path / "journal.jsonl") as append:
        for record in (journals.about(SMALL, 3), *runs):
            append(journals.START, record)
    write_report(tmp_path)
    text = text_of(page_of(tmp_path))
    assert "No configuration has a score yet." in text
    assert "study.toml is missing" in text
    assert not list((tmp_path / "report" / "figures").glob("*.png"))


def test_no_journal_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        write_report(tmp_path)
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(JournalError, match="no study is recorded"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_hostile_words_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_DPI", 50)
    space = {"optimizer": [HOSTILE, "_adam"], HOSTILE: [1, 2], "epochs": [3]}
    journals.simulate(
        tmp_path,
        space,
        fail={0: ("error", HOSTILE, HOSTILE)},
        data={"source": HOSTILE, "synthetic": True, "inputs": [HOSTILE], "target": HOSTILE},
        group_by=HOSTILE,
    )
    (tmp_path / "study.toml").write_text(f"# {HOSTILE}\n")
    write_report(tmp_path)
    page = page_of(tmp_path)
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 4
    assert "{{ 7 * 7 }}" in page
    assert " 49 " not in text_of(page)
    assert HOSTILE in html.unescape(page)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    latex = (tmp_path / "report" / "tables" / "configurations.tex").read_text()
    assert r"50\%" in latex


RANDOM = [
    {
        "learning_rate": 10 ** (-4 + 3 * journals.chance("rate", n)),
        "batch_size": int(2 ** (5 + 7 * journals.chance("batch", n))),
        "filters": [[8, 16], [16, 32]][n % 2],
    }
    for n in range(12)
]
RANGES = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True, "integer": False},
    "batch_size": {"low": 32, "high": 4096, "log": True, "integer": True},
    "filters": [[8, 16], [16, 32]],
}


@pytest.mark.parametrize(
    ("space", "options", "figure"),
    [
        (RANGES, {"points": RANDOM, "milestones": [4]}, "score-slices"),
        ({}, {"points": [{"batch_size": 64}], "milestones": [4]}, "score-folds"),
        ({"epochs": [2, 4]}, {"points": [{"batch_size": 64}]}, "score-epochs"),
        ({"width": [1, 2, 4], "epochs": [3]}, {}, "score-width-epochs-3"),
        ({"optimizer": ["adam", "sgd"], "epochs": [3]}, {}, "score-optimizer-epochs-3"),
        ({"early": [True, False], "epochs": [3]}, {"folds": 2}, "score-early-epochs-3"),
        ({**SMALL, "dropout": [0.0, 0.3]}, {"workers": 3}, "score-slices"),
    ],
    ids=["random", "single", "epochs", "number", "word", "switch", "more"],
)
def test_every_space_has_a_figure_that_suits_it(
    space: dict[str, Any],
    options: dict[str, Any],
    figure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stormsweep.report import scores

    monkeypatch.delitem(style._KINDS, "pdf")
    journals.simulate(tmp_path, space, **options)
    material = Material(journal.read(tmp_path / "journal.jsonl"))
    with style.look():
        pictures = {picture.name: picture for picture in scores.score_pictures(material)}
        assert figure in pictures
        style.save(pictures[figure], tmp_path)
    if space.get("dropout"):
        other = next(picture for name, picture in pictures.items() if name != figure)
        assert "the best over dropout" in other.caption
    assert (tmp_path / f"{figure}.png").stat().st_size > 5000


def test_lines_of_the_score_figure_are_the_means(study: Path) -> None:
    from stormsweep.report import scores

    entries = journal.read(study / "journal.jsonl")
    table = frames.configurations(entries)
    with style.look():
        picture = scores.score_pictures(Material(entries))[0]
    top, low = picture.figure.axes
    legend = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert legend == ["0.001", "0.01"]
    for axis, column in ((top, "roc_auc_mean"), (low, "roc_auc_sd")):
        drawn = [line for line in axis.lines if len(line.get_xdata()) == 2]
        for line, rate in zip(drawn, (0.001, 0.01), strict=True):
            own = table[(table["learning_rate"] == rate) & (table["epochs"] == 2)]
            own = own.sort_values("batch_size")
            assert list(line.get_xdata()) == own["batch_size"].tolist()
            assert list(line.get_ydata()) == pytest.approx(own[column].tolist())


def test_drawing_leaves_the_users_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = mpl.rcParams["font.size"], mpl.rcParams["text.parse_math"]
    with style.look():
        assert mpl.rcParams["text.parse_math"] is False
    assert (mpl.rcParams["font.size"], mpl.rcParams["text.parse_math"]) == before


def test_only_a_zero_that_leads_is_left_out_of_a_number_in_a_cell() -> None:
    written = [interactions._short(value) for value in (0.9412, -0.05, 10.4123, 0.0)]
    assert written == [".941", "-.050", "10.412", ".000"]


def test_no_configuration_is_cut_off_at_the_edge_of_a_slice(study: Path) -> None:
    material = Material(journal.read(study / "journal.jsonl"), study)
    with style.look():
        picture = slices.slice_picture(material, material.configurations)
    for axis in picture.figure.axes:
        low, high = axis.get_xlim()
        drawn = [x for line in axis.get_lines() for x in line.get_xdata()]
        assert drawn
        assert low < min(drawn)
        assert max(drawn) < high


@pytest.mark.parametrize("trials", [6, 9])
def test_labels_of_a_few_drawn_values_are_legible(trials: int, tmp_path: Path) -> None:
    """Losing this: of six learning rates from a range, the labels lie over one another."""
    journals.simulate(tmp_path, RANGES, points=RANDOM[:trials], milestones=[4])
    material = Material(journal.read(tmp_path / "journal.jsonl"))
    with style.look():
        figure = slices.slice_picture(material, material.configurations).figure
        figure.canvas.draw()
    assert [scale.by_value for scale in _scales(material)][1:] == [False, True]
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
        inside = [box for box in boxes if axis.bbox.x0 - 40 <= box.x0 <= axis.bbox.x1]
        assert len(inside) >= 2
        if axis.get_xticklabels()[0].get_rotation() == 0:
            ordered = sorted(inside, key=lambda box: box.x0)
            for left, right in itertools.pairwise(ordered):
                assert left.x1 < right.x0
        edges = [left.x1 for left in inside]
        assert max(edges) <= figure.bbox.x1


def test_each_listed_value_has_its_median_however_uneven_the_list(tmp_path: Path) -> None:
    """Losing this: a list like that of dropout has no medians, and the legend promises them."""
    space = {"dropout": [0.0, 0.05, 0.5], "learning_rate": [0.001, 0.003], "epochs": [3]}
    journals.simulate(tmp_path, space)
    material = Material(journal.read(tmp_path / "journal.jsonl"))
    with style.look():
        picture = slices.slice_picture(material, material.configurations)
    dropout = picture.figure.axes[0]
    strokes = [line for line in dropout.lines if line.get_color() == "#222222"]
    assert [round(float(np.mean(line.get_xdata())), 3) for line in strokes] == [0.0, 0.05, 0.5]
    assert "Dark lines" in picture.caption
    journals.simulate(tmp_path / "drawn", RANGES | {"filters": [[8, 16]]}, points=RANDOM[6:9])
    material = Material(journal.read(tmp_path / "drawn" / "journal.jsonl"))
    with style.look():
        picture = slices.slice_picture(material, material.configurations[:2])
    lines = [line.get_color() for axis in picture.figure.axes for line in axis.lines]
    texts = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert ("median" in texts) == ("Dark lines" in picture.caption) == ("#222222" in lines)


def _scales(material: Material) -> list[Scale]:
    table = material.configurations
    return [scale_of(material, n, table[material.columns[n]]) for n in material.varied]


def test_means_over_other_folds_are_not_joined_and_one_epoch_is_seen(tmp_path: Path) -> None:
    """Losing this: where a halving goes on to all folds, a line shows learning that is none."""
    space = {"learning_rate": [0.001, 0.01], "epochs": [1, 2, 4]}
    entries = journal.read(journals.simulate(tmp_path, space, folds=3) / "journal.jsonl")
    # One fold begins later, as those do that a halving leaves out at first.
    late = {run for run, plan in facts.planned_runs(entries).items() if plan.fold == 2}
    kept = [
        entry
        for entry in entries
        if not (
            isinstance(entry.record, TaskDone)
            and entry.record.run in late
            and entry.record.to_epoch < 4
        )
    ]
    material = Material(kept)
    with style.look():
        picture = learning.learning_picture(material)
    assert picture is not None
    assert picture.caption.endswith("Means over other folds are not joined.")
    top = picture.figure.axes[0]
    means = [list(line.get_xdata()) for line in top.lines if len(line.get_xdata()) == 4]
    assert len(means) == 2
    for epochs in means:
        assert epochs[:2] == [1, 2]
        assert math.isnan(epochs[2])
        assert epochs[3] == 4
    journals.simulate(tmp_path / "one", {"learning_rate": [0.001, 0.01], "epochs": [1]})
    with style.look():
        picture = learning.learning_picture(
            Material(journal.read(tmp_path / "one" / "journal.jsonl"))
        )
    assert picture is not None
    low = picture.figure.axes[1]
    assert [line.get_marker() for line in low.lines] == list(style.MARKERS[:2])
    assert "not joined" not in picture.caption
