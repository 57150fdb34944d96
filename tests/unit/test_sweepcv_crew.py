"""Who works on a search: without it a site refuses a user's folder, or does more than was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormsweep.config.sites import Found, Site
from stormsweep.study.places import Place
from stormsweep.sweepcv import crew


def a_site(**values: object) -> Found:
    return Found("two", Site.model_validate({"scheduler": "slurm"} | values), None)


@pytest.mark.parametrize("name", ["my search (1)", "größe", "a" * 200])
def test_a_folder_may_be_called_as_its_user_likes(tmp_path: Path, name: str) -> None:
    launcher = crew._launcher(Place(a_site(), (1, 1)), tmp_path / name)
    assert "#SBATCH --job-name=sweep-" in launcher.script(["true"])
