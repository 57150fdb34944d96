"""How far behind the grid's best strategies end, against what they trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

MARKS = {"ASHA": ("o", "C0"), "halving": ("s", "C1"), "Hyperband": ("D", "C2")}


def draw(found: Mapping[str, Any], curves: Mapping[str, Sequence[Sequence[float]]]) -> Any:
    """Draw one panel a grid.

    Parameters
    ----------
    found : mapping
        What the table is made of.
    curves : mapping
        For each grid how far behind random search is, orders x trials, after 1, 2, ... trials.
    """
    grids = found["grids"]
    figure, axes = plt.subplots(
        1, len(grids), figsize=(3.4 * len(grids) + 1, 3.4), squeeze=False, sharey=True
    )
    for axis, (seed, one) in zip(axes[0], grids.items(), strict=True):
        behind = np.array(curves[seed])
        share = np.arange(1, behind.shape[1] + 1) / behind.shape[1]
        low, middle, high = np.quantile(behind, (0.1, 0.5, 0.9), axis=0)
        axis.fill_between(share, low, high, color="0.88", step="post")
        axis.step(share, middle, color="0.5", where="post", label="random search, 8 of 10")
        axis.axhline(one["grid"]["fold_noise"], color="k", lw=0.8, ls=":")
        axis.axvline(0.25, color="k", lw=0.8, ls="--")
        for row in one["rows"]:
            name, *rest = row["name"].split(", ")
            if name not in MARKS or rest not in ([], ["one fold first"]):
                continue
            mark, colour = MARKS[name]
            filled = colour if not rest else "white"
            low, middle, high = row["regret"][:3]
            axis.errorbar(
                row["training_share"],
                middle,
                [[middle - low], [high - middle]],
                marker=mark,
                color=colour,
                mfc=filled,
                capsize=2,
                ls="",
                label=row["name"],
            )
        axis.set(title=f"grid of seed {seed}", xscale="log", xlim=(0.02, 1.05))
        ticks = [0.02, 0.05, 0.1, 0.25, 1]
        axis.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel("training, of the grid's epochs")
    axes[0][0].set_ylabel("ROC AUC behind the grid's best")
    axes[0][0].set_ylim(-0.002)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def write(
    found: Mapping[str, Any], curves: Mapping[str, Sequence[Sequence[float]]], path: Path
) -> None:
    """Draw and save; see `draw`."""
    with plt.rc_context({"figure.constrained_layout.use": True, "font.size": 9}):
        figure = draw(found, curves)
        figure.savefig(path, dpi=130)
        plt.close(figure)
