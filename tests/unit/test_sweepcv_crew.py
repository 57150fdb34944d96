"""Who works on a search: without it a site refuses a user's folder, or does more than was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormsweep.config.sites import Found, Site
from stormsweep.study.places import Place
from stormsweep.sweepcv import crew


def a_site(**values: object) -> Found:
    return Found("two", Site.model_validate({"scheduler": "slurm"} | values), None)


@pytest.mark.parametrize(
    ("n_jobs", "workers", "nodes", "per_node"),
    [(None, 8, 2, 4), (-1, 8, 2, 4), (3, 3, 1, 3), (5, 5, 2, 3), (8, 8, 2, 4), (10, 10, 3, 4)],
)
def test_as_many_work_on_a_site_as_were_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_jobs: int | None,
    workers: int,
    nodes: int,
    per_node: int,
) -> None:
    """Losing this: five workers asked for and eight at work, and paid."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sites.toml").write_text(
        '[site.two]\nscheduler = "slurm"\nnodes = 2\nworkers_per_node = 4\n'
    )
    found = crew.crew("two", n_jobs, tmp_path / "kept")
    assert found.place is not None
    assert (found.workers, found.place.nodes[1], found.per_node) == (workers, nodes, per_node)
    # What is said of them if there are fewer.
    assert (found.place.found.key("nodes") == "n_jobs, in nodes") == (n_jobs not in (None, -1))


@pytest.mark.parametrize("name", ["my search (1)", "größe", "a" * 200])
def test_a_folder_may_be_called_as_its_user_likes(tmp_path: Path, name: str) -> None:
    launcher = crew._launcher(Place(a_site(), (1, 1)), tmp_path / name)
    assert "#SBATCH --job-name=sweep-" in launcher.script(["true"])
