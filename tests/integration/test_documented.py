"""What the documentation tells a reader to do, done: the tutorial from its first line to its last.

Losing this: a newcomer whose first half hour ends in an error. Small data, real training; slow.
That every line is a command with options that exist, `tests/unit/test_code_blocks.py` sees at once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pages import ROOT, Block, blocks

# Minutes on cores of one's own, and more on shared ones.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
TUTORIAL = ("index", "first-study", "test-and-predict", "what-to-ask-for")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a reader who has installed Stormsweep."""
    program = tmp_path / ".bin" / "stormsweep"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stormsweep "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def shell(folder: Path, line: str) -> str:
    """Type a line; return what is said in answer."""
    done = subprocess.run(
        line, shell=True, cwd=folder, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def script(folder: Path, block: Block) -> None:
    """Run Python that a reader would put into a file, from a file: workers are started afresh."""
    lines = "\n".join(f"    {line}" for line in block.text.splitlines())
    (folder / "typed.py").write_text(f'if __name__ == "__main__":\n{lines}\n', encoding="utf-8")
    shell(folder, f"{sys.executable} typed.py")


def play(folder: Path, page: Path) -> None:
    """Do what a page says: write its files, type its commands, look at what is answered."""
    for block in blocks(page):
        if block.excuse:
            continue
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(f"{block.text}\n", encoding="utf-8")
        elif block.language == "python":
            script(folder, block)
        elif block.language == "console":
            answered(block, "\n".join(shell(folder, line) for line in block.commands()))
        elif block.language == "sh":
            for line in block.commands():
                if line.startswith("stormsweep "):
                    shell(folder, line)


def answered(block: Block, said: str) -> None:
    """See that what a page shows is what is said, but for numbers, times and the best's values.

    A quarter of the lines may differ: how many layouts are worth showing, say, is the machine's.
    """
    there = {plain(line) for line in said.splitlines()}
    shown = [line for line in block.text.splitlines() if not line.strip().startswith("$ ")]
    missing = []
    for line in shown:
        begin, cut, _ = line.partition(" ...")
        wanted = plain(begin)
        found = any(one.startswith(wanted) for one in there) if cut else wanted in there
        if line != "..." and not found:
            missing.append(line)
    assert len(missing) <= len(shown) / 4, f"{block}: not said: {missing}\n{said}"


def plain(line: str) -> str:
    """Take out of a line what may be another each time.

    Examples
    --------
    >>> plain("* local with 2 workers   1 min 17 s   0.022"), plain("  Best: rate 0.01, width 8")
    ('local with # worker T #', 'Best:')
    """
    line = re.sub(r"^[\s*k]*(?=local|cluster)", "", line)
    line = re.sub(r"^\s*(Best|Model):.*", r"\1:", line)
    line = re.sub(r"\b[0-9a-f]{12}\b", "#", line)
    line = re.sub(r"-?\d[\d.,]*", "#", line)
    line = re.sub(r"(?:# (?:min|s|h)\b ?)+", "T ", line)
    return " ".join(line.replace("workers", "worker").split())


def test_the_tutorial_can_be_followed_to_its_end(folder: Path) -> None:
    for name in TUTORIAL:
        play(folder, ROOT / "docs" / "tutorial" / f"{name}.md")
    report = folder / "runs" / "rotation" / "report" / "figures"
    for picture in (ROOT / "docs" / "tutorial" / "pictures").glob("*.png"):
        assert (report / picture.name).is_file(), "a picture of a figure that is drawn no more"


def test_the_same_study_runs_in_each_tool_that_is_here(folder: Path) -> None:
    play(folder, ROOT / "docs" / "how-to" / "coming-from.md")
    ours = shell(folder, "stormsweep results runs/digits --format json")
    assert ours.count("roc_auc_mean") == 8
    for tool in ("with_optuna.py", "with_scikit_learn.py"):
        assert "learning_rate" in shell(folder, f"{sys.executable} {tool}")


def test_a_model_and_data_of_ones_own_run(folder: Path) -> None:
    page = list(blocks(ROOT / "docs" / "how-to" / "your-own-model.md"))
    for block in page:
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    (model,) = (block.text for block in page if 'build = "model.py:net"' in block.text)
    (data,) = (block.text for block in page if 'source = "mydata.py:load"' in block.text)
    (folder / "own.toml").write_text(f'[study]\nname = "own"\n{data}\n{model}', encoding="utf-8")
    shell(folder, "stormsweep run own.toml --no-report")
    assert shell(folder, "stormsweep status runs/own").startswith("own: finished")


def python(page: str) -> list[Block]:
    """Return the Python of a page."""
    return [block for block in blocks(ROOT / page) if block.language == "python"]


def test_the_python_of_the_readme_of_prediction_and_of_notebooks_runs(folder: Path) -> None:
    small = (ROOT / "studies" / "quickstart.toml").read_text()
    for much, little in (
        ("patches = 4000", "patches = 800"),
        ("batch_size = [128, 512]", "batch_size = [128]"),
        ("learning_rate = [0.001, 0.005, 0.01]", "learning_rate = [0.005]"),
    ):
        assert much in small
        small = small.replace(much, little)
    (folder / "studies").mkdir()
    (folder / "studies" / "quickstart.toml").write_text(small)
    (code,) = python("README.md")
    script(folder, code)
    shell(folder, "stormsweep verify runs/quickstart --no-report")
    shell(folder, "cp $(ls data/twin-800-*/*_nc_small/*.nc | tail -1) today.nc")
    (code,) = python("docs/how-to/verify-and-predict.md")
    script(folder, code)
    assert (folder / "probabilities.nc").is_file()
    cells = python("docs/how-to/notebook.md")
    script(folder, replace(cells[0], text="\n".join(cell.text for cell in cells)))
