"""From a site to the text of a job script: pure functions, so it can be shown before it is used.

Slurm's options are worded here, PBS's in `stormsweep.cluster.pbs_script`.

Everything that reaches the script is one of three kinds. Values of the site were checked by
`stormsweep.config.sites`. Paths and the command's arguments are quoted, for sbatch and for bash,
or refused where no quoting helps. The set-up lines are the user's own shell, and stand as they
are; what they must not do is checked by `setup_mistake`.
"""

from __future__ import annotations

import base64
import math
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stormsweep.cluster import pbs_script
from stormsweep.cluster.partitions import clock
from stormsweep.config.sites import Site
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
#: What slurmctld takes by default is 4 MiB; what nobody means to send is much less.
_LONGEST = 1 << 16
#: Variable of a job script, not exported.
_BEGAN_WITH = "stormsweep_began_with"
#: Ends a job whose set-up line fails; what fails inside a file or function that such a line calls
#: counts only if the line as a whole does.
_GUARD = (
    "stormsweep_depth=${#BASH_SOURCE[@]}\n"
    """trap 'stormsweep_code=$?; [ "${#BASH_SOURCE[@]}" -gt "$stormsweep_depth" ] || { """
    """echo "stormsweep: set-up line failed (exit code $stormsweep_code): $BASH_COMMAND" >&2; """
    """exit 1; }' ERR"""
)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be a job on a site.

    What only a driver's job has (`error`, `after`, `warning_s`, `keep`) is Slurm's alone.

    Attributes
    ----------
    name : str
        The job's name for its scheduler.
    command : sequence of str
        The command and its arguments. It takes the place of the job's shell, so that signals to the
        shell reach it.
    output, error : str
        Where its output goes, as `driver_logs` and `worker_logs` say; they are appended to. ``%j``
        is the job's id, ``%%`` a ``%``, whichever scheduler it is.
    nodes : int or None
        Nodes; None: those of the site.
    walltime_s : int or None
        Seconds; None: the site's walltime.
    after : str or None
        Id of a job that must be over, however it ended, before this one starts.
    warning_s : int or None
        Seconds before the walltime at which the command gets SIGUSR1; Slurm may be a minute early.
    environment : bool
        Whether the command is told on its standard input which environment the job began with,
        before the site's modules and set-up lines; `environment_told` reads it.
    keep : bool
        Whether the job goes on where one of its nodes fails.
    exclude : sequence of str
        Nodes that it is not to have; Slurm's alone.
    """

    name: str
    command: Sequence[str]
    output: str
    error: str | None = None
    nodes: int | None = None
    walltime_s: int | None = None
    after: str | None = None
    warning_s: int | None = None
    environment: bool = False
    keep: bool = False
    exclude: Sequence[str] = ()


def driver_logs(logs: Path, site: str) -> tuple[str, str]:
    """Return where the output and the errors of a driver's job go: named after the site.

    Examples
    --------
    >>> driver_logs(Path("/runs/x/logs"), "taki-2018")
    ('/runs/x/logs/slurm-taki-2018.out', '/runs/x/logs/slurm-taki-2018.err')
    """
    return tuple(pattern(logs / f"slurm-{site}.{end}") for end in ("out", "err"))  # type: ignore[return-value]


def worker_logs(logs: Path, scheduler: str = "slurm") -> str:
    """Return where what a worker's job prints goes: named after the job.

    Examples
    --------
    >>> worker_logs(Path("/runs/100%/logs"))
    '/runs/100%%/logs/slurm-%j.out'
    """
    return f"{pattern(logs)}/{scheduler}-%j.out"


def pattern(path: Path) -> str:
    """Return a path as Slurm's file names write it, in which ``%`` begins what Slurm fills in.

    Raises
    ------
    UserError
        If the path has a character that Slurm or a shell cannot be told of.
    """
    text = str(path)
    # A backslash anywhere turns off what Slurm fills in, "%%" too.
    if "\\" in text:
        raise UserError(
            f"{text!r}: Slurm takes no backslash in the path of a log; rename the folder"
        )
    return _plain(text).replace("%", "%%")


def job_script(site: Site, order: Order) -> str:
    """Return the job script of an order on a site, as the site's scheduler reads it.

    Raises
    ------
    UserError
        If a path or an argument cannot be quoted.
    ValueError
        If what only this program chooses (names, numbers) is not what it must be.

    Examples
    --------
    >>> site = Site(scheduler="slurm", partition="high_mem", walltime="03:00:00", memory_gb=48)
    >>> print(job_script(site, Order("try", ["echo", "it's done"], "/runs/x/logs/slurm-%j.out")))
    #!/bin/bash
    #SBATCH --job-name=try
    #SBATCH --partition=high_mem
    #SBATCH --time=03:00:00
    #SBATCH --nodes=1
    #SBATCH --ntasks-per-node=1
    #SBATCH --cpus-per-task=1
    #SBATCH --hint=nomultithread
    #SBATCH --mem=49152M
    #SBATCH --output=/runs/x/logs/slurm-%j.out
    #SBATCH --open-mode=append
    #SBATCH --no-requeue
    <BLANKLINE>
    exec echo 'it'"'"'s done'
    <BLANKLINE>
    """
    if not _NAME.fullmatch(order.name):
        raise ValueError(f"not a job's name: {order.name!r}")
    for path in (order.output, order.error or ""):
        _plain(path)
    lines = ["#!/bin/bash"]
    if site.scheduler == "pbs":
        lines += [*pbs_script.directives(site, order), "", *pbs_script.beginning(order)]
    else:
        lines += [*(f"#SBATCH --{option}" for option in _options(site, order)), ""]
    if order.environment:
        lines.append(f"{_BEGAN_WITH}=$(env -0 | base64 -w 0)")
    if site.modules:
        # In a batch script `module` is there only where the submitting shell exported it.
        lines.append("command -v module >/dev/null || . /etc/profile")
        lines += [f"module load {shlex.quote(module)} || exit 1" for module in site.modules]
    if site.setup:
        # A command before them: sbatch and qsub would read options from their comments otherwise.
        lines += [
            _GUARD,
            "true  # set-up lines of the site, as they are:",
            *site.setup,
            "trap - ERR",
        ]
    # Through a pipe: it may hold secrets, which are to be in no file and in no other environment.
    told = f' < <(printf %s "${_BEGAN_WITH}")' if order.environment else ""
    lines += [f"exec {command_line(order.command)}{told}", ""]
    script = "\n".join(lines)
    if len(script.encode()) > _LONGEST:
        raise UserError(f"the job script is longer than {_LONGEST:,} bytes; shorten `setup`")
    return script


def environment_told(said: bytes) -> dict[str, str]:
    r"""Read the environment that a job began with; see `Order.environment`.

    Returns
    -------
    dict
        Empty where it is not whole.

    Examples
    --------
    >>> environment_told(base64.b64encode(b"A=b=c\0LINES=1\n2\0"))
    {'A': 'b=c', 'LINES': '1\n2'}
    """
    try:
        text = base64.b64decode(said, validate=True)
    except ValueError:
        return {}
    if not text.endswith(b"\0"):
        return {}
    pairs = [os.fsdecode(entry).partition("=") for entry in text.split(b"\0")]
    return {name: value for name, sign, value in pairs if name and sign}


def command_line(command: Sequence[str]) -> str:
    """Return a command as bash reads it back: to the very same arguments.

    Raises
    ------
    UserError
        If an argument has a control character (a line break, say), or is no text at all.

    Examples
    --------
    >>> command_line(["python", "-m", "stormsweep", "run", "my runs/$HOME; rm"])
    "python -m stormsweep run 'my runs/$HOME; rm'"
    """
    if not command:
        raise ValueError("no command")
    return shlex.join(_plain(argument) for argument in command)


def setup_mistake(site: Site) -> str | None:
    """Say what bash says of set-up lines that it cannot parse, such as a quote that is not closed.

    Such a line would swallow the command that follows, and the job would end as if all were well.

    Returns
    -------
    str or None
        None: they parse, and the line after them is a line of its own.
    """
    if not site.setup:
        return None
    # The last line must still be a command after them: inside a quote, a here-document, an `if` or
    # after a backslash it is none, and then bash has something to say or does not end the function.
    text = "\n".join(["{", *site.setup, "}", ""])
    try:
        done = subprocess.run(
            ["bash", "-n"], input=text, capture_output=True, encoding="utf-8", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bash cannot be asked: {error}"
    said = done.stderr.strip().splitlines()
    return re.sub(r"^bash: (line \d+: )?", "", said[0]) if said or done.returncode else None


def _options(site: Site, order: Order) -> list[str]:
    if order.after is not None and not re.fullmatch(r"[0-9]{1,10}", order.after):
        raise ValueError(f"not the number of a job: {order.after!r}")
    seconds = order.walltime_s
    if seconds is None and site.walltime is not None:
        seconds = walltime_seconds(site.walltime)
    memory = site.memory_gb
    if memory == "all":
        memory = 0
    values: list[tuple[str, object]] = [
        ("job-name", order.name),
        ("account", site.account),
        ("partition", site.partition),
        ("qos", site.qos),
        ("time", None if seconds is None else clock(seconds)),
        ("nodes", site.nodes if order.nodes is None else order.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", site.cores),
        # Where nodes have one thread a core, it changes nothing.
        ("hint", None if site.hyperthreads else "nomultithread"),
        ("mem", None if memory is None else f"{math.ceil(memory * 1024)}M" if memory else "0"),
        ("gres", site.gres),
        ("constraint", site.constraint),
        ("exclude", ",".join(order.exclude) or None),
        ("dependency", None if order.after is None else f"afterany:{order.after}"),
        ("signal", None if order.warning_s is None else f"B:USR1@{order.warning_s:d}"),
        ("output", order.output),
        ("error", order.error),
        ("open-mode", "append"),
    ]
    options = [f"{name}={_sbatch(str(value))}" for name, value in values if value is not None]
    if site.exclusive:
        options.append("exclusive")
    if order.keep:
        options.append("no-kill")
    # Whatever the cluster's default is: others take the places of jobs that failed.
    return [*options, "no-requeue"]


def _sbatch(value: str) -> str:
    """Quote a value as sbatch reads its options in a script: much like a shell, and not quite."""
    _plain(value)
    if re.fullmatch(r"[\w./:,=+@%&|*()\[\]-]+", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _plain(text: str) -> str:
    """Refuse what no quoting helps: control characters, and bytes that are no text."""
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in text):
        raise UserError(f"{text!r}: a job script takes no line breaks or control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text!r}: is not UTF-8; a job script takes no other text") from None
    return text
