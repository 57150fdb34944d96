"""Losing these: following a study from another shell, live on a terminal and as plain lines."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import command, digits_study, start, tasks, wait_for


@pytest.mark.usefixtures("no_orphans")
def test_a_run_is_followed_from_another_shell_until_it_is_over(tmp_path: Path) -> None:
    driver = start(tmp_path, "run", digits_study(tmp_path), "--no-report")
    directory = tmp_path / "runs" / "digits"
    wait_for(lambda: bool(tasks(directory)), driver)
    with open(tmp_path / "plain.txt", "wb") as out:
        plain = subprocess.Popen(
            command(tmp_path, "watch", directory), cwd=tmp_path, stdout=out, stderr=out
        )
    shown = on_a_terminal(command(tmp_path, "watch", directory), tmp_path)
    driver.communicate(timeout=300)
    assert plain.wait(timeout=120) == 0
    said = (tmp_path / "plain.txt").read_text()
    assert "digits: finished" in said
    assert "32/32 tasks (100 %)" in said
    assert "best roc_auc 0.9" in said
    assert re.search(r"[0-2]/2 workers busy", said)
    assert "digits: finished" in shown
    # What the workers were at: batch size, fold, epochs.
    assert re.search(r"batch_size (16|32), learning_rate 0\.0\d+ +[01] +\d+-\d+ +\d+ s", shown)
    assert " left" in shown
    assert "1/2 workers busy" in shown or "2/2 workers busy" in shown


def on_a_terminal(arguments: list[str], folder: Path, seconds: float = 300) -> str:
    """Run a command on a terminal of its own; return what it wrote there, without its colours."""
    ours, theirs = pty.openpty()
    terminal = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        arguments, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=terminal
    )
    os.close(theirs)
    written, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1.0)[0]:
            continue
        try:
            written += os.read(ours, 65536)
        except OSError:  # It is over, and nobody else has the terminal.
            break
    os.close(ours)
    assert process.wait(timeout=30) == 0, written
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
