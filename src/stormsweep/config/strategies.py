"""The names of strategies; what they do is in `stormsweep.search.strategies`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Each with the module that makes it.
BUILT_IN = {
    "grid": "fixed",
    "random": "fixed",
    "sobol": "fixed",
    "tpe": "sampled",
    "cma-es": "sampled",
    "gp": "sampled",
    "nsga2": "sampled",
    "halving": "halving",
    "hyperband": "halving",
    "asha": "halving",
}
#: All their proposals are known before any outcome is.
KNOWN_AHEAD = ("grid", "random", "sobol")
#: They learn from scores where to look next.
LEARNING = tuple(name for name, module in BUILT_IN.items() if module == "sampled")
#: They go on with the best trials, from milestone to milestone.
HALVING = ("halving", "hyperband", "asha")
#: Entry points of plug-ins.
GROUP = "stormsweep.strategies"


def plugins() -> dict[str, EntryPoint]:
    """Return the strategies of other packages, by name."""
    from importlib.metadata import entry_points  # Slow to import, and seldom needed.

    return {point.name: point for point in entry_points(group=GROUP)}
