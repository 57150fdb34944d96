"""Whether it was for its memory that a worker was killed: the system does it without a word."""

from __future__ import annotations

from stormsweep.cluster import machine

#: Our word for it.
OUT_OF_MEMORY = "out-of-memory"


class MemoryKills:
    """Counts the system's kills for memory, of processes that live with this one.

    Parameters
    ----------
    where : str
        What the memory is of, for the reason: ``its job on n2018-1``, say.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._known = machine.memory_kills() or 0

    def explains(self) -> str:
        """Return why a worker was killed just now, in one line; empty: not for memory.

        Each kill explains one death.
        """
        count = machine.memory_kills() or 0
        if count <= self._known:
            return ""
        self._known += 1
        return (
            f"the system killed the worker, because the memory of {self._where} was used up "
            f"({machine.memory_gb():.2f} GiB)"
        )
