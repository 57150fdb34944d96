"""What dropping trials early would have saved, and missed: of a study that trained everything."""

from __future__ import annotations

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell, Table


def hindsight_words(material: Material) -> list[str]:
    """Say what it comes to; nothing where the study does not tell."""
    found = material.hindsight
    if found is None:
        return []
    if found.reached_best == 1:
        end = "the best in all of them"
    else:
        end = (
            f"the best in {words.percent(found.reached_best)} of them, what is within its fold "
            f"noise of {words.score(found.fold_noise)} in {words.percent(found.within_noise)}, and "
            f"at most {words.score(found.most_behind)} behind"
        )
    return [
        "Would it have done to drop configurations early? Replayed on these scores, with "
        f"{words.count(found.workers, 'worker')} and in {words.count(found.orders, 'order')}, "
        f"asha (one of {found.reduction} goes on from each number of epochs) trains "
        f"{words.percent(found.training)} of the epochs, in {words.percent(found.seconds)} of the "
        f"time of training, and finds {end}."
    ]


def hindsight_table(material: Material) -> Table | None:
    """Return who would have been dropped, by number of epochs; None where that is not known."""
    found = material.hindsight
    if found is None:
        return None
    rows: list[list[str]] = [
        [
            str(int(row["epochs"])),
            *(
                Cell(words.number(row[name], 1), row[name])
                for name in ("trials", "kept", "dropped_falsely", "beyond_noise")
            ),
            Cell(words.percent(row["best_dropped"]), row["best_dropped"]),
        ]
        for row in found.rungs.to_dict("records")
    ]
    header = ["After epochs", "Configurations", "Go on", "Dropped falsely"]
    header += ["By more than fold noise", "The best dropped in"]
    return Table(
        "hindsight",
        "What dropping early would have missed",
        header,
        rows,
        f"Means over {words.count(found.orders, 'order')} in which asha begins the configurations. "
        "Dropped falsely: better after all epochs than one that goes on. The best: after all "
        "epochs, of those that it was chosen among; what scored best of all at fewer epochs is "
        "found where it is dropped, too. That many are dropped falsely does little harm while one "
        "of those that go on is as good as the best.",
        frame=found.rungs,
    )
