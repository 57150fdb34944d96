"""What readers do with the report: if this fails, they click, and nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stormsweep.report import write_report
from tests import journals
from tests.browser.chromium import PROGRAM, Chromium

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("sketched"),
]
LIVE = ["score-slices", "learning", "timeline"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid of 2019: 54 configurations on 3 folds, stopped once, with a failure."""
    directory = journals.simulate(
        tmp_path_factory.mktemp("grid"),
        journals.GRID_2019,
        workers=4,
        stops=(600.0,),
        lose=(3,),
        fail={2: ("diverged", "the training loss became nan in epoch 3", "Traceback")},
    )
    return write_report(journals.with_space(directory, journals.GRID_2019))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def _by_day(browser: Chromium) -> Iterator[None]:
    yield
    browser.prefer("light")
    browser.fingers(False)
    browser.evaluate("sessionStorage.clear()")


def show_all(browser: Chromium) -> None:
    """Scroll through the page until every live figure has been drawn."""
    for name in LIVE:
        browser.evaluate(f"document.getElementById('figure-{name}').scrollIntoView()")
        browser.until(f"document.getElementById('figure-{name}').dataset.state === 'live'")


def column(browser: Chromium, table: str, place: int) -> list[str]:
    script = (
        f"[...document.querySelectorAll('{table} tbody tr')].map(r => r.cells[{place}].innerText)"
    )
    return browser.evaluate(script)


def press(browser: Chromium, table: str, heading: str) -> str:
    """Press the heading of a column; return how it says the column is sorted."""
    heads = f"[...document.querySelectorAll('{table} th')]"
    head = f"{heads}.find(h => h.innerText.startsWith('{heading}'))"
    browser.evaluate(f"{head}.scrollIntoView({{block: 'center'}})")
    browser.click(
        *browser.evaluate(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])({head}.querySelector('button')"
            ".getBoundingClientRect())"
        )
    )
    return browser.evaluate(f"{head}.getAttribute('aria-sort')")


def seconds(text: str) -> float:
    units = {"s": 1, "min": 60, "h": 3600}
    parts = text.split()
    return sum(float(n) * units[u] for n, u in zip(parts[::2], parts[1::2], strict=True))


def test_the_whole_grid_of_2019_is_under_three_megabytes(page: Path) -> None:
    assert page.stat().st_size < 3_000_000


def test_tables_sort_by_what_their_cells_stand_for(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    table = "table.configurations"
    ranks = column(browser, table, 0)
    assert ranks == [str(n) for n in range(1, 55)]
    assert press(browser, table, "Time of") == "ascending"
    times = [seconds(text) for text in column(browser, table, 11)]
    assert times == sorted(times)
    assert column(browser, table, 0) != ranks
    assert press(browser, table, "Time of") == "descending"
    times = [seconds(text) for text in column(browser, table, 11)]
    assert times == sorted(times, reverse=True)
    assert press(browser, table, "Batch") == "ascending"
    sizes = [int(text) for text in column(browser, table, 1)]
    assert sizes == sorted(sizes)
    marked = f"document.querySelectorAll('{table} th[aria-sort]').length"
    assert browser.evaluate(marked) == 1
    press(browser, table, "Rank")
    assert column(browser, table, 0) == ranks


def test_tables_sort_from_the_keyboard(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    browser.evaluate(
        "document.querySelector('table.configurations th:nth-child(2) button').focus()"
    )
    browser.key("Enter")
    sizes = [int(text) for text in column(browser, "table.configurations", 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 128


@pytest.mark.parametrize("width", [1280, 360])
def test_live_figures_take_the_place_of_drawings_without_complaint(
    browser: Chromium, page: Path, width: int
) -> None:
    browser.open(page, width)
    show_all(browser)
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    for name in LIVE:
        figure = f"document.getElementById('figure-{name}')"
        assert (
            browser.evaluate(f"getComputedStyle({figure}.querySelector('.still')).display")
            == "none"
        )
        shown = browser.evaluate(
            f"[...{figure}.querySelectorAll('.live > div')]"
            ".map(d => [d.clientWidth, d.clientHeight])"
        )
        assert all(100 < wide <= width and high >= 60 for wide, high in shown)
        # Something is drawn: not every pixel of the canvas is alike.
        assert browser.evaluate(f"({PAINTED})({figure})") > 3


PAINTED = """figure => {
  const find = (node) => [...node.querySelectorAll('*')].flatMap(
    e => [...(e.tagName === 'CANVAS' ? [e] : []), ...(e.shadowRoot ? find(e.shadowRoot) : [])]);
  const seen = new Set();
  for (const canvas of find(figure)) {
    if (!canvas.width) continue;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200)
      seen.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
  }
  return seen.size;
}"""
RANGE = "(m => [m.x_range.start, m.x_range.end])"


def timeline_range(browser: Chromium) -> list[float]:
    return browser.evaluate(f"{RANGE}(Bokeh.documents.find({TIMELINE}).roots()[0])")


TIMELINE = (
    "d => d.roots().length === 2 && d.roots()[0].renderers.some(r => r.glyph?.type === 'HBar')"
)


def test_the_timeline_zooms_and_goes_back(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    show_all(browser)
    browser.evaluate("document.getElementById('figure-timeline').scrollIntoView({block: 'center'})")
    begin, end = timeline_range(browser)
    assert begin == 0
    left, top, width, height = browser.evaluate(
        "(b => [b.x, b.y, b.width, b.height])"
        "(document.querySelector('#live-timeline-0').getBoundingClientRect())"
    )
    middle = top + height / 2
    browser.drag((left + 0.4 * width, middle), (left + 0.6 * width, middle))
    browser.until(f"{RANGE}(Bokeh.documents.find({TIMELINE}).roots()[0])[0] > 0")
    closer = timeline_range(browser)
    assert begin < closer[0] < closer[1] < end
    assert closer[1] - closer[0] < 0.4 * (end - begin)
    browser.evaluate(
        "Bokeh.documents.find(" + TIMELINE + ").roots()[0].toolbar.tools"
        ".find(t => t.type === 'ResetTool').do.emit()"
    )
    browser.until(f"{RANGE}(Bokeh.documents.find({TIMELINE}).roots()[0])[0] === 0")
    assert timeline_range(browser) == [begin, end]


def test_pointing_at_a_task_tells_what_it_was(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    show_all(browser)
    browser.evaluate("document.getElementById('figure-timeline').scrollIntoView({block: 'center'})")
    left, top, width, height = browser.evaluate(
        "(b => [b.x, b.y, b.width, b.height])"
        "(document.querySelector('#live-timeline-0').getBoundingClientRect())"
    )
    browser.move(left + 0.3 * width, top + 0.45 * height)
    browser.until(f"({SAID})().includes('batch size')")
    said = browser.evaluate(f"({SAID})()")
    assert "learning rate" in said
    assert "patches per second" in said


SAID = """() => {
  const texts = (node) => [...node.querySelectorAll('*')].map(
    e => (e.localName === 'div' && e.children.length === 0 ? e.innerText : '')
      + (e.shadowRoot ? texts(e.shadowRoot) : '')).join(' ');
  return texts(document).replace(/\\s+/g, ' ');
}"""


def test_configurations_chosen_in_one_panel_stand_out_in_all(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    show_all(browser)
    where = "document.querySelector('#live-score-slices-0')"
    browser.evaluate(f"{where}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = browser.evaluate(
        f"(b => [b.x, b.y, b.width, b.height])({where}.getBoundingClientRect())"
    )
    browser.drag(
        (left + 0.25 * width, top + 0.2 * height), (left + 0.6 * width, top + 0.7 * height)
    )
    chosen = (
        "Bokeh.documents.find(d => d.roots().length === 3).roots()"
        ".map(p => p.renderers.find(r => r.glyph.type === 'Scatter'))"
        ".map(r => r.data_source.selected.indices.length)"
    )
    browser.until(f"{chosen}[0] > 0")
    counts = browser.evaluate(chosen)
    assert len(set(counts)) == 1
    assert 0 < counts[0] < 54


def test_dark_pages_are_dark_and_can_be_read(browser: Chromium, page: Path) -> None:
    browser.prefer("dark")
    browser.open(page, 1280)
    show_all(browser)
    colours: dict[str, Any] = browser.evaluate(
        "(s => ({paper: s(document.body).backgroundColor, ink: s(document.body).color,"
        " frame: s(document.querySelector('.still svg path')).fill}))(getComputedStyle)"
    )
    assert brightness(colours["paper"]) < 40
    assert brightness(colours["ink"]) > 200
    assert brightness(colours["frame"]) < 40
    axis = "Bokeh.documents[0].roots()[0].below[0].major_label_text_color"
    night = browser.evaluate(f"{axis}.value ?? {axis}")
    browser.prefer("light")
    browser.until(f"({axis}.value ?? {axis}) !== '{night}'")
    day = browser.evaluate(f"{axis}.value ?? {axis}")
    assert int(night[1:3], 16) > 180 > 60 > int(day[1:3], 16)
    assert browser.complaints() == []


def brightness(colour: str) -> float:
    return sum(float(part) for part in colour[4:-1].split(",")[:3]) / 3


def test_paper_gets_the_drawings_in_the_colours_of_day(browser: Chromium, page: Path) -> None:
    browser.prefer("dark")
    browser.open(page, 680)
    show_all(browser)
    browser.call("Emulation.setEmulatedMedia", media="print")
    figure = "document.getElementById('figure-timeline')"
    assert browser.evaluate(f"getComputedStyle({figure}.querySelector('.live')).display") == "none"
    assert browser.evaluate(f"{figure}.querySelector('.still svg').clientWidth") > 400
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )


def test_readers_without_scripts_see_every_figure(browser: Chromium, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page, 1280)
        sizes = browser.evaluate(
            "[...document.querySelectorAll('figure .still > *')].map(i => i.clientWidth)"
        )
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(sizes) >= 9
    assert all(size > 100 for size in sizes)


def test_fingers_scroll_the_page_over_a_figure(browser: Chromium, page: Path) -> None:
    browser.fingers(True)
    browser.open(page, 360)
    show_all(browser)
    active = (
        "Bokeh.documents.flatMap(d => [...d.all_models]).filter(m => "
        "/BoxZoomTool|PanTool|RangeTool|BoxSelectTool/.test(m.type) && m.active).length"
    )
    browser.until(f"{active} === 0")


def test_a_page_of_a_study_that_runs_comes_anew_and_keeps_its_place(
    browser: Chromium, tmp_path: Path, only_sections: Callable[..., None]
) -> None:
    only_sections("answer", "configurations", "data", "provenance")
    directory = journals.simulate(tmp_path, stops=(200.0,), go_on=False)
    page = write_report(directory, reload_seconds=4.0)
    browser.open(page, 1280, 500)
    browser.evaluate("scrollTo(0, 700)")
    assert browser.evaluate("scrollY") == 700
    browser.evaluate("window.before = true")
    press(browser, "table.configurations", "Epochs")
    top = "document.querySelector('table.configurations').getBoundingClientRect().top"
    place = browser.evaluate(top)
    journals.simulate(tmp_path / "more", stops=(400.0,), go_on=False)
    (tmp_path / "more" / "journal.jsonl").replace(directory / "journal.jsonl")
    state = "document.querySelector('.state')?.innerText"
    before = browser.evaluate(state)
    assert before.startswith("Not finished")
    write_report(directory)
    browser.until(f"{state} && {state} !== '{before}' && document.readyState === 'complete'", 30)
    browser.until(f"Math.abs({top} - {place}) < 50")
    heading = "document.querySelector('table.configurations th[aria-sort]')"
    assert browser.evaluate(f"{heading}.innerText").startswith("Epochs")
    # The last report of a study does not load itself anew.
    browser.evaluate("window.before = true")
    browser.evaluate("new Promise(done => setTimeout(done, 6000))")
    assert browser.evaluate("window.before") is True
