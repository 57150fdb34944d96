"""What mattered, as `results --what importance` and `--what contenders` say it in a terminal."""

from __future__ import annotations

from typing import Any


def importance(frame: Any) -> str:
    """Return the effects as a table, and beneath it where they come from."""
    shown = frame[["effect", "share", "low", "high", "noise"]].copy()
    for name in ("share", "low", "high", "noise"):
        shown[name] = ["" if value != value else f"{100 * value:.1f} %" for value in frame[name]]
    known = ["" if beyond else "not distinguishable from noise" for beyond in frame["beyond_noise"]]
    facts = frame.attrs
    text = str(shown.assign(remark=known).to_string(index=False)) + "\n"
    of = f"{facts['configurations']:,} of {facts['planned']:,} configurations"
    if facts["method"] == "grid":
        text += f"exact, of {of}, a whole grid, on {facts['folds']} folds\n"
    else:
        text += (
            f"by a forest from {of} on {facts['folds']} folds; of configurations it has not seen "
            f"it foretells {100 * max(facts['fit'], 0.0):.0f} % of the variance\n"
        )
        if facts["filled"]:
            text += (
                f"{facts['filled']:,} scores of trials that were stopped early are filled in with "
                "what others gained\n"
            )
    noise = 100 * facts["fold_noise"]
    return text + f"chance of the folds is {noise:.1f} % of the variance of the mean scores\n"


def contenders(frame: Any, metric: str) -> str:
    """Return the configurations that cannot be told from the best as a table."""
    hidden = ("configuration", "p", "contender", "cheapest")
    shown = frame[[name for name in frame.columns if name not in hidden]]
    shown = shown.assign(remark=["cheapest" if one else "" for one in frame["cheapest"]])
    text = str(shown.to_string(index=False, float_format=lambda x: f"{x:.4g}")) + "\n"
    if len(frame) == 1:
        return text + f"all others differ from the best in {metric}, all comparisons counted\n"
    return text + (
        f"cannot be told from the best in {metric}: paired over folds, corrected for overlapping "
        "training sets\nand for the number of comparisons (p_adjusted); low and high are of each "
        "by itself\n"
    )
