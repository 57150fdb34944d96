"""Losing this: a study goes on elsewhere, or in other jobs, than it was begun in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stormsweep.config.sites import Found, Site
from stormsweep.config.study import StudyFile
from stormsweep.errors import StudyFileError
from stormsweep.study.environment import describe
from stormsweep.study.places import as_asked, find, going_on, place_of, remember


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


def test_a_site_beside_the_file_a_study_was_begun_from_is_known_to_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the report's own `stormsweep advise runs/x --site two` says "known: local"."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "sites.toml").write_text('[site.two]\nscheduler = "slurm"\n')
    directory = tmp_path / "runs" / "x"
    directory.mkdir(parents=True)
    study = StudyFile.model_validate({"study": {"name": "x"}, "search": {"space": {"epochs": [1]}}})
    begun = describe(study, 1, path=Path("studies/x.toml"))
    again = describe(study, 2, path=directory / "study.toml")
    (directory / "environment.json").write_text(json.dumps(begun | {"later": [again]}))
    found = find("two", directory / "study.toml", directory, "--site")
    assert found.file == tmp_path / "studies" / "sites.toml"
    with pytest.raises(
        StudyFileError, match=r"--site: given 'tow' .*did you mean 'two'.*studies/sites.toml"
    ):
        place_of("tow", directory / "study.toml", directory, said_site="--site")
