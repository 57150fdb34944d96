"""The documentation as a site. Losing this: pages that nobody can build, links to nowhere."""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import PROGRAM, Chromium
from tests.docstrings import NAMES, callables
from tests.pages import ROOT

CHECK: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "check_links.py"))
#: Builds as `python -m sphinx` does, and says which of the slow libraries that took.
BUILD = (
    "import sys; from sphinx.cmd.build import main; code = main(sys.argv[1:]); "
    "print({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)); sys.exit(code)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as `make docs` does."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-b", "html", "-W", "--keep-going", "-d", str(folder / "doctrees")]
    made = subprocess.run(
        [sys.executable, "-c", BUILD, *options, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == "", "warnings are errors"
    assert made.stdout == "set()\n", "a page needs no library that takes seconds to import"
    return folder / "html"


def test_every_link_and_anchor_of_the_site_is_there(site: Path) -> None:
    found = CHECK["pages"](site)
    assert len(found) > 30
    assert list(CHECK["broken"](site, found)) == []
    assert all(link.startswith("https://") for link in CHECK["leaving"](found))


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        where = page.relative_to(ROOT / "docs")
        if "_build" not in where.parts:
            assert (site / where.with_suffix(".html")).is_file(), where


def test_every_name_and_method_is_described_with_its_parameters(site: Path) -> None:
    pages = "".join(
        (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        for name in ("python", "python-further")
    )
    for name in {*NAMES, *map(str, callables())}:
        assert f'id="{name}"' in pages, name
    # What a reader of the first pages missed: methods, inherited ones too, parameters, returns.
    method = pages[pages.index('id="stormsweep.Study.results"') :].partition("</dl>")[0]
    assert "per_fold" in method
    assert "DataFrame" in method
    search = pages[pages.index('id="stormsweep.SweepSearchCV"') :].partition("Attributes")[0]
    for parameter in ("directory", "n_jobs", "site", "trials"):
        assert f"<strong>{parameter}</strong>" in search, parameter


def test_properties_and_scikit_learns_methods_are_not_taken_for_something_else(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    overall = page[page.index('id="stormsweep.Comparison.overall"') :].partition("</dl>")[0]
    assert "One row a study: the mean difference" in overall, "half of it is shown as its type"
    search = page[page.index('id="stormsweep.SweepSearchCV"') :].partition("Parameters")[0]
    assert 'href="#stormsweep.predict"' not in search, "another function than its method"


def test_nothing_is_set_as_code_that_was_meant_otherwise(site: Path) -> None:
    """Losing this: readers see the marks of a markup, or a docstring's section as running text."""
    for page in (site / "reference").glob("*.html"):
        text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
        for mark in (
            r":(?:py|ref|class|func|meth):",
            r"(?:Parameters|Returns|Raises)\n-{3,}",
            "``",
        ):
            assert not re.search(mark, text), f"{page.name}: {mark}"


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
def test_the_site_opens_offline_and_fits_a_phone(site: Path, tmp_path: Path) -> None:
    pages = ("index", "reference/python", "reference/python-further")
    with Chromium(tmp_path / "profile") as browser:
        for width, page in product((1280, 390), pages):
            browser.open(site / f"{page}.html", width)
            assert browser.complaints() == [], page
            asked = [url for url in browser.requests() if not url.startswith("file:")]
            assert asked == [], page
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, page


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there"><a href="c.html">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"><img src="no.png">')
    assert list(CHECK["broken"](tmp_path, CHECK["pages"](tmp_path))) == [
        "a.html: b.html#there: no such anchor",
        "a.html: c.html: no such file",
        "b.html: no.png: no such file",
    ]
