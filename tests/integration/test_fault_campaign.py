"""The fault campaign in small: faults at random instants in studies on a real Slurm.

Losing these: a score, to whatever happens to workers, jobs, nodes, Slurm, the disk or the driver;
the word for what it was; processes and jobs that stay.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.faults.campaign import Campaign
from benchmarks.faults.kinds import KINDS, WALLTIME

from tests.slurm.cluster import MiniSlurm


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("way", "kinds", "faults", "epochs"),
    [
        pytest.param(
            "run",
            ["worker killed", "agent killed", "job cancelled", "job requeued"],
            4,
            20,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "submit",
            ["worker killed", "driver killed", "agent killed"],
            3,
            20,
            marks=pytest.mark.slow,
        ),
        pytest.param("run", [*KINDS, WALLTIME], 12, 60, marks=pytest.mark.slow),
        pytest.param("submit", [*KINDS, WALLTIME], 12, 60, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_twice_different_or_left_behind(
    slurm: MiniSlurm, tmp_path: Path, way: str, kinds: list[str], faults: int, epochs: int
) -> None:
    campaign = Campaign(slurm, tmp_path, epochs, kinds, [way])
    story = campaign.study(1, random.Random(5), faults, dict.fromkeys(campaign.kinds, 0))
    assert story.violations == []
    assert len(story.faults) > faults // 2
    assert any(fault.lost for fault in story.faults), "no fault hit work"
