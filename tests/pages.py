"""The documentation's pages and their blocks of code, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Pages with blocks of code that a reader types; what benchmarks print is no such page.
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if not {"_build", "from-repository"} & set(page.relative_to(ROOT).parts)
    ),
    ROOT / "benchmarks" / "README.md",
]
#: Languages of blocks that nobody types or reads in.
WORDS = {"text", "toctree", "eval-rst", "json", "yaml"}
_FENCE = re.compile(r"^(\s*)(`{3,})\s*\{?([a-z-]*)\}?\s*$")
_EXCUSE = re.compile(r"<!-- not run: (\S.{8,}) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    page : Path
        Where it stands.
    line : int
        Of its first line.
    language : str
        As its fence says; empty where it does not.
    text : str
        What stands in it.
    excuse : str
        Why it cannot run here, from a comment ``<!-- not run: ... -->`` above it.
    """

    page: Path
    line: int
    language: str
    text: str
    excuse: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that a reader writes it to, from a comment in its first line; or none."""
        found = re.match(r"# ([\w./-]+\.(?:py|toml|yml))(?:\s|$)", self.text)
        return found[1] if found else ""

    def commands(self) -> list[str]:
        """Return the lines that a reader types into a shell.

        Where any line has a prompt, these are typed and all others are said in answer. A block of
        no language is typed if it begins with a program, and an answer otherwise.
        """
        lines = self.text.replace("\\\n", " ").splitlines()
        prompted = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
        if prompted:
            return prompted
        begins = re.match(r"\s*(stormsweep|make|python|sh|\.|pip) ", self.text)
        if self.language == "sh" or (not self.language and begins):
            return [line.strip() for line in lines if shlex.split(line, comments=True)]
        return []


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    fence, excuse = None, ""
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        found = _FENCE.match(line)
        if fence is None and found:
            fence, lines = (number, *found.groups()), []
        elif fence is None:
            if line.strip():
                marked = _EXCUSE.fullmatch(line.strip())
                excuse = marked[1] if marked else ""
        elif found and found[2] == fence[2] and not found[3]:
            text = "\n".join(one.removeprefix(fence[1]) for one in lines)
            yield Block(page, fence[0] + 1, fence[3], text, excuse)
            fence, excuse = None, ""
        else:
            lines.append(line)
    assert fence is None, f"{page}:{fence[0] if fence else 0}: a block that does not end"


def every(*languages: str) -> list[Block]:
    """Return the blocks of all pages in some languages, without those that are excused."""
    return [
        block
        for page in PAGES
        for block in blocks(page)
        if block.language in languages and not block.excuse
    ]
