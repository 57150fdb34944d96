"""What `status` says of the directory of a `SweepSearchCV`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def status(found: Any, driver: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a search has done so far.

    Parameters
    ----------
    found : Searched
        The search.
    driver : mapping or None
        The process that is at work on it (`stormsweep.study.lock.driver_of`); None: nobody is.
    """
    begun, table = found.begun, found.candidates
    yield f"SweepSearchCV of {begun.estimator}, strategy {begun.strategy}"
    if driver is not None:
        yield f"  running   process {driver['pid']} on {driver['host']}, seen {driver['seen']}"
    else:
        yield "  at rest   its script, run again, goes by what is on record"
    yield f"  candidates{len(table):>8,} proposed so far"
    yield f"  fits      {found.scored:>8,} of {found.proposed:,}, on {begun.splits} splits"
    if found.failed:
        yield f"  failed    {found.failed:>8,} fits; cv_results_ and its warnings say why"
    if found.unscored:
        yield f"  unscored  {found.unscored:>8,} fits, whose scorer failed; its warnings say why"
    by = found.ranked_by
    if not (table["splits"] == begun.splits).any():
        return
    if not by:
        yield "  best      of several scores refit names none to rank by"
    else:
        best = table.iloc[0]
        values = ", ".join(
            f"{name.removeprefix('param_')}={value}"
            for name, value in best.items()
            if name.startswith("param_") and isinstance(value, str)
        )
        yield f"  best      {best[by]:.4f} {by}: {values}"
