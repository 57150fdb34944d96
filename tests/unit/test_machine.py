"""Losing this: a study of a hundred workers ends with "too many open files"."""

from __future__ import annotations

import resource

from stormsweep.cluster.machine import allow_open_files


def test_more_open_files_are_allowed_up_to_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few, hard = 300, before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        allow_open_files(few - 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few, hard)
        allow_open_files(few + 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few + 1, hard)
        allow_open_files(10**12)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (10**12, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
