"""What to ask for next time: losing it, a reader of the report asks for nodes by feel."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stormsweep import Study
from stormsweep.records import SessionBegun
from stormsweep.report import advice, style, words, write_report
from stormsweep.report.material import Material
from stormsweep.report.parts import Part
from stormsweep.report.sections import SECTIONS
from stormsweep.results import journal
from stormsweep.scaling.foretold import Foretold
from stormsweep.study import foretelling, machines, next_time
from tests import journals

pytestmark = pytest.mark.usefixtures("sketched")

SPACE: dict[str, Any] = {"batch_size": [128, 512], "learning_rate": [0.001, 0.005], "epochs": [2]}
SITES = """
[site.mine]
scheduler = "slurm"
walltime = "04:00:00"
nodes = 2
cores_per_node = 4
workers_per_node = 2
price_per_core_hour = 0.01
"""


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines.this_machine, "cores", lambda: 8)
    monkeypatch.setattr(machines.this_machine, "memory_gb", lambda: 64.0)


def study_in(folder: Path, more: str = "", **options: Any) -> Path:
    sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
    directory = journals.simulate(folder / "runs" / "taki-2019", SPACE, fold_sizes=sizes, **options)
    return journals.with_space(directory, SPACE, more)


def moved(directory: Path, **changes: Any) -> Path:
    """Have the sessions of a journal been somewhere else."""
    path = directory / "journal.jsonl"
    entries = [
        dataclasses.replace(one, record=dataclasses.replace(one.record, **changes))
        if isinstance(one.record, SessionBegun)
        else one
        for one in journal.read(path)
    ]
    path.unlink()
    with journal.JournalWriter(path) as out:
        out.write(entries)
    return directory


def material_of(directory: Path, **options: Any) -> Material:
    return Material(journal.read(directory / "journal.jsonl"), directory, **options)


def section_of(directory: Path, **options: Any) -> Part | None:
    with style.look():
        return advice.section(material_of(directory, **options))


@pytest.fixture
def quick(only_sections: Callable[..., None]) -> None:
    """Have pages be written without the sections that are not looked at here."""
    only_sections("advice", "failures")


def text_of(page: str) -> str:
    page = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def told(part: Part | None) -> str:
    assert part is not None
    more = [
        part.more[name] for name in ("notes", "site_table", "lines", "limits") if part.more[name]
    ]
    return "\n".join([*part.words, *(line for lines in more for line in lines)])


def numbers_of(one: Foretold, cost: Any) -> list[float]:
    return [*one.makespan, *cost, one.utilisation.median, one.jobs.median]


COLUMNS = [
    *("seconds_low", "seconds", "seconds_high", "cost_low", "cost", "cost_high"),
    *("utilisation", "jobs"),
]
LAYOUT = ["nodes", "workers_per_node", "threads_per_worker"]


def rows_of(frame: pd.DataFrame) -> dict[tuple[int, ...], list[float]]:
    rows = frame.to_dict("records")
    return {tuple(row[name] for name in LAYOUT): [row[name] for name in COLUMNS] for row in rows}


def layout_of(one: Foretold) -> tuple[int, ...]:
    return tuple(getattr(one.machine, name) for name in LAYOUT)


def test_advice_comes_right_after_the_answer() -> None:
    assert [one.name for one in SECTIONS][:2] == ["answer", "advice"]


def test_the_page_says_what_advise_says(tmp_path: Path, quick: None) -> None:
    directory = study_in(tmp_path)
    page = write_report(directory).read_text(encoding="utf-8")
    found, report = Study.from_toml(directory).advise(), directory / "report"
    assert len(found.candidates) > 4
    for table in ("figures/advice.csv", "tables/advice.csv"):
        frame = pd.read_csv(report / table)
        given = rows_of(frame)
        assert list(given) == [layout_of(one) for one in found.candidates]
        for one in found.candidates:
            assert given[layout_of(one)] == pytest.approx(numbers_of(one, one.core_hours))
        for column, marked in (
            ("on_front", found.front),
            ("knee", [found.knee]),
            ("advised", [found.chosen]),
        ):
            assert set(rows_of(frame[frame[column]])) == {layout_of(one) for one in marked}
    text = text_of(page)
    for time in found.asked.makespan:
        assert words.duration(time) in text
    for line in found.limits:
        assert line in text
    layout = found.asked.machine
    assert f"stormsweep run STUDY.toml --site local --workers {layout.workers} --threads 1" in text
    assert f'[site] use = "local" workers = {layout.workers} threads_per_worker = 1' in text
    assert (report / "figures" / "advice.png").read_bytes().startswith(b"\x89PNG")
    latex = (report / "tables" / "advice.tex").read_text()
    assert latex.count(r"\\") == len(found.candidates) + 1
    captions = (report / "figures" / "captions.txt").read_text()
    assert "Time against cost of other layouts (synthetic data (twin))" in captions


def test_synthetic_data_are_called_so_in_the_figure(tmp_path: Path) -> None:
    part = section_of(study_in(tmp_path))
    assert part is not None
    (picture,) = part.pictures
    assert [text.get_text() for text in picture.figure.texts] == ["synthetic data (twin)"]


def test_on_a_cluster_it_says_what_to_ask_the_scheduler_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text(SITES)
    directory = moved(study_in(tmp_path, '\n[site]\nuse = "mine"\n'), site="mine", workers=4)
    found, part = Study.from_toml(directory).advise(), section_of(directory)
    assert part is not None
    (table,) = part.tables
    assert table.frame is not None
    given = rows_of(table.frame)
    for one in found.candidates:
        assert one.cost is not None
        assert given[layout_of(one)] == pytest.approx(numbers_of(one, one.cost))
    assert set(table.frame["cost_unit"]) == {"money"}
    # It ran on two nodes of two workers.
    ran = table.frame[table.frame["as_it_ran"]]
    assert ran["nodes"].tolist() == [2]
    asked, lines = found.asked.machine, told(part)
    assert f"stormsweep submit STUDY.toml --site mine --nodes {asked.nodes} --walltime " in lines
    assert f"#SBATCH --nodes={asked.nodes}" in lines
    assert f'[site]\nuse = "mine"\nnodes = {asked.nodes}\nwalltime = "' in lines
    assert "waiting in the queue is not counted" in lines
    assert found.limits[0].replace(" x ", f" {words.TIMES} ") in lines


def test_where_most_of_it_ran_is_what_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: who ran on a cluster is told of the laptop that the file names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text(SITES)
    directory = moved(study_in(tmp_path), site="mine", workers=2)
    part = section_of(directory)
    assert part is not None
    (table,) = part.tables
    assert table.frame is not None
    assert set(table.frame["site"]) == {"mine"}
    assert part.more["command"].endswith(" --site mine")


@pytest.mark.parametrize("workers", [2, 5])
def test_the_layout_in_which_it_ran_is_marked_and_held_against_what_it_took(
    workers: int, tmp_path: Path
) -> None:
    directory = study_in(tmp_path, workers=workers)
    study, part = Study.from_toml(directory), section_of(directory)
    assert part is not None
    (table,) = part.tables
    assert table.frame is not None
    ran = table.frame[table.frame["as_it_ran"]]
    foretold = study.simulate(workers=workers, threads=1)
    assert rows_of(ran) == {
        (1, workers, 1): pytest.approx(numbers_of(foretold, foretold.core_hours))
    }
    # Five is no number that is advised; where it ran must be in the picture all the same.
    assert len(table.frame) == len(study.advise().candidates) + (workers == 5)
    took = words.duration(study.summary().wall_seconds)
    time = words.duration(foretold.makespan.median)
    assert f"took {took}; foretold for that layout: {time}" in told(part)


def test_what_is_left_of_a_study_is_preliminary_and_its_own_command(tmp_path: Path) -> None:
    directory = study_in(tmp_path, stops=(40.0,), go_on=False)
    found, part = Study.from_toml(directory).advise(), section_of(directory)
    assert part is not None
    (table,) = part.tables
    assert table.frame is not None
    given = rows_of(table.frame)
    for one in found.candidates:
        assert given[layout_of(one)] == pytest.approx(numbers_of(one, one.core_hours))
    assert "Preliminary: the study is not finished" in told(part)
    assert f"stormsweep run {directory} --site local --workers" in told(part)


def test_whose_machine_it_is_is_said_where_the_study_ran_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = study_in(tmp_path)
    assert "It ran on node17; the layouts are those of " in told(section_of(directory))
    monkeypatch.setattr("stormsweep.report.advice_words.host", lambda: "node17")
    assert "It ran on node17" not in told(section_of(directory))


def test_a_task_that_other_work_starved_is_told_of(tmp_path: Path) -> None:
    """Losing this: a reader sees times of hours and cannot know that one task was to blame."""
    directory = journals.starve(study_in(tmp_path), {1: {"build": 300.0, "compile": 200.0}})
    assert re.search(
        r"^1 of 12 tasks took .* of it lost building and compiling, where ",
        told(section_of(directory)),
        re.MULTILINE,
    )


def test_one_layout_alone_makes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines.this_machine, "cores", lambda: 1)
    part = section_of(study_in(tmp_path))
    assert part is not None
    assert part.pictures == []
    assert "a layout that there is no room for now" in told(part)


def unrecorded(directory: Path) -> None:
    (directory / "study.toml").unlink()


def simulated(directory: Path) -> None:
    moved(directory, host="simulated")


def begun_only(directory: Path) -> None:
    path = directory / "journal.jsonl"
    entries = [one for one in journal.read(path) if one.record.kind in ("study", "run")]
    path.unlink()
    with journal.JournalWriter(path) as out:
        out.write(entries)


@pytest.mark.parametrize("spoil", [unrecorded, simulated, begun_only])
def test_without_a_basis_there_is_no_section(spoil: Any, tmp_path: Path) -> None:
    directory = study_in(tmp_path)
    spoil(directory)
    assert section_of(directory) is None


def lines_of(part: Part | None) -> list[str]:
    """Return the words of a section that has nothing else."""
    assert part is not None
    assert not part.pictures
    assert not part.tables
    assert part.more == {"advised": None}
    return part.words


def test_a_site_that_is_gone_is_named_in_one_line(tmp_path: Path) -> None:
    directory = moved(study_in(tmp_path), site="gone")
    (line,) = lines_of(section_of(directory))
    assert line.startswith("No layout is foretold: ")
    assert "'gone'" in line


@pytest.mark.parametrize("most", [10, 1000])
def test_what_takes_too_long_is_left_to_a_command(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the report of ten thousand configurations takes an hour."""
    asked: list[Any] = []
    monkeypatch.setattr(foretelling.Outlook, "foretell", lambda *given: asked.append(given))
    monkeypatch.setattr(next_time, "MOST_SIMULATED", most)
    directory = study_in(tmp_path)
    (line,) = lines_of(section_of(directory))
    assert line.endswith(f"too long to simulate for a report; see stormsweep advise {directory}.")
    assert asked == []


def test_a_fault_of_the_advice_is_no_fault_of_the_report(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("<b>nothing</b>")

    monkeypatch.setattr(foretelling.Outlook, "foretell", broken)
    page = write_report(study_in(tmp_path)).read_text(encoding="utf-8")
    assert "No layout is foretold: that failed with ZeroDivisionError: &lt;b&gt;nothing" in page
    assert "No run failed" in page


def test_nothing_is_simulated_while_the_page_is_written_again_and_again(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(advice, "next_time", lambda *given: asked.append(given))
    directory = study_in(tmp_path)
    page = write_report(directory, reload_seconds=30).read_text(encoding="utf-8")
    assert f"until then see stormsweep advise {directory}." in text_of(page)
    assert asked == []


@pytest.fixture
def crowd(tmp_path: Path) -> Part:
    """A front of more layouts than can be named beside each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machines.this_machine, "cores", lambda: 64)
        patch.setattr(machines.this_machine, "memory_gb", lambda: 640.0)
        space = SPACE | {"learning_rate": [0.001 * n for n in range(1, 9)]}
        directory = journals.simulate(tmp_path / "wide", space)
        part = section_of(journals.with_space(directory, space))
    assert part is not None
    return part


def test_names_in_the_figure_keep_clear_of_each_other(crowd: Part) -> None:
    with style.look():
        figure = crowd.pictures[0].figure
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) >= 3
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
