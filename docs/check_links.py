"""Follow every link of the built site that stays on it, anchors too; list those that leave it.

``python docs/check_links.py docs/_build/html``. Nothing is fetched: links to elsewhere are printed,
to be looked at by people.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page(HTMLParser):
    """What one page links to, and what can be linked to on it."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in a tag."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.links += [given[name] for name in ("href", "src") if name in given]


def pages(site: Path) -> dict[Path, Page]:
    """Read all pages."""
    found = {}
    for path in sorted(site.rglob("*.html")):
        page = found[path.resolve()] = Page()
        page.feed(path.read_text(encoding="utf-8"))
    return found


def broken(site: Path, found: dict[Path, Page]) -> Iterator[str]:
    """Yield the links that lead nowhere: to no page or picture, or to no anchor of a page."""
    for path, page in found.items():
        for link in sorted(set(page.links)):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            shown = f"{path.relative_to(site.resolve())}: {link}"
            if not target.is_file():
                yield f"{shown}: no such file"
            elif target in found and unquote(parts.fragment) not in {"", *found[target].anchors}:
                yield f"{shown}: no such anchor"


def leaving(found: dict[Path, Page]) -> list[str]:
    """Return the links to elsewhere."""
    links = {link for page in found.values() for link in page.links}
    return sorted(link for link in links if urlsplit(link).scheme in ("http", "https"))


def main() -> int:
    """Print what is wrong and what was not looked at."""
    site = Path(sys.argv[1])
    found = pages(site)
    wrong = list(broken(site, found))
    print("Links to elsewhere, not fetched:", *leaving(found), sep="\n  ")
    print(*wrong, sep="\n")
    print(f"{len(found)} pages, {len(wrong)} broken links")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
