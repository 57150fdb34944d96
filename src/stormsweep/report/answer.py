"""The answer in sentences: what is best, how sure that is, what it cost."""

from __future__ import annotations

import math

from stormsweep import wording
from stormsweep.config.study import BOUNDS
from stormsweep.report import tested_words, words
from stormsweep.report.material import Material


def state(material: Material) -> str:
    """Say how far the study is."""
    look = material.summary
    runs = words.count(look.runs_planned, "run")
    failed = f", {look.runs_failed} failed" if look.runs_failed else ""
    if look.finished:
        return f"Finished: {look.runs_finished} of {runs} done{failed}."
    return (
        f"Not finished: {look.runs_finished} of {runs} done{failed}; {look.fits_scored} of "
        f"{words.count(look.fits_planned, 'fit')} scored. Everything below is as of now."
    )


def headline(material: Material) -> str:
    """Name the best configuration in words."""
    best = material.summary.best
    if best is None:
        return "No configuration has a score yet."
    names = [name for name in material.columns if name in best.hyperparameters]
    varied = [name for name in names if name in material.varied] or names
    return words.capital(words.point(best.hyperparameters, varied))


def fixed(material: Material) -> str:
    """Name the hyperparameters that the study did not vary."""
    best = material.summary.best
    if best is None or not material.varied:
        return ""
    names = [name for name in material.columns if name in best.hyperparameters]
    names = [name for name in names if name not in material.varied]
    return words.point(best.hyperparameters, names) if names else ""


def score_line(material: Material) -> tuple[str, str]:
    """Return the best score and its interval, as text."""
    best = material.summary.best
    if best is None:
        return "", ""
    folds = wording.folds(best.folds, best.rounds, times=words.TIMES)
    if not math.isfinite(best.low):
        return words.score(best.mean), f"{folds}: too few for an interval"
    low, high = words.score(best.low), words.score(best.high)
    return words.score(best.mean), f"95 % interval {low} to {high}, over {folds}"


def how_sure(material: Material) -> list[str]:
    """Say what the interval can say, what it cannot, and what else may be as good."""
    best = material.summary.best
    if best is None:
        return []
    texts = []
    if not best.complete:
        texts.append(
            f"No configuration is scored on all its folds yet; this is the best so far, on "
            f"{best.folds} of {best.folds_expected}."
        )
    if math.isfinite(best.low):
        folds = wording.folds(best.folds, best.rounds, "validation fold", words.TIMES)
        text = (
            f"The interval is a t-interval of the mean over {folds}. It says "
            "how much the score depends on which of these cases validate. The folds share most of "
            "their training cases, so it is rather too narrow; and the configuration was chosen "
            "because its score is high, so the score itself is flattered."
        )
        if best.rounds > 1:
            text += (
                " Each round validates the same cases again: the scatter is better known by it, "
                "but the interval counts the folds of one round only."
            )
        low, high = BOUNDS[material.metric]
        if best.low <= low or best.high >= high:
            text += (
                " It is cut at the values that this score can have: with so few folds the spread "
                "is poorly known."
            )
        texts.append(text)
    texts.append(_rivals(material))
    test = material.study.data.get("test")
    if material.tested is not None:
        texts.append(tested_words.summary_line(material))
    elif test:
        texts.append(
            f"The {words.count(int(test), 'test case')} were not looked at by the search; only "
            "they can tell what the score is worth on cases that took no part in the choice."
        )
    else:
        texts.append("No cases were kept apart as a test set.")
    return [text for text in texts if text]


def _rivals(material: Material) -> str:
    table, best = material.contest, material.summary.best
    if best is None or not best.complete:
        return ""
    if len(table) < 2:
        return "There is no other complete configuration to compare it with."
    others = table.iloc[1:]
    alike, count = int(others["contender"].sum()), len(others)
    many = words.count(count, "other configuration")
    if count == 1:
        start = f"The only other configuration {'cannot' if alike else 'can'}"
    elif alike in (0, count):
        start = f"{'None of the' if alike else 'All'} {many} can"
    else:
        start = f"Of the {many}, {words.number(alike)} cannot"
    text = (
        f"{start} be told apart from it: the difference of the scores, paired fold by fold, "
        "corrected for overlapping training sets and for the number of comparisons."
    )
    if not alike:
        return text
    cheapest = table[table["cheapest"]].iloc[0]
    if cheapest["configuration"] == best.configuration:
        return f"{text} The best is also the cheapest of them."
    return f"{text} The cheapest of them is {material.in_words(str(cheapest['configuration']))}."


def no_skill(material: Material) -> str:
    """Say why the best configuration's probabilities have no skill, where that is known."""
    best = material.summary.best
    if best is None or "brier_skill_score" not in best.scores:
        return ""
    return material.why_no_skill(best.scores["brier_skill_score"][0])


def costs(material: Material) -> list[tuple[str, str, str]]:
    """Return what the study cost: what, how much, and a remark."""
    look, account = material.summary, material.account
    sessions = words.count(look.sessions, "session")
    granted = words.number(account.core_hours_granted, 2)
    rows = [
        ("Wall time", words.duration(look.wall_seconds), f"{sessions}, pauses left out"),
        (
            "Core-hours used",
            words.number(account.core_hours_used, 2),
            f"time in tasks {words.TIMES} threads; {granted} granted, workers busy "
            f"{words.percent(account.utilisation)} of the time that they were there",
        ),
        (
            "Epochs trained",
            words.number(look.epochs_trained),
            _saving(material),
        ),
        (
            "Speed",
            f"{words.number(look.patches_per_second)} {material.cases}/s",
            f"all workers together, over the whole wall time; {words.number(look.fits_per_hour)} "
            "fits an hour",
        ),
    ]
    if account.gpu_hours_granted:
        used = words.number(account.gpu_hours_used, 2)
        gpus = f"{words.number(account.gpu_hours_granted, 2)} granted"
        rows.insert(2, ("GPU-hours used", used, gpus))
    if account.cost is not None:
        rows.append(("Price", words.number(account.cost, 2), account.price_basis))
    if look.retries:
        rows.append(
            (
                "Repeated tasks",
                words.number(look.retries),
                "lost with a worker, or tried on another node or GPU",
            )
        )
    return rows


def _saving(material: Material) -> str:
    look = material.summary
    fits = words.count(look.fits_scored, "fit")
    if look.epochs_separate <= look.epochs_trained:
        return f"for {fits}"
    saved = 1 - look.epochs_trained / look.epochs_separate
    return (
        f"{fits} trained separately would have needed {words.number(look.epochs_separate)}; runs "
        f"shared between numbers of epochs saved {words.percent(saved)}"
    )
