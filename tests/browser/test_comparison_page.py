"""The comparison in a real browser: if this fails, a user opens a broken or a reaching-out page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stormsweep import compare, write_comparison
from tests import journals
from tests.browser.chromium import PROGRAM, Chromium

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("sketched"),
]
LONG = "averyveryverylongnamewithoutanyspace"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    journals.simulate(folder / "a", name=f"taki-{LONG}", flaws=[f"leaks {LONG}"])
    found = compare("published:umbc-2019", folder / "a", score="accuracy")
    return write_comparison(found, folder / "comparison")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.mark.parametrize("width", [1280, 390])
def test_opens_offline_without_complaint_and_fits_its_width(
    browser: Chromium, page: Path, width: int
) -> None:
    browser.open(page, width)
    assert browser.requests() == []
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('h1').innerText").startswith("umbc-2019")


def test_every_figure_is_drawn(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    boxes = (
        "[...document.querySelectorAll('figure .still > *')].map(i => i.getBoundingClientRect())"
    )
    sizes = browser.evaluate(f"{boxes}.map(b => [b.width, b.height])")
    assert len(sizes) == 6
    assert all(min(size) > 100 for size in sizes)


def test_tables_sort_by_what_their_cells_stand_for(browser: Chromium, page: Path) -> None:
    """Durations by their length, not by their text."""
    browser.open(page, 1280)
    browser.evaluate(
        "[...document.querySelectorAll('#time th')].find(h => h.innerText.startsWith('Time'))"
        ".querySelector('button').click()"
    )
    rows = "[...document.querySelector('#time table tbody').rows]"
    keys = browser.evaluate(f"{rows}.map(r => [...r.cells].at(-4).dataset.key).map(Number)")
    assert len(keys) > 10
    assert keys == sorted(keys)


def test_prints_without_cutting_tables_off(browser: Chromium, page: Path, tmp_path: Path) -> None:
    browser.open(page, 680)
    browser.call("Emulation.setEmulatedMedia", media="print")
    # A4 less its margins is 180 mm, 680 pixels.
    wide = "[...document.querySelectorAll('table, img')].filter(e => e.scrollWidth > 690).length"
    assert browser.evaluate(wide) == 0
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="")
