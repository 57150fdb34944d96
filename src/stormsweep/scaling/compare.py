"""Which studies are compared, and what of them: read, checked, put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stormsweep.config.load import load_study, no_such_study
from stormsweep.errors import JournalError, UserError, nearest
from stormsweep.files import sha256
from stormsweep.results import journal
from stormsweep.results.views import Kept
from stormsweep.scaling import published
from stormsweep.scaling.comparison import COMPARABLE, Comparison
from stormsweep.scaling.published import PREFIX
from stormsweep.scaling.sides import Side, environment_of, from_journal, from_published

_FIRST_ON_X = "batch_size"


def compare(
    *studies: Path | str,
    baseline: Path | str | None = None,
    score: str | None = None,
    runs: Path | str = "runs",
) -> Comparison:
    """Put studies side by side.

    Parameters
    ----------
    *studies : path
        Directories of studies, study files, or ``published:umbc-2019``. At least two; a published
        study that was run on several kinds of nodes may stand alone.
    baseline : path, optional
        The study that the others are measured by, as given or by its name; default: the first.
    score : str, optional
        The score that is compared; default: the one that all are ranked by.
    runs : path
        The folder of the directories of studies that are named by their files.

    Returns
    -------
    Comparison
        Times, speed-ups, costs, scores and their differences, as frames.

    Raises
    ------
    UserError
        If there is too little to compare, or nothing that the studies have in common.
    JournalError
        If a journal is missing or damaged.
    """
    _refuse_too_few([str(study) for study in studies])
    places = [_place(study, Path(runs)) for study in studies]
    _refuse_twice(places)
    return together([_read(place) for place in places], baseline, score)


def together(
    sides: Sequence[Side], baseline: Path | str | None = None, score: str | None = None
) -> Comparison:
    """Put sides that were read already side by side; see `compare`."""
    sides = _labelled(sides)
    first = _baseline(sides, None if baseline is None else str(baseline))
    sides = [sides[first], *sides[:first], *sides[first + 1 :]]
    names = [{name for point in side.points.values() for name in point} for side in sides]
    common = sorted(set.intersection(*names))
    chosen = _score(sides, score)
    found = Comparison(sides, chosen, common, _x(sides, common))
    _refuse_strangers(found)
    return found


def _refuse_too_few(studies: list[str]) -> None:
    if len(studies) > 1 or (studies and studies[0].startswith(PREFIX)):
        return
    given = f"given {studies[0]} only" if studies else "given no study"
    known = ", ".join(PREFIX + name for name in published.names())
    raise UserError(f"compare: {given}; name two studies or more (published ones: {known})")


def _place(study: Path | str, runs: Path) -> Path | str:
    """Return a study's directory, or the name of a published one."""
    if str(study).startswith(PREFIX):
        return str(study)
    path = Path(study)
    if path.is_file() and path.suffix == ".toml":
        path = runs / load_study(path).study.name
    if not path.is_dir():
        raise UserError(no_such_study(path, runs))
    if not (path / "journal.jsonl").is_file():
        raise JournalError(f"{path}: there is no journal.jsonl here; it is no study that was begun")
    return path


def _refuse_twice(places: Sequence[Path | str]) -> None:
    seen: dict[Any, Path | str] = {}
    for place in places:
        key = place if isinstance(place, str) else sha256(place / "journal.jsonl")
        if key in seen:
            other = seen[key]
            also = "" if str(other) == str(place) else f" as {other}"
            raise UserError(f"{place}: is the same study{also}; name each once")
        seen[key] = place


def _read(place: Path | str) -> Side:
    if isinstance(place, str):
        return from_published(published.load(place.removeprefix(PREFIX)))
    side = from_journal(
        Kept(journal.read(place / "journal.jsonl")), str(place), environment_of(place)
    )
    if side.configurations.empty:
        raise UserError(f"{place}: no fit is scored yet, so there is nothing to compare")
    return side


def _labelled(sides: Sequence[Side]) -> list[Side]:
    """Return the sides under labels that differ: names, else folders, else whole paths."""
    for label in (
        lambda side: side.label,
        lambda side: Path(side.source).name,
        lambda side: side.source,
    ):
        labels = [label(side) for side in sides]
        if len(set(labels)) == len(labels):
            return [replace(side, label=text) for side, text in zip(sides, labels, strict=True)]
    return [replace(side, label=f"{side.label} {n}") for n, side in enumerate(sides, 1)]


def _baseline(sides: Sequence[Side], asked: str | None) -> int:
    if asked is None:
        return 0
    for place, side in enumerate(sides):
        known = {side.label, side.source, Path(side.source).name}
        if asked in known or (not side.published and Path(asked) == Path(side.source)):
            return place
    labels = [side.label for side in sides]
    raise UserError(
        f"--baseline: given {asked!r}; must be one of the studies: {', '.join(labels)}"
        + nearest(asked, labels)
    )


def _score(sides: Sequence[Side], asked: str | None) -> str:
    had = [name for name in sides[0].score_names if all(name in s.score_names for s in sides)]
    if asked is not None:
        lacking = [side.label for side in sides if asked not in side.score_names]
        if not lacking:
            return asked
        allowed = f"all have {', '.join(had)}" if had else "they have no score in common"
        raise UserError(
            f"--metric: given {asked!r}, which {', '.join(lacking)} does not have; {allowed}"
            + nearest(asked, had)
        )
    metrics = {side.metric for side in sides}
    if len(metrics) == 1:
        return metrics.pop()
    ranked = ", ".join(f"{side.label} by {side.metric}" for side in sides)
    if not had:
        raise UserError(f"the studies are ranked by different scores ({ranked}) and share none")
    raise UserError(
        f"the studies are ranked by different scores ({ranked}); "
        f"name one that all have: --metric {' or '.join(had)}"
    )


def _values(side: Side, name: str) -> set[Any]:
    return {
        tuple(value) if isinstance(value, list) else value
        for value in (point.get(name) for point in side.points.values())
        if not isinstance(value, dict)
    }


def _x(sides: Sequence[Side], common: Sequence[str]) -> str:
    """Return what times are drawn against: numbers that vary and that studies have in common."""
    fit = []
    for name in common:
        values = [_values(side, name) for side in sides]
        numbers = all(type(v) in (int, float) for own in values for v in own)
        shared = all(values[0] & own for own in values[1:])
        if numbers and shared and any(len(own) > 1 for own in values):
            fit.append(name)
    return _FIRST_ON_X if _FIRST_ON_X in fit else fit[0] if fit else ""


def _refuse_strangers(found: Comparison) -> None:
    """Refuse a study that has nothing in common with the baseline.

    That is no configuration, and nothing on which its times depend.
    """
    base, scores = found.baseline, found.scores
    for side in found.sides[1:]:
        own = scores[scores["study"] == side.label]
        if found.x not in ("", "learning_rate") or pd.Series(own["shared"]).any():
            continue
        spaces = [
            ", ".join(sorted({name for point in one.points.values() for name in point})) or "none"
            for one in (base, side)
        ]
        why = (
            f"the same hyperparameters ({spaces[0]}), but no configuration with the same values"
            if spaces[0] == spaces[1]
            else f"{base.label} has {spaces[0]}; {side.label} has {spaces[1]}"
        )
        raise UserError(
            f"{base.label} and {side.label} share nothing that could be compared: {why}; "
            f"{COMPARABLE}"
        )
