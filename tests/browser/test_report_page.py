"""The report in a real browser: if this fails, a user opens a broken or a reaching-out page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stormsweep.report import write_report
from stormsweep.study import machines
from tests import journals
from tests.browser.chromium import PROGRAM, Chromium

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("sketched"),
]
SPACE = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.005, 0.01], "epochs": [2, 4]}
LONG = "averyveryverylongnamewithoutanyspace" * 4


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    space = {**SPACE, "filters": [[8, 16, 32], [16, 32, 64]], "optimizer": ["adam"]}
    directory = journals.simulate(
        tmp_path_factory.mktemp("study"),
        space,
        stops=(60.0,),
        name=f"taki-{LONG}"[:100],
        fail={1: ("error", f"ValueError: {LONG}", f"Traceback {LONG}")},
    )
    with pytest.MonkeyPatch.context() as patch:
        # Of a machine that has layouts to choose from.
        patch.setattr(machines.this_machine, "cores", lambda: 16)
        patch.setattr(machines.this_machine, "memory_gb", lambda: 64.0)
        return write_report(journals.with_space(directory, space))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.mark.parametrize("width", [1280, 390, 360])
def test_opens_offline_without_complaint_and_fits_its_width(
    browser: Chromium, page: Path, width: int
) -> None:
    browser.open(page, width)
    assert browser.requests() == []
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('h1').innerText").startswith("taki-")


def test_every_figure_is_drawn(browser: Chromium, page: Path) -> None:
    browser.open(page, 1280)
    drawings = "[...document.querySelectorAll('figure:not([data-live]) .still > *')]"
    sizes = browser.evaluate(f"{drawings}.map(i => [i.clientWidth, i.clientHeight])")
    assert len(sizes) >= 4
    assert all(wide > 100 and high > 100 for wide, high in sizes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize(
    ("section", "figure", "said"),
    [("mattered", "importance", "mattered most"), ("advice", "advice", "Where more workers stop")],
)
def test_sections_can_be_read_at_any_width_by_day_and_by_night(
    browser: Chromium, page: Path, section: str, figure: str, said: str, width: int, scheme: str
) -> None:
    browser.prefer(scheme)
    browser.open(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    inside = f"document.querySelector('#{section}')"
    assert said in browser.evaluate(f"{inside}.innerText")
    drawing = f"{inside}.querySelector('#figure-{figure} .still > *')"
    assert browser.evaluate(f"{drawing}.clientHeight") > 100
    tables = f"[...{inside}.querySelectorAll('.scroll, pre')].map(e => e.clientWidth)"
    assert all(0 < wide <= width for wide in browser.evaluate(tables))
    # Bars and paper differ, whichever is dark.
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    bars = f"[...{drawing}.querySelectorAll('path')].map(e => getComputedStyle(e).fill)"
    fills = set(browser.evaluate(bars)) - {"none", paper}
    assert len(fills) >= 2
    browser.prefer("light")


def test_prints_without_cutting_tables_off(browser: Chromium, page: Path, tmp_path: Path) -> None:
    browser.open(page, 680)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == (
        "visible"
    )
    # A4 less its margins is 180 mm, 680 pixels.
    wide = "[...document.querySelectorAll('table, img')].filter(e => e.scrollWidth > 690).length"
    assert browser.evaluate(wide) == 0
    browser.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="")
