"""Losing this: a dashboard that slows every start. What it shows is tried in test_watch.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: A driver's pool, in a process of its own: what is imported in it, before a look and after.
LOOK = """
import logging, sys, urllib.request
from pathlib import Path
from stormsweep.cluster.local import LocalPool

def looked(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{pool.dashboard}{path}") as answer:
        return answer.read().decode()

if __name__ == "__main__":
    logging.disable()
    pool = LocalPool(1, 1, 2.0, Path(sys.argv[1]), [])
    next(iter(pool.events(60)))
    print("bokeh" in sys.modules, looked("/health"), "bokeh" in sys.modules)
    print(len(looked("/")) > 5000, "bokeh" in sys.modules, "bokeh" in looked("/workers"))
    pool.close()
"""


def test_bokeh_is_not_imported_until_somebody_looks(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "logs"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["False", "ok", "False", "True", "True", "True"], done.stderr
