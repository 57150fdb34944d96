"""The test part in words and tables: scores with their intervals, thresholds, groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from stormsweep.records import Verified
from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.tested import Tested
from stormsweep.verification.forecasts import CASE
from stormsweep.verification.groups import SCORES as GROUP_SCORES
from stormsweep.verification.scores import BRIER_PARTS, DECISION_SCORES, PROBABILITY_SCORES

#: Names and meanings of the test scores, as tables call them.
LABELS = {
    "roc_auc": ("ROC AUC", "0.5 without skill, 1 perfect"),
    "average_precision": ("Average precision", "event frequency without skill, 1 perfect"),
    "brier_score": ("Brier score", "mean squared error of the probability, 0 perfect"),
    "brier_skill_score": (
        "Brier skill score",
        "against the event frequency of the training part; 0 is no better, 1 perfect",
    ),
    "log_loss": ("Cross-entropy", "lower is better"),
    "reliability": ("Reliability", "how far forecasts are from frequencies, 0 perfect"),
    "resolution": ("Resolution", "how far frequencies are from their mean, higher is better"),
    "uncertainty": ("Uncertainty", "of the event itself; no forecast changes it"),
    "within_bin_variance": ("Variance within bins", "of forecasts that share a bin"),
    "within_bin_covariance": ("Covariance within bins", "of forecasts and events in a bin"),
    "csi": ("Critical success index", "hits of hits, misses and false alarms; 1 perfect"),
    "pod": ("Probability of detection", "of the events, 1 perfect"),
    "far": ("False alarm ratio", "of the forecasts of the event, 0 perfect"),
    "pofd": ("Probability of false detection", "of the non-events, 0 perfect"),
    "hss": ("Heidke skill score", "0 as good as chance, 1 perfect"),
    "peirce": ("Peirce skill score", "detection less false detection; 0 no skill, 1 perfect"),
    "bias": ("Frequency bias", "events forecast by events that happened, 1 perfect"),
}
_SHORT = {"roc_auc": "ROC AUC", "brier_skill_score": "BSS"}
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Of the probabilities", PROBABILITY_SCORES),
    ("Parts of the Brier score", BRIER_PARTS),
    ("Of the yes-or-no forecast", DECISION_SCORES),
)


def score_rows(found: Tested) -> dict[str, list[list[str]]]:
    """Return the scores by what they are of: name, value, interval, meaning."""
    return {
        heading: [
            [
                LABELS[name][0],
                words.score(found.record.scores[name][0]),
                interval(found.record.scores[name]),
                LABELS[name][1],
            ]
            for name in names
        ]
        for heading, names in PARTS
    }


def interval(score: Sequence[float]) -> str:
    """Return the interval of a score as text, or a dash."""
    _, low, high = score
    if not math.isfinite(low):
        return words.NOTHING
    return f"{words.score(low)} to {words.score(high)}"


def summary_line(material: Material) -> str:
    """Say in one sentence what the test part said; empty before it was scored."""
    found = material.tested
    if found is None:
        return ""
    record = found.record
    score = record.scores["roc_auc"]
    text = (
        f"On the {words.count(record.cases, 'test case')}, which took no part in the search or in "
        f"training, it has a ROC AUC of {words.score(score[0])}"
    )
    if math.isfinite(score[1]):
        text += f" ({words.percent(record.level)} interval {interval(score)})"
    return text + ": see the verification below."


def remarks(material: Material, found: Tested) -> list[str]:
    """Say what was done, how sure the scores are, and what weakens them."""
    record = found.record
    texts = [
        f"The configuration {words.point(record.hyperparameters)} was trained once more, on the "
        "whole training part, and scored on the test part: "
        f"{words.count(record.cases, 'case')} with {words.count(record.events, 'event')}, in their "
        "natural balance."
    ]
    block = words.label(record.block)
    if not math.isfinite(record.scores["brier_score"][1]):
        texts.append(
            f"There are no intervals: {words.count(record.blocks, block)} are too few to resample."
        )
    elif record.block == CASE:
        texts.append(
            f"Intervals: {words.percent(record.level)} percentile intervals from "
            f"{words.number(record.resamples)} resamples of single cases. The data name no groups, "
            "so cases are taken for independent; where they are not, the intervals are too narrow."
        )
    else:
        texts.append(
            f"Intervals: {words.percent(record.level)} percentile intervals from "
            f"{words.number(record.resamples)} resamples of whole {block}s "
            f"({words.number(record.blocks)} of them), because cases of one are alike."
        )
    skill = record.scores["brier_skill_score"][0]
    if why := material.why_no_skill(skill, on_test=True):
        texts.append(why)
    texts.append(_decision(record))
    if found.audited:
        texts.append("An audit of this study has scored the test part too, under every protocol.")
    if not record.finished:
        texts.append("The study was not finished then: this was the best configuration so far.")
    if found.predictions is None:
        texts.append(
            "The predictions in model/ are missing or not those of this look, so only what the "
            "journal has is shown."
        )
    if material.summary.best is not None:
        best = material.summary.best.configuration
        if best != record.configuration:
            texts.append("By now another configuration is the best of the search.")
    return texts


def _decision(record: Verified) -> str:
    text = f"The event counts as forecast from a probability of {words.number(record.threshold, 3)}"
    if not record.threshold_folds:
        return f"{text} on; the journal does not say where that threshold comes from."
    having, folds = record.threshold_folds
    if not having:
        return (
            f"{text} on. Nothing chose that threshold: no fold of the cross-validation has cases "
            "of both classes."
        )
    of = (
        "the folds"
        if having == folds
        else f"the {having} of {folds} folds with cases of both classes"
    )
    return (
        f"{text} on: the mean over {of} of the threshold with the best critical success index, so "
        "the test part had no say in it."
    )


def warning(found: Tested) -> str:
    """Say that the test part was looked at more than once; empty if it was not."""
    if found.record.look < 2:
        return ""
    return (
        f"The test set has been looked at {found.record.look} times: its score is no longer that "
        "of unseen data."
    )


def threshold_rows(found: Tested) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the yes-or-no scores over thresholds."""
    header = ["Threshold", "POD", "FAR", "POFD", "CSI", "Heidke", "Peirce", "Bias"]
    names = ["pod", "far", "pofd", "csi", "hss", "peirce", "bias"]
    rows = []
    for row in found.by_threshold.to_dict("records"):
        chosen = row["threshold"] == found.record.threshold
        first = words.number(row["threshold"], 3 if chosen else 2)
        cells = [words.number(row[name], 3) for name in names]
        rows.append([f"{first} (decision)" if chosen else first, *cells])
    return header, rows


def group_rows(found: Tested) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the scores by group."""
    single = found.record.block == CASE
    header = ["Group", "Cases", "Events"]
    header += [] if single else [words.capital(words.label(found.record.block)) + "s"]
    header += [_SHORT.get(name, name.upper()) for name in GROUP_SCORES] + ["Remark"]
    rows = []
    for name, groups in found.groups.items():
        for group in groups:
            counts = [group.cases, group.events, *([] if single else [group.blocks])]
            cells = [f"{words.capital(words.label(name))} {words.short(group.label, 40)}"]
            cells += [words.number(count) for count in counts]
            for score in GROUP_SCORES:
                own = group.scores.get(score)
                cells.append(words.NOTHING if own is None else words.number(own.value, 3))
            rows.append([*cells, group.remark])
    return header, rows


def frames(found: Tested) -> dict[str, pd.DataFrame]:
    """Return the tables of the test part, for CSV: scores, thresholds, groups."""
    record = found.record
    scores = pd.DataFrame(
        [[name, *values] for name, values in record.scores.items()],
        columns=["score", "value", "low", "high"],
    ).assign(look=record.look, cases=record.cases, events=record.events)
    tables = {"verification-scores": scores, "verification-thresholds": found.by_threshold}
    groups = group_frame(found, list(found.groups))
    if len(groups):
        tables["verification-groups"] = groups
    return {name: frame for name, frame in tables.items() if len(frame)}


def group_frame(found: Tested, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a group of these groupings: its cases, events, scores and intervals."""
    groups = [
        {
            "grouping": name,
            "group": group.label,
            "cases": group.cases,
            "events": group.events,
            "blocks": group.blocks,
            "remark": group.remark,
        }
        | {
            key: value
            for score, own in group.scores.items()
            for key, value in (
                (score, own.value),
                (f"{score}_low", own.low),
                (f"{score}_high", own.high),
            )
        }
        for name in names
        for group in found.groups[name]
    ]
    return pd.DataFrame(groups)
