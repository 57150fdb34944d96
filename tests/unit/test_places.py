"""Losing this: a study goes on elsewhere, or in other jobs, than it was begun in."""

from __future__ import annotations

from pathlib import Path

from stormsweep.config.sites import Found, Site
from stormsweep.study.places import as_asked, going_on, remember


def test_the_command_to_go_on_by_keeps_what_was_asked_for(tmp_path: Path) -> None:
    site = Site(scheduler="slurm", walltime="1-00:00:00")
    found = Found("mine", site, tmp_path / "sites.toml")
    asked = as_asked(found, 4, "01:30:00")
    directory = tmp_path / "x"
    directory.mkdir()
    for submitted, verb, nodes in ((True, "submit", "4"), (False, "run", "4:4")):
        remember(asked, directory, submitted, (4, 4))
        line = f"{verb} {directory} --site mine --nodes {nodes} --walltime 01:30:00"
        assert going_on(directory, "mine") == f"stormsweep {line}"
    remember(found, directory, True)
    assert going_on(directory, "mine") == f"stormsweep submit {directory} --site mine"


def test_what_the_scheduler_refuses_is_told_where_it_was_said(tmp_path: Path) -> None:
    found = Found("mine", Site(scheduler="slurm"), tmp_path / "sites.toml")
    asked = as_asked(found, None, "3-00:00:00")
    assert (asked.key("walltime"), asked.key("nodes")) == (
        "--walltime",
        f"{tmp_path / 'sites.toml'}: site.mine.nodes",
    )
