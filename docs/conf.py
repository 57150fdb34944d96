"""The documentation as a site: `make docs`. Its pages read well on a code host too."""

from __future__ import annotations

import gc
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "src"))

import stormsweep  # noqa: E402

# Sphinx makes millions of objects and keeps nearly all: to look through them again and again for
# some to collect takes a third of the time.
gc.disable()

# The pages that are written from the code, and the names on them.
_WRITTEN = runpy.run_path(str(HERE / "generate_reference.py"))
_PAGES = {
    HERE / "reference" / "python.md": _WRITTEN["python_page"],
    HERE / "reference" / "python-further.md": _WRITTEN["further_page"],
}
_GROUPS = [*_WRITTEN["FURTHER"], *_WRITTEN["PUBLIC"]]
_NAMES = [name for group in _GROUPS for name in group.names]
_HANDED_OUT = {name for group in _GROUPS for name in group.names if not group.calls}

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
html_static_path = ["_static"]
html_css_files = ["reference.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Classes are documented with what they hold and inherit within the package, in the order of the
# code. Types of parameters stand where these are described, in words; those of what is returned
# stand in signatures.
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "inherited-members": "object, tuple, BaseException, BaseEstimator, BaseSearchCV, "
    "ClassifierMixin, RegressorMixin, _MetadataRequester",
}
autodoc_typehints = "none"
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
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
    if page in _PAGES:
        source[0] = _PAGES[page](site=True)


def _signature(
    app: Any, what: str, name: str, thing: Any, options: Any, args: str | None, returned: str
) -> tuple[str, str] | None:
    """Say what is returned; leave out how users would call what only Stormsweep makes."""
    if args is None:
        return None
    if what in ("class", "exception"):
        made = what == "exception" or name in _HANDED_OUT
        return ("", "") if made else None
    says = getattr(thing, "__annotations__", {}).get("return", "None")
    return args, "" if says in ("None", "Any") else says


def _found(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Find a class, or a member of one, that a docstring names without all of its module."""
    named = re.fullmatch(r"((?:[a-z_]+\.)*[A-Z]\w*)(\.\w+)?", node.get("reftarget", ""))
    if named is None or node.get("refdomain") != "py":
        return None
    meant = [name for name in _NAMES if f".{name}".endswith(f".{named[1]}")]
    if len(meant) != 1:
        return None
    full, domain = f"{meant[0]}{named[2] or ''}", env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, shown)


def _unlinked(app: Any, doctree: Any) -> None:
    """Keep Sphinx from guessing what a word of a type may be: "path" is no attribute of a class."""
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py":
            node.attributes.pop("refspecific", None)
            if node["reftype"] == "class" and not re.search(r"\b[A-Z]\w*$", node["reftarget"]):
                node.replace_self(node.children)


#: Stands for a colon while napoleon looks.
_COLON = "\ufdd0"


def _untyped(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon for the type of a property."""
    if what in ("property", "attribute"):
        lines[:] = [line.replace(":", _COLON) for line in lines]


def _colons(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    # scikit-learn makes these for every estimator, with references into its own documentation; of
    # the fields of a named tuple Python says a number.
    theirs = re.fullmatch(r"set_\w+_request", name)
    return True if theirs or str(thing.__doc__).startswith("Alias for field") else None


def setup(app: Any) -> None:
    """Hook in."""
    app.connect("autodoc-skip-member", _skipped)
    app.connect("autodoc-process-signature", _signature)
    # Before napoleon's, and after it.
    app.connect("autodoc-process-docstring", _untyped, priority=400)
    app.connect("autodoc-process-docstring", _colons, priority=600)
    app.connect("doctree-read", _unlinked)
    app.connect("missing-reference", _found)
    app.connect("builder-inited", _copy)
    app.connect("source-read", _read)
