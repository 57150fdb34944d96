"""The page on SweepSearchCV: if this fails, a reader copies a script that does not run."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "sweep-search-cv.md"
SCRIPTS = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```", PAGE.read_text(), re.M | re.S)


def test_every_script_is_found():
    assert [name for _, name in SCRIPTS] == [
        "grid.py",
        "resume.py",
        "strategies.py",
        "scorer.py",
        "network.py",
        "module.py",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("text", "name"), SCRIPTS, ids=lambda part: part[:12])
def test_the_scripts_of_the_page_run(text, name, tmp_path):
    if "skorch" in text and not (find_spec("skorch") and find_spec("torch")):
        pytest.skip("PyTorch and skorch, which are no dependencies, are not installed")
    (tmp_path / name).write_text(text)
    done = subprocess.run([sys.executable, name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
