"""`watch`: a study followed live, from any node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument

if TYPE_CHECKING:
    from stormsweep.cluster.scheduler import Job

#: Seconds between looks at the journal, and between questions to Slurm: the first, and at most.
_LOOK, _ASK, _ASK_LONGEST = 1.0, 5.0, 60.0
#: Seconds that a report is waited for.
_REPORT = 120.0


@app.command()
def watch(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """Follow a study live, wherever it runs; Ctrl-C ends the watching only.

    Shows how far it is, the best so far, what each worker is at, the time left with its 90 %
    interval, and the last failures: live on a terminal, else as plain lines.
    """
    from stormsweep.cli.watch import full_display
    from stormsweep.study.follow import Following
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    following = Following(chosen)
    try:
        with full_display() as watcher:
            said = _until_over(chosen, following, watcher)
            report = _report(chosen, watcher) if following.finished else None
    except KeyboardInterrupt:
        typer.echo(f"No longer watching; {no_longer(chosen, following.finished)}.", err=True)
        return
    typer.echo(f"{chosen.file.study.name}: {said}")
    if report is not None:
        typer.echo(f"Report: {report}")


def _until_over(study: Any, following: Any, watcher: Any) -> str:
    """Show the study until it is over, or nothing of it runs or waits; return how it stands."""
    from stormsweep.cluster import slurm
    from stormsweep.study.lock import is_driven

    ask_at, pause, queue = time.monotonic(), _ASK, ""
    while True:
        state = following.look()
        if state is not None:
            watcher.state(state)
        if following.finished and not state.failed:
            return "finished"
        if time.monotonic() >= ask_at:
            jobs = study.jobs()
            unknown = jobs is None and slurm.available()
            if not (lines(jobs or {}) or unknown or is_driven(study.directory)):
                state = following.look()
                if following.finished and state is not None:
                    return f"finished, {state.failed} failed run(s)" if state.failed else "finished"
                return f"stopped; {go_on(study)}"
            now = "Slurm does not answer" if unknown else "; ".join(lines(jobs or {}))
            if now and now != queue:
                watcher.note(now)
            pause = min(1.5 * pause, _ASK_LONGEST) if now == queue else _ASK
            queue, ask_at = now, time.monotonic() + pause
        time.sleep(_LOOK)


def _report(study: Any, watcher: Any) -> Path | None:
    """Wait until who trained the study has written its report, or is gone; return where it is."""
    from stormsweep.study.jobs import at_work_still, last_driver

    page: Path = study.directory / "report" / "index.html"

    def written() -> bool:
        recorded: float = study.journal_path.stat().st_mtime
        return page.is_file() and page.stat().st_mtime >= recorded

    driver, until = last_driver(study.directory), time.monotonic() + _REPORT
    while not written() and time.monotonic() < until and at_work_still(study.directory, driver):
        watcher.stage("writing the report", 0.0)
        for _ in range(round(_ASK / _LOOK)):
            time.sleep(0.0 if written() else _LOOK)
    return page if written() else None


def no_longer(study: Any, finished: bool) -> str:
    """Say what becomes of a study that is no longer watched."""
    from stormsweep.study.lock import is_driven

    if finished:
        return "the study is finished"
    if is_driven(study.directory) or waits(study):
        return "the study goes on"
    return f"nothing trains the study; {go_on(study)}"


def waits(study: Any) -> bool:
    """Tell whether a job of the study runs or waits; also where it has some and Slurm is silent."""
    from stormsweep.cluster import slurm

    jobs = study.jobs()
    return bool(lines(jobs or {})) or (jobs is None and slurm.available())


def go_on(study: Any) -> str:
    """Say by which command a study that stopped goes on."""
    from stormsweep.study.places import going_on

    return f"go on with: {going_on(study.directory, study.file.site.use)}"


def lines(jobs: Mapping[str, Job]) -> list[str]:
    """Say of each job that is not over what it does, the running ones first."""
    left = {id: job for id, job in jobs.items() if not job.over}
    order = sorted(
        left, key=lambda id: (left[id].state == "PENDING", int(id) if id.isdigit() else 0)
    )
    return [f"job {id} {_doing(left[id])}" for id in order]


def _doing(job: Job) -> str:
    where = f" on {job.nodes}" if job.nodes else f" ({job.reason})" if job.reason else ""
    return f"{job.state}{where}"
