"""Losing these: a table of peers that flatters Stormsweep, or memory and processes overlooked."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest
from benchmarks.peers.measure import MARK, Measured, measure
from benchmarks.peers.table import Repeat, against, agreement, summary, table

OURS = ("ours", "ours-bfloat16")
ROWS = {
    "fit": "a search with fit",
    "slow": "a slow one",
    "absent": "one that cannot be installed",
    "ours": "Stormsweep, float32",
    "ours-bfloat16": "Stormsweep, bfloat16",
}


def repeats(shift: float = 0.0) -> list[Repeat]:
    """Make three rounds in which machine and chance vary; `shift` moves one score of ours."""
    chance = random.Random(0)

    def scores() -> dict[str, float]:
        return {
            f"epochs={epochs}": 0.7 + epochs / 100 + chance.gauss(0, 0.01) for epochs in range(9)
        }

    made = []
    for number, load in ((1, 1.0), (2, 1.5), (3, 1.1)):
        ours = scores()
        ours["epochs=4"] += shift
        made += [
            Repeat("fit", number, 200 * load, 2 << 30, scores(), version="fit 1.0"),
            Repeat("slow", number, 400 * load, 1 << 30, scores()),
            Repeat("absent", number, 0.0, 0, {}, problem="could not be installed: no wheel"),
            Repeat("ours", number, 50 * load, 3 << 29, ours),
            Repeat("ours-bfloat16", number, 40 * load, 3 << 29, ours),
        ]
    return made


def test_ratios_are_taken_within_each_round() -> None:
    spread = against("fit", "ours", repeats())
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == (4.0, 4.0, 4.0)


def test_a_round_without_ours_gives_no_ratio() -> None:
    kept = [each for each in repeats() if (each.tool, each.round) != ("ours", 2)]
    assert len([each for each in kept if each.tool == "ours"]) == 2
    only_fit = [each for each in kept if each.tool == "fit" or each.round == 2]
    assert against("fit", "ours", only_fit) is None


def test_table_has_a_line_for_every_tool_and_says_why_one_has_no_figures() -> None:
    text = table(list(ROWS.items()), repeats(), OURS)
    lines = text.splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({line.count("|") for line in lines}) == 1
    assert "220.0 (200.0 to 300.0)" in lines[2]
    assert "(fit 1.0)" in lines[2]
    assert "could not be installed: no wheel" in lines[4]


def test_a_tool_that_failed_once_says_so_beside_its_figures() -> None:
    failed = [*repeats(), Repeat("fit", 4, 12.0, 0, {}, problem="failed (exit code 1): ...")]
    text = table(list(ROWS.items()), failed, OURS)
    assert "220.0 (200.0 to 300.0); failed 1 of 4" in text


def test_the_fastest_peer_is_the_measure_and_memory_is_that_of_two_processes() -> None:
    text = summary(ROWS, ["fit", "slow", "ours"], repeats(), OURS)
    assert "Stormsweep, float32: 4.00 times as fast as the fastest peer (a search with fit)" in text
    assert "Stormsweep, bfloat16: 5.00 times" in text
    assert "peak memory 1,536 MiB; the least of the peers" in text
    assert "1,024 MiB (a slow one)" in text


def test_scores_that_differ_by_chance_agree() -> None:
    for name in ("fit", "slow", *OURS):
        found = agreement(name, repeats(), OURS)
        assert found is not None
        assert found.agrees, name
    assert "All scores agree" in summary(ROWS, [], repeats(), OURS)


def test_one_wrong_score_is_noticed() -> None:
    found = agreement("ours", repeats(shift=-0.2), OURS)
    assert found is not None
    assert found.agrees is False
    assert found.largest == pytest.approx(-0.2, abs=0.03)
    text = summary(ROWS, [], repeats(shift=-0.2), OURS)
    assert "Scores that chance does not explain: Stormsweep, float32" in text
    assert "disagrees" in table(list(ROWS.items()), repeats(shift=-0.2), OURS)


def test_two_repeats_are_too_few_to_judge() -> None:
    found = agreement("ours", [each for each in repeats() if each.round == 1], OURS)
    assert found is not None
    assert found.agrees is None


# A child that leaves its parent's tree, as Ray's servers do, holds 100 MiB until it is ended.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    held = bytearray(os.urandom(1 << 20) * 100)
    open("daemon", "w").write(str(os.getpid()))
    time.sleep(600)
os.wait()
while not os.path.exists("daemon"):
    time.sleep(0.05)
time.sleep({seconds})
sys.exit(3)
"""


def run(folder: Path, seconds: float, timeout: float) -> Measured:
    code = DAEMON.replace("{seconds}", str(seconds))
    cores = sorted(os.sched_getaffinity(0))[:1]
    return measure(
        [sys.executable, "-c", code], dict(os.environ), folder, folder / "log", cores, timeout
    )


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_daemons_counts_and_none_outlives_its_repeat(tmp_path: Path) -> None:
    measured = run(tmp_path, seconds=3, timeout=60)
    assert measured.returncode == 3, (tmp_path / "log").read_text()
    assert not measured.timed_out
    assert measured.processes >= 2
    assert 100 << 20 < measured.peak_bytes < 300 << 20
    assert gone(int((tmp_path / "daemon").read_text()))
    assert MARK not in os.environ


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_a_repeat_that_hangs_is_stopped(tmp_path: Path) -> None:
    measured = run(tmp_path, seconds=600, timeout=1)
    assert measured.timed_out
    assert measured.returncode < 0
    daemon = tmp_path / "daemon"
    assert not daemon.exists() or gone(int(daemon.read_text()))
