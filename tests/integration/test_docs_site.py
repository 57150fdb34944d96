"""The documentation as a site. Losing this: pages that nobody can build, links to nowhere."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stormsweep

ROOT = Path(__file__).parents[2]
CHECK: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "check_links.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as `make docs` does."""
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-b", "html", "-W", "--keep-going", "-d", str(folder / "doctrees")]
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == "", "warnings are errors"
    return folder / "html"


def test_every_link_and_anchor_of_the_site_is_there(site: Path) -> None:
    found = CHECK["pages"](site)
    assert len(found) > 30
    assert list(CHECK["broken"](site, found)) == []
    assert all(link.startswith("https://") for link in CHECK["leaving"](found))


def test_every_page_of_the_repository_is_on_the_site_and_every_name_described(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        where = page.relative_to(ROOT / "docs")
        if "_build" not in where.parts:
            assert (site / where.with_suffix(".html")).is_file(), where
    described = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in stormsweep.__all__:
        if not name.startswith("_"):
            assert f'id="stormsweep.{name}"' in described, name


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there"><a href="c.html">')
    (tmp_path / "b.html").write_text('<a href="a.html#here"><img src="no.png">')
    assert list(CHECK["broken"](tmp_path, CHECK["pages"](tmp_path))) == [
        "a.html: b.html#there: no such anchor",
        "a.html: c.html: no such file",
        "b.html: no.png: no such file",
    ]
