"""A comparison in sentences and in the rows of its tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from stormsweep import wording
from stormsweep.report import words
from stormsweep.report.parts import Cell
from stormsweep.scaling.comparison import COMPARABLE, Comparison

#: So many rows stand on the page; the CSV has all.
MOST_DIFFERENCES, MOST_SCORES = 60, 200


def answer(found: Comparison) -> list[str]:
    """Return what came of the comparison, in sentences."""
    rows: Any = _whole(found.speedups).to_dict("records")
    speed = [_speed(row, found.cases) for row in rows]
    compared = {found.lines[0].name, *(row["line"] for row in rows)} if found.lines else set()
    speed += [
        f"{line.name} and {found.lines[0].name} have no fits in common whose times are known, so "
        "there is no speed-up."
        for line in found.lines
        if line.name not in compared
    ]
    rows = found.overall.to_dict("records")
    score = [_score(found, row) for row in rows]
    if not all(row["configurations"] for row in rows):
        score.append(f"{words.capital(COMPARABLE)}.")
    return [text for text in [*speed, *_cost(found), *score] if text]


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each line the row of most fits: of all that are shared."""
    node = table[table["measure"] == "node time"]
    return node.loc[node.groupby("line", sort=False)["fits"].idxmax()] if len(node) else node


def _speed(row: dict[str, Any], cases: str) -> str:
    fits = f"the {words.count(row['fits'], 'fit')} that both did"
    who = f"a node of {row['line']}"
    times = f"({words.duration(row['seconds'])} against {words.duration(row['baseline_seconds'])})"
    if not row["remark"]:
        factor = f"{words.number(row['speedup'], 2)} times as fast as one of {row['against']}"
        return f"For {fits}, {who} was {factor} {times}."
    text = f"{row['line']} and {row['against']} did not do the same work ({row['remark']})"
    if math.isfinite(row["rate_ratio"]):
        factor = f"{words.number(row['rate_ratio'], 2)} times as fast"
        text += f": by the {cases} that {fits} ask for, {who} was {factor}"
    return text + "."


def _cost(found: Comparison) -> list[str]:
    table = found.costs
    known = table[table["core_seconds_per_shared_fit"] > 0]
    if len(known) < 2 or any(found.speedups["remark"] != ""):
        return []
    parts = [
        f"{words.duration(row['core_seconds_per_shared_fit'])} on {row['line']}"
        for row in known.to_dict("records")
    ]
    fits = words.count(int(known["shared_fits"].iloc[0]), "fit")
    return [f"One fit cost, in core time over the {fits} that all did: {'; '.join(parts)}."]


def _score(found: Comparison, row: dict[str, Any]) -> str:
    base, label = found.baseline.label, words.score_label(found.score)
    if not row["configurations"]:
        return f"{row['study']} and {base} have no configuration in common: no scores to compare."
    gap = row["difference"]
    shared = words.count(row["configurations"], "shared configuration")
    text = f"{words.capital(label)}: over {shared}, {row['study']} is on average "
    text += f"{words.score(abs(gap))} {'better' if gap >= 0 else 'worse'} than {base}"
    if row["pairing"] == "means only":
        text += (
            "; whether that is more than noise cannot be said of the average, because single folds "
            "were not published"
        )
    elif not math.isfinite(row["low"]):
        text += "; one fold says nothing of noise"
    else:
        how = "paired fold by fold" if row["pairing"] == "paired" else "not paired: other folds"
        zero = row["low"] <= 0 <= row["high"]
        text += (
            f" (95 % interval {words.score(row['low'])} to {words.score(row['high'])}, {how}): "
            f"{'within' if zero else 'beyond'} noise"
        )
    count = row["better"] + row["worse"]
    if math.isfinite(row["low"]) or row["pairing"] == "means only":
        text += (
            f". Of them one by one, {_how_many(row['better'])} better and "
            f"{_how_many(row['worse'])} worse beyond noise"
            if count
            else ". None of them one by one is beyond noise"
        )
    return text + "."


def _how_many(count: int) -> str:
    return f"{words.number(count)} {'is' if count == 1 else 'are'}"


def speedup_rows(found: Comparison) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of columns of text of the table of speed-ups."""
    table = found.speedups
    name = [words.capital(words.label(found.x))] if found.x else []
    ratios = any(table["remark"] != "") if len(table) else False
    header = ["Study", "Measure"] + (["Not the same work"] if ratios else [])
    text = len(header)
    header += [*name, "Fits", "Baseline", "Time", "Speed-up", "Core time ratio"]
    header += ["Ratio of speeds"] if ratios else []
    rows = []
    for row in table.to_dict("records"):
        cells = [row["line"], row["measure"]]
        cells += [row["remark"]] if ratios else []
        if found.x:
            everything = pd.isna(row[found.x])
            cells.append("all" if everything else words.value(_whole_number(row[found.x])))
        cells += [words.number(row["fits"])]
        cells += [_duration(row["baseline_seconds"]), _duration(row["seconds"])]
        cells += [words.number(row["speedup"], 2), words.number(row["core_ratio"], 2)]
        cells += [words.number(row["rate_ratio"], 2)] if ratios else []
        rows.append(cells)
    return header, rows, text


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _duration(seconds: float) -> str:
    return Cell(words.duration(seconds), seconds)


def cost_rows(found: Comparison) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of columns of text of the table of costs."""
    table = found.costs
    priced = bool(table["money"].notna().any())
    gpus = bool((table["gpu_hours"] > 0).any())
    header = ["Study", "Fits", "Core time per fit", "Shared fits", "Per shared fit"]
    header += ["Core-hours granted", "Granted per fit"]
    header += ["GPU-hours granted"] if gpus else []
    header += ["Cost", "Cost per fit"] if priced else []
    rows = []
    for row in table.to_dict("records"):
        cells = [row["line"], words.number(row["fits"])]
        cells += [_duration(row["core_seconds_per_fit"]), words.number(row["shared_fits"])]
        cells += [_duration(row["core_seconds_per_shared_fit"])]
        cells += [words.number(row["granted_core_hours"], 2)]
        cells += [_duration(row["granted_core_seconds_per_fit"])]
        cells += [words.number(row["gpu_hours"], 2)] if gpus else []
        if priced:
            cells += [words.number(row["money"], 2), words.number(row["money_per_fit"], 4)]
        rows.append(cells)
    return header, rows, 1


def difference_rows(
    found: Comparison, most: int | None = None
) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of columns of text of the table of differences."""
    table = found.differences if most is None else found.differences.head(most)
    names = [*found.common, "epochs"]
    many = len(found.sides) > 2
    header = [*(["Study"] if many else []), "Beyond noise", "Pairing"]
    text = len(header)
    header += [words.capital(words.label(name)) for name in names]
    header += [found.baseline.label, "Other" if many else found.sides[-1].label]
    header += ["Better by", "95 % interval", "p", "p, all at once"]
    rows = []
    for row in table.to_dict("records"):
        cells = [row["study"]] if many else []
        cells += ["yes" if row["beyond"] else "no", row["pairing"]]
        cells += [words.short(words.value(row[name]), 32) for name in names]
        cells += [words.score(row[name]) for name in ("baseline", "mean", "difference")]
        known = math.isfinite(row["low"])
        interval = f"{words.score(row['low'])} to {words.score(row['high'])}"
        cells.append(Cell(interval if known else words.NOTHING, row["low"]))
        cells += [words.number(row["p"], 3), words.number(row["p_all"], 3)]
        rows.append(cells)
    return header, rows, text


def score_rows(found: Comparison) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of columns of text (none) of the scores side by side."""
    names, studies = [*found.common, "epochs"], [side.label for side in found.sides]
    header = [words.capital(words.label(name)) for name in names] + studies
    keyed: dict[tuple[str, int], dict[str, Any]] = {}
    for row in found.scores.to_dict("records"):
        own = keyed.setdefault((row["point"], int(row["epochs"])), {n: row[n] for n in names})
        text = f"{words.score(row['mean'])} ({words.score(row['sd'])})"
        own[f"study {row['study']}"] = Cell(text, row["mean"])
    rows = [
        [words.short(words.value(own[name]), 32) for name in names]
        + [own.get(f"study {study}", Cell(words.NOTHING, math.nan)) for study in studies]
        for own in sorted(keyed.values(), key=lambda own: [_order(own[name]) for name in names])
    ]
    return header, rows, 0


def _order(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return (0, float(value), "") if number else (1, 0.0, words.value(value))


def place_rows(found: Comparison) -> tuple[list[str], list[list[str]], int]:
    """Return header, rows and the number of columns of text of what the studies ran on."""
    header = ["Study", "Site", "Processor", "Nodes", "Workers on a node", "Threads of each"]
    rows = [
        [str(row["line"]), str(row["site"]), str(row["processor"]) or words.NOTHING]
        + [words.number(row[name]) for name in ("nodes", "workers_per_node", "threads")]
        + [_duration(row["wall_seconds"])]
        for row in found.places.to_dict("records")
    ]
    return [*header, "Wall time"], rows, 3


def studies(found: Comparison) -> list[tuple[str, str]]:
    """Return what each study is: its label, and where it is from, its data, folds and metric."""
    return [
        (
            side.label,
            "; ".join(
                part
                for part in (
                    side.source,
                    f"data: {side.data}{' (synthetic)' if side.synthetic else ''}",
                    wording.folds(side.folds, side.rounds, times=words.TIMES),
                    f"ranked by {words.score_label(side.metric)}",
                )
                if part
            ),
        )
        for side in found.sides
    ]


def remarks(found: Comparison) -> list[str]:
    """Return what else is to be known of the studies."""
    texts = []
    for side in found.sides:
        texts += [f"{side.label}: {text}" for text in side.remarks]
    for side in found.sides:
        own = {name for point in side.points.values() for name in point} - set(found.common)
        if own:
            names = ", ".join(sorted(own))
            texts.append(f"{side.label} also has {names}, which not all have: not compared.")
    return texts
