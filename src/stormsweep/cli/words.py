"""How the command line words numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.wording import amount, percent

if TYPE_CHECKING:
    from stormsweep.records import RunFailed
    from stormsweep.scaling.accounts import Account

#: Runs that failed for one reason and are named in its line; `status` and the report name all.
_NAMED = 3


def hours(count: float) -> str:
    """Word a number of core-hours.

    Examples
    --------
    >>> hours(0.01234), hours(3.14159), hours(1234.5), hours(float("nan"))
    ('0.012', '3.1', '1,234', 'unknown')
    """
    if math.isnan(count):
        return "unknown"
    if 0 < count < 0.001:
        return amount(count)
    return f"{count:.3f}" if count < 1 else f"{count:.1f}" if count < 100 else f"{count:,.0f}"


def failures(failed: Iterable[RunFailed], directory: Path | None = None) -> Iterator[str]:
    """Yield a line for each reason that runs failed for, and where their tracebacks are.

    Parameters
    ----------
    failed : iterable of RunFailed
        What failed.
    directory : Path, optional
        Of the study; the log of its driver holds the tracebacks.
    """
    failed = list(failed)
    for line in alike((one.run, one.failure, one.reason) for one in failed):
        yield line if line.startswith(" ") else f"Failed: {line}"
    if directory is not None and any(one.detail for one in failed):
        yield f"Traceback: {directory / 'logs' / 'driver.log'}"


def alike(failed: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Yield a line for each reason that runs failed for, and beneath it the first of several runs.

    Parameters
    ----------
    failed : iterable of (str, str, str)
        Run, kind of failure and reason.
    """
    runs: dict[tuple[str, str], list[str]] = {}
    for run, kind, reason in failed:
        runs.setdefault((kind, reason), []).append(run)
    for (kind, reason), names in runs.items():
        if len(names) == 1:
            yield f"run {names[0]} ({kind}): {reason}"
            continue
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield f"{len(names):,} runs ({kind}): {reason}"
        yield f"  {', '.join(names[:_NAMED])}{more}"


def accounts(account: Account) -> Iterator[tuple[str, str]]:
    """Yield what a study took, as a name and a line for each of workers, cores, GPUs and price."""
    if account.worker_seconds > 0:
        yield (
            "workers",
            f"busy {percent(account.utilisation)} of the time, load balance "
            f"{percent(account.load_balance)}, parallel efficiency "
            f"{percent(account.parallel_efficiency)}",
        )
    for name, kind in (("cores", "core"), ("GPUs", "gpu")):
        asked, granted, used = (
            getattr(account, f"{kind}_hours_{what}") for what in ("asked", "granted", "used")
        )
        if granted or asked:
            line = f"{hours(used)} {'core' if kind == 'core' else 'GPU'}-hours used of "
            line += f"{hours(granted)} granted"
            yield name, line + (f", {hours(asked)} asked" if asked != granted else "")
    if account.cost is not None:
        yield "price", f"{account.cost:,.2f}: {account.price_basis}"
