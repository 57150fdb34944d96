"""Losing this: a file that somebody else wrote runs their code as the user."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest

from stormsweep.cluster.node_order import make_private, remove_private
from stormsweep.training import checkpoint

SOURCE = Path(__file__).parents[2] / "src" / "stormsweep"
#: What reads objects from bytes.
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
#: Where bytes are unpickled that came over TLS, and nothing else.
ALLOWED = {"cluster/line.py"}

#: A count of cores, by joblib's own rules: it loads nothing.
HARMLESS = {"sweepcv/crew.py": {"joblib"}}


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.ImportFrom):
            names |= set((node.module or "").split(".")) | {alias.name for alias in node.names}
    return names


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize(
    "file", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_nothing_is_unpickled_from_files(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    where = file.relative_to(SOURCE).as_posix()
    if where not in ALLOWED:
        assert imported(tree).isdisjoint(UNPICKLERS - HARMLESS.get(where, set()))
    for call in calls(tree):
        said = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert said.get("allow_pickle", "False") == "False"
        assert said.get("safe_mode", "True") == "True"
        name = ast.unparse(call.func)
        assert name not in ("eval", "exec", "os.system", "pd.read_pickle", "pandas.read_pickle")
        assert said.get("shell", "False") == "False"
        if name == "keras.saving.load_model":
            assert said.get("safe_mode") == "True"


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_holds_objects_runs_nothing(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, "r", 5, {"w": np.ones(3)}, {"scores": 1})
    assert checkpoint.load(tmp_path, "r", 5) is not None
    mark = tmp_path / "mark"
    with np.load(path) as stored:
        arrays = dict(stored)
    objects = np.array([Evil(mark)], dtype=object)
    np.savez(path, **arrays | {"state/w": objects}, allow_pickle=True)
    with np.load(path, allow_pickle=True) as stored:
        assert stored["state/w"] is not None
    assert mark.exists(), "the test would not notice"
    mark.rmdir()
    told: list[str] = []
    assert checkpoint.load(tmp_path, "r", 5, told.append) is None
    assert "allow_pickle" in told[0]
    assert not mark.exists()


def test_a_driver_that_ends_leaves_the_certificates_of_the_one_that_took_over(
    tmp_path: Path,
) -> None:
    first, _ = make_private(tmp_path / ".private", "first")
    second, _ = make_private(tmp_path / ".private", "second")
    remove_private(first)
    assert sorted(path.name for path in second.iterdir()) == ["certificate.pem", "key.pem"]
    remove_private(second)
    assert list(tmp_path.iterdir()) == []
