"""What the page says of a study's data, sessions and environment, as rows of text."""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from typing import Any

from stormsweep import wording
from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell

MOST_FAILURES = 50


def sessions(material: Material) -> list[list[str]]:
    """Return one row a session of the driver."""
    rows = []
    for row in material.sessions.to_dict("records"):
        held = row["workers"] * row["seconds"]
        layout = f"{row['workers']} {words.TIMES} {words.count(row['threads'], 'thread')}"
        rows.append(
            [
                str(row["session"]),
                instant(row["begun"]),
                Cell(words.duration(row["seconds"]), row["seconds"]),
                f"{row['host']} ({row['site']})",
                layout,
                str(row["tasks"]),
                words.percent(row["busy_seconds"] / held if held > 0 else math.nan),
                {"open": "no end on record"}.get(row["outcome"], row["outcome"]),
            ]
        )
    return rows


def failures(material: Material) -> list[dict[str, str]]:
    """Return the first failures: what failed, where, why, and when."""
    shown = []
    for row in material.failures.head(MOST_FAILURES).to_dict("records"):
        names = {n: c for n, c in material.columns.items() if n != "epochs" and c in row}
        varied = {n: row[c] for n, c in names.items() if n in material.varied} or {
            n: row[c] for n, c in names.items()
        }
        shown.append(
            {
                "what": words.capital(words.point(varied)) or row["run"],
                "run": row["run"],
                "where": f"fold {row['fold'] + 1}, epochs {row['from_epoch']} to {row['to_epoch']}",
                "failure": row["failure"] + (", got through later" if row["recovered"] else ""),
                "reason": row["reason"],
                "detail": row["detail"],
                "worker": row["worker"],
                "time": instant(row["time"]),
            }
        )
    return shown


def data(material: Material) -> list[tuple[str, str]]:
    """Return what the cases are and how they were split."""
    data = material.study.data
    rows: list[tuple[str, str]] = []

    def add(name: str, text: str) -> None:
        if text:
            rows.append((name, text))

    kind = "synthetic" if data.get("synthetic") else "not synthetic"
    add("Source", f"{data.get('source', '')} ({kind})" if data.get("source") else kind)
    inputs = data.get("inputs") or []
    shown = [str(name) for name in inputs[:12]]
    more = f" and {len(inputs) - 12} more" if len(inputs) > 12 else ""
    add("Inputs", ", ".join(shown) + more)
    target = words.value(data.get("target"))
    threshold, units = data.get("threshold"), words.units(str(data.get("units") or ""))
    if threshold is not None:
        target += f", an event beyond {words.value(threshold)} {units}".rstrip()
    add("Target", "" if target == words.NOTHING else target)
    for part in ("train", "test"):
        cases, events = data.get(part), data.get(f"{part}_positives")
        if cases is None:
            continue
        text = words.count(int(cases), "case")
        if events is not None and cases:
            share = words.percent(events / cases, 1)
            text += f", {words.count(int(events), 'event')} (frequency {share})"
        add({"train": "For the search", "test": _test_set(material)}[part], text)
    add("Split off as test set", _split(material.study_file))
    add("Cross-validation", _folds_in_words(material))
    add("Fingerprint", str(data.get("fingerprint", ""))[:16])
    return rows


def _test_set(material: Material) -> str:
    if material.tested is None:
        return "Test set, scored by an audit" if material.test_audited else "Test set, untouched"
    look = material.tested.record.look
    return f"Test set, scored {'once' if look == 1 else f'{look} times'}"


def _folds_in_words(material: Material) -> str:
    """Say how the folds were made, and what that keeps apart."""
    study = material.study
    by, groups = study.group_by, study.data.get("groups")
    split = study.split or ("stratified" if by == "none" else "grouped")
    how = {
        "stratified": "stratified by event",
        "k-fold": "cases at random",
        "consecutive": "cases as they stand in the files",
        "chronological": f"earlier {words.label(by)}s train, the next ones validate",
        "stratified-grouped": f"stratified by event, grouped by {words.label(by)}",
    }.get(split, f"grouped by {words.label(by)}")
    if by != "none":
        how += ": none is in training and validation at once"
        how += f" ({words.number(groups)} groups)" if isinstance(groups, int) else ""
    again = "" if study.rounds == 1 else ", split anew in each round"
    return f"{wording.folds(study.folds, study.rounds, times=words.TIMES)}, {how}{again}"


def _split(study_file: str) -> str:
    try:
        table = tomllib.loads(study_file).get("data", {})
    except tomllib.TOMLDecodeError:
        return ""
    if table.get("test_from"):
        return f"cases of {table['test_from']} and later"
    if table.get("test_fraction"):
        return f"{words.percent(float(table['test_fraction']))} of the cases"
    return ""


def folds(material: Material) -> list[list[str]]:
    """Return one row a fold: its cases, their events, its groups."""
    rows = []
    for number, sizes in enumerate(material.study.fold_sizes, start=1):
        cells = [str(number)]
        for part in ("train", "validation"):
            cases, events = sizes.get(part), sizes.get(f"{part}_positives")
            cells.append(words.NOTHING if cases is None else words.number(cases))
            share = events / cases if cases and events is not None else math.nan
            cells.append(words.percent(share, 1))
        for key in ("epoch_patches", "groups"):
            value = sizes.get(key)
            cells.append(words.NOTHING if value is None else words.number(value))
        rows.append(cells)
    return rows


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested facts as rows of name and text."""
    if isinstance(value, dict):
        return [
            row
            for key, item in value.items()
            for row in flat(item, f"{name}: {words.label(str(key))}" if name else _title(str(key)))
        ]
    if isinstance(value, list):
        if any(isinstance(item, dict | list) for item in value):
            return [row for n, item in enumerate(value, 1) for row in flat(item, f"{name} {n}")]
        value = ", ".join(map(words.value, value))
    text = words.value(value)
    return [(name, text)] if text and text != words.NOTHING else []


def _title(key: str) -> str:
    return words.capital(words.label(key))


def instant(seconds: float) -> str:
    """Return an instant as a date and time in UTC."""
    if not math.isfinite(seconds):
        return words.NOTHING
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M} UTC"
