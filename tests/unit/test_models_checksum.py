"""Losing this: scores of two versions of a model are mixed, or an unchanged one is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from stormsweep import files
from stormsweep.errors import ModelError
from stormsweep.models.checksum import checksum

BUILDER = "from blocks import block\ndef net(input_shape, width=3):\n    return block(width)\n"
BLOCKS = "from parts import sub\ndef block(width):\n    return sub.size * width\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A builder's file that imports one beside it, which imports one of a package."""
    write(tmp_path / "blocks.py", BLOCKS)
    write(tmp_path / "parts" / "__init__.py", "")
    write(tmp_path / "parts" / "sub.py", "size = 2\n")
    write(tmp_path / "other.py", "size = 2\n")
    return write(tmp_path / "model.py", BUILDER)


def of_file(model: Path) -> str:
    return checksum(f"{model}:net", model)


@pytest.mark.parametrize(
    "text",
    [
        "def net(): ...\n",
        # What is installed, and what is no code of the model's, has no say.
        "import os, json.decoder\nfrom stormsweep.models import storm_cnn\ndef net(): ...\n",
        "import nowhere\ndef net(): ...\n",
        "if __name__ == '__main__':\n    import other\ndef net(): ...\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import other\ndef net(): ...\n",
    ],
)
def test_a_builder_that_is_one_file_has_the_checksum_of_that_file(model: Path, text: str) -> None:
    """Losing this: studies on disk are refused, as if their model had been edited."""
    write(model, text)
    assert of_file(model) == sha256(text.encode()).hexdigest()


def test_the_shipped_models_have_the_checksum_of_their_file() -> None:
    import stormsweep.models.storm

    file = Path(stormsweep.models.storm.__file__)
    for spec in ("stormsweep.models:storm_cnn", "stormsweep.models.storm:storm_dnn"):
        assert checksum(spec, file) == sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["model.py", "blocks.py", "parts/sub.py"])
def test_an_edit_of_what_a_builder_imports_is_noticed(model: Path, name: str) -> None:
    before = of_file(model)
    path = model.parent / name
    write(path, path.read_text(encoding="utf-8") + "\n# edited\n")
    assert of_file(model) != before


@pytest.mark.parametrize("name", ["other.py", "new.py", "parts/new.py", "parts/__init__.py"])
def test_an_edit_of_what_a_builder_does_not_import_is_let_through(model: Path, name: str) -> None:
    before = of_file(model)
    write(model.parent / name, "# edited\n")
    assert of_file(model) == before


@pytest.mark.parametrize(
    "line",
    [
        "import other",
        "import parts.deep",
        "import parts.deep as d",
        "from parts import *",
        "from parts import deep",
        "from parts.deep import thing",
        "def net():\n    import other",
        "try:\n    import nowhere\nexcept ImportError:\n    import other",
        "match 1:\n    case 1:\n        import other",
        "if __name__ == '__main__':\n    pass\nelse:\n    import other",
    ],
)
def test_every_way_to_import_is_seen(model: Path, line: str) -> None:
    """``parts`` imports what the builder then has from it."""
    write(model.parent / "parts" / "__init__.py", "from .deep import thing\n")
    write(model.parent / "parts" / "deep.py", "from .. import nothing\nfrom .sub import size\n")
    write(model, f"{line}\n")
    before = of_file(model)
    write(model.parent / ("other.py" if "other" in line else "parts/sub.py"), "size = 5\n")
    assert of_file(model) != before


def test_modules_that_import_each_other_or_are_broken_end_nothing(model: Path) -> None:
    write(model.parent / "blocks.py", "import model, broken\n")
    broken = write(model.parent / "broken.py", "def (:\n")
    before = of_file(model)
    write(broken, "def mended(): ...\n")
    assert of_file(model) != before


def test_a_folder_may_be_moved_or_reached_by_a_link(model: Path, tmp_path: Path) -> None:
    """Losing this: a study is refused where a site's file system has two names."""
    before, folder = of_file(model), tmp_path / "elsewhere"
    folder.symlink_to(model.parent, target_is_directory=True)
    assert of_file(folder / "model.py") == before
    assert checksum(f"{folder / 'model.py'}:net", model) == before
    moved = tmp_path / "moved"
    for name in ("model.py", "blocks.py", "parts/__init__.py", "parts/sub.py"):
        write(moved / name, (model.parent / name).read_text(encoding="utf-8"))
    assert of_file(moved / "model.py") == before


def test_a_package_counts_as_far_as_its_builder_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder, spec = tmp_path / "package_of_nets", "package_of_nets.deep.nets:net"
    write(folder / "__init__.py", "")
    write(folder / "deep" / "__init__.py", "")
    write(folder / "blocks.py", "x = 1\n")
    nets = write(
        folder / "deep" / "nets.py",
        "import random\nfrom ..blocks import x\nimport package_of_nets.more\ndef net(): ...\n",
    )
    known = {checksum(spec, nets)}
    for name in ("blocks.py", "more.py", "deep/nets.py"):
        write(folder / name, f"x = '{name}'\n")
        known.add(checksum(spec, nets))
    assert len(known) == 4
    # Beside the package, and in it under a name of Python's own.
    write(tmp_path / "random.py", "x = 2\n")
    write(folder / "random.py", "x = 2\n")
    write(folder / "deep" / "random.py", "x = 2\n")
    assert checksum(spec, nets) in known


def test_a_function_that_a_file_takes_from_another_is_covered_by_both(model: Path) -> None:
    """Losing this: the study trains another function of the same file without a word."""
    blocks = write(model.parent / "blocks.py", "def one(): ...\ndef two(): ...\n")
    known = set()
    for name in ("one", "two"):
        write(model, f"from blocks import {name} as net\n")
        known.add(checksum(f"{model}:net", blocks))
    write(blocks, "def one(): ...\ndef two():\n    return 2\n")
    known.add(checksum(f"{model}:net", blocks))
    assert len(known) == 3


def test_a_function_of_another_folder_is_covered_beside_a_file_of_its_name(tmp_path: Path) -> None:
    """Losing this: an edit of one of the two goes unnoticed; which one, differs by process."""
    theirs = write(tmp_path / "mylib" / "model.py", "def net(): ...\n")
    ours = write(tmp_path / "study" / "model.py", "from mylib.model import net\n")
    known = {checksum(f"{ours}:net", theirs)}
    for path in (ours, theirs):
        write(path, path.read_text(encoding="utf-8") + "# edited\n")
        known.add(checksum(f"{ours}:net", theirs))
    assert len(known) == 3
    for name in ("study", "mylib"):
        write(tmp_path / "moved" / name / "model.py", (tmp_path / name / "model.py").read_text())
    moved = tmp_path / "moved"
    spec = f"{moved / 'study' / 'model.py'}:net"
    assert checksum(spec, moved / "mylib" / "model.py") in known


def test_a_function_of_another_folder_and_name_keeps_its_checksum(tmp_path: Path) -> None:
    """Losing this: studies on disk are refused, as if their model had been edited."""
    theirs = write(tmp_path / "mylib" / "nets.py", "def net(): ...\n")
    ours = write(tmp_path / "study" / "model.py", "from mylib.nets import net\n")
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in (ours, theirs)]
    assert checksum(f"{ours}:net", theirs) == sha256("".join(lines).encode()).hexdigest()


def test_a_file_that_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losing this: it is told that the model was edited, or edits go unnoticed from then on."""
    read = files.sha256

    def fail(path: Path) -> str:
        if path.name == "sub.py":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return read(path)

    monkeypatch.setattr(files, "sha256", fail)
    with pytest.raises(ModelError) as refused:
        of_file(model)
    where = model.parent / "parts" / "sub.py"
    assert str(refused.value) == f"model.build: {where}: cannot be read (Stale file handle)"


def test_a_function_that_was_made_from_a_text_is_covered_by_the_file_that_is_named(
    model: Path,
) -> None:
    """A decorator may make it so: it stands in no file that anybody could read."""
    assert checksum(f"{model}:net", Path("<string>")) == checksum(f"{model}:net", None)
    assert checksum("builtins:len", Path("<string>")) == ""


BUILDERS = {
    "partial": "import functools\nfrom blocks import block\nnet = functools.partial(block, 3)\n",
    "wrapped": (
        "import functools\nfrom blocks import block\n@functools.wraps(functools.partial(block))\n"
        "def net(width=1): ...\nnet.__wrapped__ = functools.partial(block)\n"
    ),
    "object": "from blocks import block\nclass Net:\n    def __call__(self): ...\nnet = Net()\n",
    "function": BUILDER,
}
SEEN_BY_A_WORKER = """
import contextlib, sys, types
# What the model draws and computes in is not the matter here, and Keras takes seconds to import.
fake = types.SimpleNamespace(seeded=lambda seed: contextlib.nullcontext())
sys.modules["stormsweep.training.randomness"] = fake
fake = types.SimpleNamespace(precision_of_layers=lambda precision: contextlib.nullcontext())
sys.modules["stormsweep.training.policy"] = fake
sys.path.insert(0, sys.argv[2])
for name in sys.argv[3:]:
    __import__(name)
from stormsweep.study.setup import builder_of
print(builder_of(sys.argv[1], 3)[1])
"""


def seen_by_a_worker(model: Path, *first: str) -> str:
    """Return the checksum that a new process finds, having imported other modules before."""
    called = [sys.executable, "-c", SEEN_BY_A_WORKER, f"{model}:net", str(model.parent), *first]
    done = subprocess.run(called, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_workers_find_the_same_whatever_they_imported_and_notice_an_edit(
    model: Path, kind: str
) -> None:
    write(model, BUILDERS[kind])
    before = seen_by_a_worker(model)
    assert before
    assert seen_by_a_worker(model, "other", "parts", "blocks") == before
    if kind == "function":
        assert of_file(model) == before, "the driver, which imports no model, finds another"
    write(model.parent / "blocks.py", BLOCKS.replace("* width", "+ width"))
    assert seen_by_a_worker(model) != before
