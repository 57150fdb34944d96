"""A study's directory keeps scores of two versions of a model apart, and no more than that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stormsweep.errors import JournalError
from stormsweep.models.checksum import checksum
from stormsweep.study.directory import StudyDirectory
from stormsweep.study.study import Study
from tests import journals


@pytest.mark.parametrize("trained", [False, True])
def test_an_edited_builder_is_refused_before_workers_are_started(
    tmp_path: Path, trained: bool
) -> None:
    """`plan` says so too; data are not prepared for nothing."""
    builder = tmp_path / "m.py"
    builder.write_text("def net(input_shape): ...\n", encoding="utf-8")
    space = {"batch_size": [128], "epochs": [5]}
    run = journals.plan(journals.points_of(space), 1, [5, 10])[0]
    with journals.writer(tmp_path / "journal.jsonl") as write:
        write(0.0, journals.about(space, 1, model={"build": "m.py:net", "sha256": "old"}))
        write(1.0, run)
        if trained:
            write(2.0, journals.task(run, 0, 5))
    text = f'[study]\nname = "x"\n[model]\nbuild = "{builder}:net"\n'
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    study = Study.from_toml(tmp_path)
    if not trained:
        study.check(source=True)
        return
    with pytest.raises(JournalError, match="what was trained with it is on record"):
        study.check(source=True)


def test_an_edit_of_what_a_builder_imports_is_refused_before_workers_are_started(
    tmp_path: Path,
) -> None:
    builder, blocks = tmp_path / "m.py", tmp_path / "blocks.py"
    builder.write_text("import blocks\ndef net(input_shape): ...\n", encoding="utf-8")
    blocks.write_text("size = 2\n", encoding="utf-8")
    spec, space = f"{builder}:net", {"batch_size": [128], "epochs": [5]}
    run = journals.plan(journals.points_of(space), 1, [5])[0]
    with journals.writer(tmp_path / "journal.jsonl") as write:
        model = {"build": "m.py:net", "sha256": checksum(spec, builder)}
        write(0.0, journals.about(space, 1, model=model))
        write(1.0, run)
        write(2.0, journals.task(run, 0, 5))
    text = f'[study]\nname = "x"\n[model]\nbuild = "{spec}"\n'
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    study = Study.from_toml(tmp_path)
    study.check(source=True)
    blocks.write_text("size = 3\n", encoding="utf-8")
    with pytest.raises(JournalError, match="or one that it imports, was edited since"):
        study.check(source=True)


@pytest.mark.parametrize("trained", [False, True])
def test_a_builder_may_be_mended_until_something_is_trained_with_it(
    tmp_path: Path, trained: bool
) -> None:
    space = {"batch_size": [128], "epochs": [5]}
    runs = journals.plan(journals.points_of(space), 1, [5])
    with journals.writer(tmp_path / "journal.jsonl") as write:
        write(0.0, journals.about(space, 1, model={"build": "m.py:net", "sha256": "old"}))
        write(1.0, runs[0])
        if trained:
            write(2.0, journals.task(runs[0], 0, 5))
    file: Any = SimpleNamespace(
        model=SimpleNamespace(build="m.py:net"), study=SimpleNamespace(name="x")
    )
    kept = StudyDirectory(file, tmp_path / "study.toml", tmp_path)
    kept.refuse_other_model("old")
    if not trained:
        kept.refuse_other_model("mended")
        return
    with pytest.raises(JournalError, match="what was trained with it is on record"):
        kept.refuse_other_model("mended")
