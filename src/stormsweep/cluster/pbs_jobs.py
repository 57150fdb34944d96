"""What qstat says of jobs of PBS, in the words that are common to all schedulers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stormsweep.cluster.scheduler import Job

#: The variable of a job that says whose it is. PBS keeps no comment that a user may set when
#: submitting; a job's variables are shown to its owner only.
VARIABLE = "STORMSWEEP_JOB"
_ATTRIBUTE = re.compile(r" {4}([A-Za-z]\w*(?:\.\w+)?) = (.*)")
_WORDS = {
    "Q": "PENDING",
    "H": "PENDING",
    "W": "PENDING",
    "T": "PENDING",
    "M": "PENDING",
    "R": "RUNNING",
    "B": "RUNNING",
    "S": "SUSPENDED",
    "U": "SUSPENDED",
    "E": "COMPLETING",
    "F": "",
    "X": "",
}
#: Exit statuses that are PBS's own (its job.h, "Special Job Exit Values"): what of them is no
#: fault of the job. Memory and virtual memory; walltime; a host that went away or started anew.
_ENDS = {
    -26: "OUT_OF_MEMORY",
    -27: "OUT_OF_MEMORY",
    -29: "TIMEOUT",
    -4: "NODE_FAIL",
    -5: "NODE_FAIL",
    -6: "NODE_FAIL",
    -14: "NODE_FAIL",
}
#: Substate of a job that qdel ended.
_TERMINATED = "91"


def read_jobs(out: str) -> dict[str, dict[str, str]]:
    r"""Read what ``qstat -f`` prints: every job's attributes, by its id.

    Long values go on in lines that begin with a tab.

    Raises
    ------
    ValueError
        If it is not about jobs, or about one without a state.

    Examples
    --------
    >>> read_jobs("Job Id: 7.desched1\n    job_state = R\n    exec_host = dec00\n\t1/0*36\n")
    {'7.desched1': {'job_state': 'R', 'exec_host': 'dec001/0*36'}}
    """
    jobs: dict[str, dict[str, str]] = {}
    facts: dict[str, str] | None = None
    name = ""
    for line in out.split("\n"):  # Not at what else Unicode takes for the end of a line.
        if line.startswith("Job Id: "):
            facts, name = jobs.setdefault(line.removeprefix("Job Id: ").strip(), {}), ""
        elif facts is not None and (said := _ATTRIBUTE.fullmatch(line)):
            # What a variable's value with line breaks may say comes after the job's state.
            name = said[1] if said[1] not in facts else ""
            if name:
                facts[name] = said[2]
        elif line.startswith("\t") and facts is not None:
            if name:
                facts[name] += line[1:]
        elif line.strip() and facts is None:
            raise ValueError(f"{line!r} is not about a job")
    for id, one in jobs.items():
        if one.get("job_state") not in _WORDS:
            raise ValueError(f"job {id} has no state that is known")
    return jobs


def job_of(facts: Mapping[str, str]) -> Job:
    """Return a job in the common words, by what qstat says of it."""
    word = _WORDS[facts["job_state"]]
    hosts = (part.partition("/")[0] for part in facts.get("exec_host", "").split("+"))
    nodes = ",".join(dict.fromkeys(host for host in hosts if host))
    if word:
        waits = word in ("PENDING", "SUSPENDED")
        return Job(word, facts.get("comment", "") if waits else "", nodes)
    status = facts.get("Exit_status", "")
    if not re.fullmatch(r"-?[0-9]+", status):  # It never ran.
        return Job("CANCELLED", facts.get("comment", ""), nodes)
    reason = f"exit status {status}"
    if int(status) in _ENDS:
        return Job(_ENDS[int(status)], reason, nodes)
    if int(status) == 0:
        return Job("COMPLETED", "", nodes)
    if _overran(facts):
        return Job("TIMEOUT", reason, nodes)
    return Job("CANCELLED" if facts.get("substate") == _TERMINATED else "FAILED", reason, nodes)


def _overran(facts: Mapping[str, str]) -> bool:
    """Tell whether a job was killed by a signal after its walltime: older versions say no more."""
    limit = _seconds(facts.get("Resource_List.walltime", ""))
    used = _seconds(facts.get("resources_used.walltime", ""))
    killed = int(facts["Exit_status"]) >= 128
    return killed and limit is not None and used is not None and used >= limit


def _seconds(clock: str) -> int | None:
    parts = re.fullmatch(r"([0-9]+):([0-9]{2}):([0-9]{2})", clock)
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + int(parts[3]) if parts else None


def mark_of(facts: Mapping[str, str]) -> str:
    """Return the mark that a job was submitted with; empty where it has none."""
    found = re.search(rf"(?:^|,){VARIABLE}=([A-Za-z0-9-]+)(?:,|$)", facts.get("Variable_List", ""))
    return found[1] if found else ""
