"""The documentation as a site: `make docs`. Its pages read well on a code host too."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "src"))

import stormsweep  # noqa: E402

project = "Stormsweep"
author = "The Stormsweep developers"
copyright = "the Stormsweep developers; MIT licence"
version = release = stormsweep.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
highlight_language = "text"
html_theme = "furo"
html_title = f"Stormsweep {version}"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Classes are documented with what they hold, in the order of the code, and nothing is imported to
# be documented but the package itself.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_class_signature = "separated"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

# Every name that a docstring refers to must be there. Types are words of people ("int or None",
# "path", "pandas.DataFrame"), which are no references.
nitpicky = True
# In single backquotes stand parameters too. SchedulerError is public by its heir SlurmError only.
default_role = "py:obj"
nitpick_ignore_regex = [("py:class", ".*"), ("py:obj", ".*"), ("py:exc", "SchedulerError")]

#: What lies outside docs/ and is linked from it; copied into the site.
FROM_REPOSITORY = HERE / "from-repository"
_OUTSIDE = ["CHANGELOG.md", "benchmarks/README.md", "benchmarks/results/*.md"]
_PICTURES = ["benchmarks/results/*.png"]
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def _copy(app: Any) -> None:
    wanted = {
        path.relative_to(ROOT) for pattern in _OUTSIDE + _PICTURES for path in ROOT.glob(pattern)
    }
    for path in sorted(wanted):
        copy = FROM_REPOSITORY / path
        content = (ROOT / path).read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    for copy in FROM_REPOSITORY.rglob("*.*"):
        if copy.relative_to(FROM_REPOSITORY) not in wanted:
            copy.unlink()


def _read(app: Any, docname: str, source: list[str]) -> None:
    """Turn links as a code host follows them into those of the site; describe public names."""
    page = HERE / f"{docname}.md"
    copied = page.is_relative_to(FROM_REPOSITORY)
    lies = ROOT / page.relative_to(FROM_REPOSITORY) if copied else page

    def turned(found: re.Match[str]) -> str:
        target = (lies.parent / found[2]).resolve()
        if not target.is_relative_to(ROOT):
            return found[0]
        there = FROM_REPOSITORY / target.relative_to(ROOT)
        if target.is_relative_to(HERE):
            there = target
        elif not there.exists():
            return found[0]
        up = "../" * len(page.relative_to(HERE).parent.parts)
        return f"{found[1]}{up}{there.relative_to(HERE).as_posix()}{found[3]}"

    if copied or "](../../" in source[0]:
        source[0] = _LINK.sub(turned, source[0])
    if copied and lies.parent.name == "results":
        # What a benchmark printed is a table, linked from where it is used; a page needs a title.
        title = "" if source[0].startswith("# ") else f"# {lies.stem.capitalize()}: measured\n\n"
        source[0] = f"---\norphan: true\n---\n\n{title}{source[0]}"
    if page.stem == "index":
        named = re.findall(r"^[a-z0-9-]+$", source[0], re.MULTILINE)
        others = {one.stem for one in page.parent.glob("*.md")} - {"index", *named}
        source[0] = source[0].replace("\n*\n", "\n".join(["", *sorted(others), ""]))
    if docname == "reference/python":
        source[0] = re.sub(r"^\| `(\w+)` \|", _linked, source[0], flags=re.MULTILINE)
        source[0] += "\n" + "\n".join(_described())


def _linked(row: re.Match[str]) -> str:
    return f"| [`{row[1]}`](#{row[1].lower()}) |"


def _described() -> list[str]:
    names = runpy.run_path(str(HERE / "generate_reference.py"))["public_names"]()
    parts = ["## What each does", ""]
    for name in names:
        thing = getattr(stormsweep, name)
        kind = (
            "autofunction"
            if not isinstance(thing, type)
            else "autoexception"
            if issubclass(thing, BaseException)
            else "autoclass"
        )
        parts += [f"### {name}", "", "```{eval-rst}", f".. {kind}:: stormsweep.{name}", "```", ""]
    return parts


def _skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    # scikit-learn makes these for every estimator, with references into its own documentation.
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Any) -> None:
    """Hook in."""
    app.connect("autodoc-skip-member", _skipped)
    app.connect("builder-inited", _copy)
    app.connect("source-read", _read)
