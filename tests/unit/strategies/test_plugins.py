"""Losing this: a strategy of one's own that is written as the page says, and is not found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from stormsweep.config.study import SearchTable
from stormsweep.search.strategies import known_ahead

from .contract import Case, World, check_proposals, drive, made, proposals

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "strategies.md"


def test_the_plugin_of_the_page_is_found_and_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text(), re.S))
    table = {"strategy": "climb", "space": {"depth": [1, 2, 3], "kind": ["a", "b"]}}
    with pytest.raises(ValidationError, match="must be one of grid"):
        SearchTable.model_validate(table)
    (tmp_path / "climb.py").write_text(blocks["python"])
    group, line = blocks["toml"].splitlines()
    assert group == '[project.entry-points."stormsweep.strategies"]'
    (tmp_path / "climb-1.0.dist-info").mkdir()
    (tmp_path / "climb-1.0.dist-info" / "METADATA").write_text("Name: climb\nVersion: 1.0\n")
    points = "[stormsweep.strategies]\n" + line.replace('"', "") + "\n"
    (tmp_path / "climb-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "climb", raising=False)
    search = SearchTable.model_validate(table)
    assert not known_ahead(search)
    for workers in (1, 16):
        events = drive(made(search), World(), workers)
        check_proposals(Case("climb"), search, proposals(events))
        assert len(proposals(events)) == 6
