"""Submitting a study as a Slurm job: all that can be checked here, and then sbatch.

Runs on a login node: nothing numerical is imported, and nothing is left behind when it fails.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.cluster import slurm
from stormsweep.cluster.jobscript import job_script
from stormsweep.config.load import dump_study
from stormsweep.config.sites import LOCAL, Found
from stormsweep.errors import SlurmError, StudyBusyError, StudyFileError, UserError, typed
from stormsweep.files import write_text
from stormsweep.study.admission import asked_of_slurm, refusal, refuse_elsewhere, refuse_setup
from stormsweep.study.chain import Link
from stormsweep.study.directory import StudyDirectory, study_key
from stormsweep.study.places import as_asked, asked_for, find, refuse_longer, remember

if TYPE_CHECKING:
    from stormsweep.study.study import Study

#: The jobs that hold a driver, among all of a study's.
_DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of `Study.submit`.

    Attributes
    ----------
    site : str
        Where the study is to run.
    script : str
        The job script.
    job : str or None
        The job's number; None: nothing was submitted, because the script alone was asked for.
    output, error : Path
        Where the job writes what it says, and what went wrong.
    expected : str
        When and where Slurm expects it to start; empty where it does not say.
    doubt : Exception or None
        Where the script alone was asked for: why it may not do.
    """

    site: str
    script: str
    job: str | None
    output: Path
    error: Path
    expected: str
    doubt: Exception | None = None


def driver_key(directory: Path, after: str | None = None) -> str:
    """Return what the jobs of a study that hold its driver are known by.

    Parameters
    ----------
    directory : Path
        The study's directory.
    after : str, optional
        Number of a job: those alone that go on after it.
    """
    return f"{study_key(directory)}-{_DRIVER}" + (f"-{after}" if after is not None else "")


def submit(
    study: Study,
    site: str | None = None,
    *,
    max_jobs: int,
    retry_failed: bool = False,
    nodes: int | None = None,
    walltime: str | None = None,
    dry_run: bool = False,
) -> Submission:
    """Submit a study; see `stormsweep.study.study.Study.submit`."""
    found = _found(study, site)
    options = None if nodes is None else (nodes, nodes), walltime
    asked = asked_for(study.file.site, study.path, found.name, *options)
    nodes, walltime = asked.nodes and asked.nodes[1], asked.walltime
    if walltime is not None:
        refuse_longer(found, walltime, asked.said[1])
    found = as_asked(found, nodes, walltime, asked.said)
    chosen = study.with_site(use=found.name)
    directory = study.directory.absolute()
    assert found.file is not None  # Only `local` stands in no file.
    sites_file = found.file.absolute()
    link = Link(directory, found.name, sites_file, 1, max_jobs, nodes, walltime, retry_failed)
    script = job_script(found.site, link.order(study.file.study.name, found.site))
    expected, commands = "", slurm.Slurm()
    doubt: UserError | SlurmError | None = None
    try:
        _check(chosen, retry_failed)
        refuse_elsewhere(found, directory)
        refuse_setup(found)
        slurm.needed()
        expected = asked_of_slurm(found, script, commands).expected
    except (UserError, SlurmError) as trouble:
        if not dry_run:
            raise
        doubt = trouble
    logs = directory / "logs"
    output, error = (logs / f"slurm-{found.name}.{end}" for end in ("out", "err"))
    id = None
    if not dry_run:
        _refuse_second(directory, commands)
        id = _submitted(chosen, found, nodes, script, commands)
    return Submission(found.name, script, id, output, error, expected, doubt)


def _check(study: Study, retry_failed: bool) -> None:
    """Refuse what the job would end with, as far as it can be seen without data and workers."""
    file, directory = study.file, study.directory
    study.check(source=True)
    path = file.data.path
    if path is not None and not path.exists() and not file.data.cache.exists():
        raise StudyFileError(f"{study.path}: data.path: given {str(path)!r}; there is none")
    found = study.remaining()
    if not found.left(retry_failed):
        hint = "; try failed runs again with --retry-failed" if found.progress.failed else ""
        raise UserError(f"{directory}: nothing is left to train{hint}")


def _found(study: Study, site: str | None) -> Found:
    """Return the site: of a file near the study, or of that which it was submitted with before."""
    name, asked = (site, "--site") if site is not None else (study.file.site.use, "site.use")
    if name == LOCAL:
        given = f"{asked}: given" if site is not None else f"{study.path}: {asked}: is"
        raise UserError(
            f"{given} 'local', which is this machine; submit with --site NAME, or `run`"
        )
    found = find(name, study.path, study.directory, asked)
    if found.site.scheduler != "slurm":
        raise StudyFileError(
            f"{found.key('scheduler')}: given {found.site.scheduler!r}; `submit` needs 'slurm'"
        )
    return found


def _refuse_second(directory: Path, commands: slurm.Slurm) -> None:
    from stormsweep.study.lock import refuse_if_busy

    jobs = commands.jobs_of(study_key(directory)).items()
    left = [(job.state == "PENDING", id, job) for id, job in jobs if not job.over]
    # What runs is named before what waits for it to end.
    for _, id, job in sorted(left, key=lambda one: one[0]):
        where = f" on {job.nodes}" if job.nodes else f" ({job.reason})" if job.reason else ""
        raise StudyBusyError(
            f"{directory}: job {id} of this study is in the queue already: {job.state}{where}; "
            f"wait for it, or end it with `{typed('cancel', directory)}`"
        )
    refuse_if_busy(directory)


def _submitted(
    study: Study, found: Found, nodes: int | None, script: str, commands: slurm.Slurm
) -> str:
    directory, key = study.directory, driver_key(study.directory)
    folder = StudyDirectory(study.file, study.path, directory)
    with folder.made():
        (directory / "logs").mkdir(exist_ok=True)
        folder.keep_earlier()
        write_text(directory / "study.toml", dump_study(study.file))
        remember(found, directory, True, None if nodes is None else (nodes, nodes))
        try:
            return commands.submit(script, Path.cwd(), key)
        except SlurmError as error:
            raise refusal(found, error) from None
        except KeyboardInterrupt:
            # sbatch may have got through all the same.
            with contextlib.suppress(SlurmError):
                commands.cancel(list(commands.jobs_of(key)))
            raise
