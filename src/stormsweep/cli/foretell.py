"""`simulate` and `advise`: how long a study takes elsewhere, and what to ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import sites
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument
from stormsweep.wording import amount, duration, money, percent

ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of each worker, instead of the site's.")
]
RepeatsOption = Annotated[
    int | None, typer.Option(min=1, help="Simulations; default 20, fewer of very large studies.")
]
FailuresOption = Annotated[
    float,
    typer.Option("--failures-per-hour", min=0, help="How often a worker is lost in an hour."),
]
WaitOption = Annotated[
    str | None,
    typer.Option(
        "--queue-wait",
        metavar="TIME or MEDIAN:HIGH",
        help="Wait of a job in the queue, such as 10min; or median and what one in ten exceeds.",
    ),
]
SpeedOption = Annotated[
    float, typer.Option(min=0.01, help="Speed of the site's cores over those measured.")
]
WholeOption = Annotated[
    bool, typer.Option("--whole", help="All of the study, not only what is left of it.")
]
#: Stands beside a layout whose time has no wait in the queue.
_QUEUE = "  + queue"
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def seconds_of(text: str, option: str) -> float:
    """Read a time.

    Examples
    --------
    >>> seconds_of("2h", ""), seconds_of("1h30min", ""), seconds_of("90s", "")
    (7200.0, 5400.0, 90.0)
    """
    from stormsweep.errors import UserError

    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*(min|s|h|d)", text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text.replace(" ", ""):
        raise UserError(
            f"{option}: given {text!r}; must be a time such as 90s, 20min, 2h or 1h30min"
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def budget_of(text: str) -> Any:
    """Read a budget.

    Examples
    --------
    >>> budget_of("500core-h"), budget_of("12.5")
    (Budget(amount=500.0, unit='core-h'), Budget(amount=12.5, unit='money'))
    """
    from stormsweep.errors import UserError
    from stormsweep.scaling.advice import Budget

    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(core-h|gpu-h|)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UserError(
            f"--budget: given {text!r}; must be hours such as 500core-h or 20gpu-h, or an amount "
            "at the site's prices such as 12.50"
        )
    return Budget(float(found[1]), found[2] or "money")


def wait_of(text: str) -> Any:
    """Read a wait in the queue.

    Examples
    --------
    >>> wait_of("10min").median, round(wait_of("10min:1h").spread, 2)
    (600.0, 1.4)
    """
    from stormsweep.errors import UserError
    from stormsweep.scaling.machine import TENTH, Wait

    median, colon, high = text.partition(":")
    first = seconds_of(median, "--queue-wait")
    if not colon:
        return Wait(first)
    second = seconds_of(high, "--queue-wait")
    if first <= 0:
        raise UserError(f"--queue-wait: given {text!r}; the median must be above 0, or alone")
    if second < first:
        raise UserError(f"--queue-wait: given {text!r}; the second must be the longer one")
    return Wait(first, math.log(second / first) / TENTH)


def _circumstances(failures: float, wait: str | None, speed: float) -> Any:
    from stormsweep.study.foretelling import Circumstances

    return Circumstances(failures, None if wait is None else wait_of(wait), speed)


@app.command()
def simulate(
    study: StudyArgument,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers, instead of the study's or the site's.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes of the site, instead of its own number.")
    ] = None,
    threads: ThreadsOption = None,
    site: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where, instead of site.use.", autocompletion=sites),
    ] = None,
    repeats: RepeatsOption = None,
    failures_per_hour: FailuresOption = 0.0,
    queue_wait: WaitOption = None,
    speed: SpeedOption = 1.0,
    whole: WholeOption = False,
    timeline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw one simulation's timeline (.png, .pdf, .svg)."),
    ] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Foretell how long a study takes in another layout, or on another site, and what it costs."""
    from stormsweep.study.foretelling import Outlook, in_layout
    from stormsweep.study.study import Study

    if timeline is not None:
        from stormsweep.report.foretold import form_of

        form_of(timeline)
    chosen = Study.from_toml(study, runs)
    said = _circumstances(failures_per_hour, queue_wait, speed)
    outlook = Outlook(chosen, whole, said)
    machine = in_layout(chosen, outlook, site, workers, nodes, threads)
    for line in _told(outlook, outlook.foretell(machine, repeats)):
        typer.echo(line)
    if timeline is not None:
        from stormsweep.report.foretold import write_timeline

        write_timeline(outlook.journal(machine), timeline)
        typer.echo(f"Timeline: {timeline}")


def _told(outlook: Any, found: Any) -> Iterator[str]:
    """Yield what was foretold."""
    from stormsweep.scaling.advice import called

    what = "what is left" if outlook.rest else "the whole study, from its beginning"
    yield (
        f"{called(found.machine)}: {what}, {found.tasks:,} tasks of {found.runs:,} runs, "
        f"simulated {found.repeats} times"
    )
    rows = [("time", found.makespan, duration), ("core-hours", found.core_hours, amount)]
    if found.machine.gpus_per_node:
        rows.append(("GPU-hours", found.gpu_hours, amount))
    if found.cost is not None:
        rows.append(("cost", found.cost, money))
    rows.append(("utilisation", found.utilisation, percent))
    if found.machine.name != "local":
        rows.append(("jobs", found.jobs, lambda value: f"{value:.0f}"))
    for name, values, word in rows:
        low, median, high = (word(value) for value in values)
        known = found.repeats > 1 and not math.isnan(values.median)
        between = f"   9 of 10 between {low} and {high}" if known else ""
        yield f"  {name:<12}{median:>12}{between}"
    for line in _parts(found):
        yield line
    for line in outlook.notes(found):
        yield f"  Note: {line}."


def _parts(found: Any) -> Iterator[str]:
    parts = found.parts
    named = [
        ("in the queue", parts.waiting),
        ("starting", parts.starting),
        ("at tasks", parts.busy),
        ("without work", parts.idle),
        ("between tasks", parts.overhead),
    ]
    whole = sum(seconds for _, seconds in named) or 1.0
    shares = ", ".join(
        f"{percent(seconds / whole)} {name}" for name, seconds in named if seconds > 0
    )
    longest = duration(found.longest_chain)
    yield f"  The last worker's time: {shares}; the longest run takes {longest}"


@app.command()
def advise(
    study: StudyArgument,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it must be done, such as 2h.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="What it may cost: 500core-h, 20gpu-h, or money."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A site to consider; more than once for several.",
            autocompletion=sites,
        ),
    ] = None,
    repeats: RepeatsOption = None,
    failures_per_hour: FailuresOption = 0.0,
    queue_wait: WaitOption = None,
    speed: SpeedOption = 1.0,
    most_nodes: Annotated[
        int | None, typer.Option("--most-nodes", min=1, help="Nodes to try at most.")
    ] = None,
    whole: WholeOption = False,
    pilot: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="MINUTES",
            help="First train one run of each kind for so long, where the study file says.",
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write what is advised into the study file.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Say what to ask for: the layout, the nodes and the site that a study is best run with."""
    from stormsweep.scaling.advice import MONEY, called, cost_of
    from stormsweep.study import advised, foretelling
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    if write:
        advised.refuse_record(chosen)
    latest = None if deadline is None else seconds_of(deadline, "--deadline")
    most = None if budget is None else budget_of(budget)
    said = _circumstances(failures_per_hour, queue_wait, speed)
    if pilot is not None:
        _pilot(chosen, 60 * pilot)
    outlook = foretelling.Outlook(chosen, whole, said)
    found = foretelling.advise(chosen, outlook, site or [], latest, most, repeats, most_nodes)
    unit = "cost" if found.unit == MONEY else found.unit
    typer.echo(f"{'':<2}{'layout':<46}{'time':>12}{'19 of 20 by':>14}{unit:>12}{'busy':>7}")
    left_out = [foretelling.queue_left_out(one.machine) for one in found.front]
    for one, without in zip(found.front, left_out, strict=True):
        mark = "*" if one is found.chosen else "k" if one is found.knee else " "
        typer.echo(
            f"{mark:<2}{called(one.machine):<46}{duration(one.makespan.median):>12}"
            f"{duration(one.makespan.high):>14}{amount(cost_of(one, found.unit).median):>12}"
            f"{percent(one.utilisation.median):>7}{_QUEUE if without else ''}"
        )
    typer.echo(
        f"{len(found.candidates)} layouts simulated; shown are those that no other beats in both "
        "time and cost (* advised, k the knee)"
    )
    if any(left_out):
        typer.echo(f"{_QUEUE.strip()}: the wait in the queue comes on top of that (--queue-wait)")
    for line in found.limits:
        typer.echo(line)
    best = found.asked
    low, median, high = map(duration, best.makespan)
    typer.echo(f"Advised: {called(best.machine)}, {found.because}")
    typer.echo(f"  {median}, 9 of 10 between {low} and {high}")
    for note in outlook.notes(best):
        typer.echo(f"  Note: {note}.")
    typer.echo(advised.purpose(outlook.left))
    for line in advised.lines(chosen, best, outlook.left):
        typer.echo(f"  {line}")
    if write:
        typer.echo(f"Wrote {advised.write(chosen, best)}")


def _pilot(study: Any, seconds: float) -> None:
    from stormsweep.cli.stop import stoppable
    from stormsweep.cli.watch import display
    from stormsweep.errors import typed
    from stormsweep.study import advised

    again = typed("run", *study.named())
    with stoppable(lambda: again, "everything finished so far is kept"), display() as watcher:
        advised.pilot(study, seconds, watcher)
