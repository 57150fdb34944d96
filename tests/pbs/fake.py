"""Commands that speak as PBS's do. A mock: nothing here shows that a real PBS server agrees.

Debian has no PBS (OpenPBS is to be built from source, and needs its own database and daemons as
root), so unlike Slurm it cannot be started by the tests. What the commands print follows the manual
pages of OpenPBS (qsub(1B), qstat(1B), qselect(1B), qdel(1B)) and outputs that sites and tools have
put on record: wrapped lines, exit codes 153 and 35, "cannot connect to server". Jobs do run, one
bash for each, with the variables that PBS sets.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SERVER = "desched1"
#: As qstat -f prints it (OpenPBS 20); {} are the job's.
RECORD = """Job Id: {id}
    Job_Name = {name}
    Job_Owner = someone@derecho1.hpc.ucar.edu
    job_state = {state}
    queue = main
    server = desched1
    Checkpoint = u
    Error_Path = derecho1.hpc.ucar.edu:/glade/derecho/scratch/someone/{name}.e7
{hosts}    Hold_Types = n
    Join_Path = oe
    Keep_Files = n
    Mail_Points = a
    Output_Path = /dev/null
    Rerunable = False
    Resource_List.mpiprocs = 2
    Resource_List.ncpus = 72
    Resource_List.nodect = 2
    Resource_List.place = scatter:exclhost
    Resource_List.select = 2:ncpus=36:mpiprocs=1
    Resource_List.walltime = 01:00:00
    substate = {substate}
    Variable_List = {variables}
    comment = {comment}
    Submit_arguments = -f -v STORMSWEEP_JOB={mark}
    project = _pbs_project_default
{end}
"""
_COMMAND = """#!/bin/sh
exec {python} {here} {place} {name} "$@"
"""


class FakePbs:
    """A PBS of shell scripts in a folder, which holds its jobs too."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.place = folder / "bin", folder / "jobs"
        self.bin.mkdir()
        self.place.mkdir()
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        for name in ("qsub", "qstat", "qselect", "qdel"):
            words = {"python": sys.executable, "here": __file__, "place": self.place, "name": name}
            quoted = {key: shlex.quote(str(value)) for key, value in words.items()}
            self.put(name, _COMMAND.format(**quoted))

    def put(self, name: str, body: str) -> None:
        """Replace a command by a script."""
        path = self.bin / name
        path.write_text(body if body.startswith("#!") else f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """Return the arguments of every call of a command so far."""
        file = self.place / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []

    def end(self) -> None:
        """Kill what still runs."""
        for file in self.place.glob("*.pid"):
            _kill(int(file.read_text()))


def wrapped(name: str, value: str) -> str:
    """Break an attribute's line as qstat does: at commas and before column 79, with tabs."""
    line, lines = f"    {name} = {value}", []
    while len(line) > 78:
        comma = line.rfind(",", 20, 78)
        cut = comma + 1 if comma > 0 else 78
        lines.append(line[:cut])
        line = "\t" + line[cut:]
    return "\n".join([*lines, line])


def record(
    id: str,
    state: str,
    mark: str = "",
    hosts: str = "",
    status: int | None = None,
    substate: int = 42,
    used: str = "00:00:10",
    comment: str = "Job run at Wed Nov 25 at 13:00 on (dec0001:ncpus=36)+(dec0002:ncpus=36)",
) -> str:
    """Return what qstat -f prints of a job."""
    variables = (
        "PBS_O_HOME=/glade/u/home/someone,PBS_O_LANG=en_US.UTF-8,PBS_O_LOGNAME=someone,"
        "PBS_O_PATH=/glade/u/apps/opt/bin:/opt/cray/pe/bin:/usr/local/bin:/usr/bin:/bin,"
        f'STORMSWEEP_JOB={mark},odd=005,PBS_O_WORKDIR=/glade/it\'s \\, "here",PBS_O_QUEUE=main'
    )
    end = "" if status is None else f"    Exit_status = {status}\n"
    text = RECORD.format(
        id=id,
        name="stormsweep-x",
        state=state,
        hosts=f"    exec_host = {hosts}\n" if hosts else "",
        substate=substate,
        variables="@",
        mark=mark,
        comment="@@",
        end=f"    resources_used.walltime = {used}\n{end}" if status is not None else "",
    )
    text = text.replace("    Variable_List = @", wrapped("Variable_List", variables))
    return text.replace("    comment = @@", wrapped("comment", comment)) + "\n"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _qsub(place: Path, arguments: list[str]) -> int:
    script = sys.stdin.read()
    options = dict(re.findall(r"^#PBS (-\w) (\S+)$", script, re.MULTILINE))
    if options.get("-q") == "nowhere":
        print("qsub: Unknown queue", file=sys.stderr)
        return 170
    number = 1000 + len(list(place.glob("*.script")))
    id = f"{number}.{SERVER}"
    (place / f"{id}.script").write_text(script)
    (place / f"{id}.mark").write_text(arguments[arguments.index("-v") + 1].partition("=")[2])
    variables = {"PBS_JOBID": id, "PBS_O_WORKDIR": str(Path.cwd()), "NCPUS": "2"}
    ended = place / f"{id}.ended"
    wrapper = f"bash {place}/{id}.script; echo $? >{ended}.part; mv {ended}.part {ended}"
    job = subprocess.Popen(
        ["bash", "-c", wrapper],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (place / f"{id}.pid").write_text(str(job.pid))
    print(id)
    return 0


def _known(place: Path, id: str) -> tuple[str, int | None]:
    """Return a job's state and exit status."""
    ended = place / f"{id}.ended"
    return ("F", int(ended.read_text())) if ended.exists() else ("R", None)


def _qstat(place: Path, arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print("pbs_version = 20.0.1")
        return 0
    code = 0
    for id in (word for word in arguments if not word.startswith("-")):
        if not (place / f"{id}.script").exists():
            print(f"qstat: Unknown Job Id {id}", file=sys.stderr)
            code = 153
            continue
        state, status = _known(place, id)
        mark = (place / f"{id}.mark").read_text()
        substate = 91 if status == 271 else 92
        print(record(id, state, mark, "dec0001/0*36+dec0002/0*36", status, substate), end="")
    return code


def _qselect(place: Path, arguments: list[str]) -> int:
    for file in sorted(place.glob("*.script")):
        if "-x" in arguments or _known(place, file.stem)[0] == "R":
            print(file.stem)
    return 0


def _qdel(place: Path, arguments: list[str]) -> int:
    code = 0
    for id in arguments:
        if not (place / f"{id}.script").exists():
            print(f"qdel: Unknown Job Id {id}", file=sys.stderr)
            code = 153
        elif _known(place, id)[0] == "F":
            print(f"qdel: Job has finished {id}", file=sys.stderr)
            code = 35
        else:
            _kill(int((place / f"{id}.pid").read_text()))
            (place / f"{id}.ended").write_text("271")
    return code


if __name__ == "__main__":
    folder, command, *rest = sys.argv[1:]
    with open(Path(folder) / f"{command}.calls", "a", encoding="utf-8") as stream:
        stream.write(shlex.join(rest) + "\n")
    speak = {"qsub": _qsub, "qstat": _qstat, "qselect": _qselect, "qdel": _qdel}
    sys.exit(speak[command](Path(folder), rest))
