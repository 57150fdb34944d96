"""Losing this: heavy imports creep into the driver, and modules grow into a knot."""

from __future__ import annotations

import subprocess
import sys

import stormsweep


def test_public_names_are_what_the_package_offers() -> None:
    offered = [name for name in stormsweep.__all__ if name != "__version__"]
    assert offered == sorted(offered)
    assert set(offered) == set(stormsweep._HOMES)
    for name in stormsweep.__all__:
        assert getattr(stormsweep, name) is not None


def test_command_line_and_driver_never_load_tensorflow() -> None:
    code = (
        "import sys, stormsweep.cli.run, stormsweep.study.study, stormsweep.study.execute\n"
        "import stormsweep.study.problem, stormsweep.cluster.local\n"
        "import stormsweep.cli.verify, stormsweep.study.verify, stormsweep.study.predict\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_loads_nothing_numerical() -> None:
    code = (
        "import sys, stormsweep.cli\n"
        "from stormsweep.cli import audit, begin, data, foretell, run, show, verify\n"
        "heavy = {'numpy', 'pandas', 'pydantic', 'distributed', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
