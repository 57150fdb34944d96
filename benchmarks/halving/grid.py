"""The grids: trained whole, once; what is on record is not trained again."""

from __future__ import annotations

from pathlib import Path

from stormsweep import Study
from stormsweep.config.study import StudyFile
from stormsweep.records import Entry

TEMPLATE = Path(__file__).with_name("study.toml")


def train(seed: int, work: Path) -> list[Entry]:
    """Train the grid of one seed, or what is left of it; return its journal.

    The twin's storms, the folds, initial weights and batches all follow from the seed.
    """
    return _trained(_study(seed, work))


def search(seed: int, work: Path) -> list[Entry]:
    """Train ASHA over the grid of one seed, or what is left of it; return its journal."""
    return _trained(_study(seed, work, "asha"))


def _trained(study: Study) -> list[Entry]:
    outcome = study.run()
    if outcome.failed:
        raise SystemExit(f"{study.path}: {len(outcome.failed)} runs failed")
    return study.entries()


def file(seed: int, work: Path) -> StudyFile:
    """Return the study file of the grid of one seed."""
    return _study(seed, work).file


def _study(seed: int, work: Path, strategy: str = "grid") -> Study:
    work = work.resolve()
    name = "halving" if strategy == "grid" else strategy
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace('name = "halving"', f'name = "{name}-{seed}"')
    if strategy != "grid":
        text = text.replace('strategy = "grid"', f'strategy = "{strategy}"\ntrials = 1000')
    text = text.replace("seed = 1\n", f"seed = {seed}\n")
    text = text.replace('source = "twin"', f'source = "twin"\ncache = "{work / "data"}"')
    path = work / f"{name}-{seed}.toml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return Study.from_toml(path, runs=work / "runs")
