"""The documentation: if these fail, a reader follows a link to nowhere, or reads a blank."""

import re
from pathlib import Path

import pytest

from stormsweep.config.study import METRICS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/**/*.md")]
)
PAGES = [
    page
    for page in PAGES
    if not {".venv", "_build", "from-repository"} & set(page.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()
    ]
    assert missing == []
    # A comment stands before a table that a command wrote, never in its place; or says of a block
    # of code why no test runs it.
    assert re.findall(r"<!--(?! not run: )[^>]*-->\s*(?:\Z|[^|\s].*)", text) == []


def test_pages_that_count_the_metrics_agree_with_the_study_file():
    words = ["six", "seven", "eight", "nine", "ten"]
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    counted = re.findall(r"`search\.metric`, one of \[?(\w+)", pages)
    assert counted
    assert {words.index(word) + 6 for word in counted} == {len(METRICS)}
