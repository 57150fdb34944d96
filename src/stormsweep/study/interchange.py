"""A study given to the tools of others: its journal, or its verified model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.errors import UserError
from stormsweep.neighbours.export import Exported, export, place
from stormsweep.neighbours.owned import need
from stormsweep.neighbours.told import told
from stormsweep.study.delivery import FOLDER, read_facts

if TYPE_CHECKING:
    from stormsweep.study.study import Study


def export_to(study: Study, to: str, output: Path | str | None) -> Exported:
    """Write a study for a tool of others; see `stormsweep.study.study.Study.export_to`."""
    where = place(to, output, study.directory)
    if to == "onnx":
        _write_onnx(study, Path(where))
        return Exported(to, where, "")
    return export(study.entries(), to, where, study.file.search.objectives)


def _write_onnx(study: Study, path: Path) -> None:
    """Write the verified model as ONNX; what is at `path` must be this study's, or nothing."""
    from stormsweep.files import replacing, writing
    from stormsweep.study.predict import model_loaded

    directory = study.directory
    facts = read_facts(directory / FOLDER)
    for module in ("onnx", "tf2onnx", "onnxruntime"):
        need("onnx", module, module, "onnx")
    owner = told(study.entries()).journal
    _refuse_other(path, owner)
    place = path.resolve()  # a link stays one
    with model_loaded(directory, facts) as model, writing(place), replacing(place) as beside:
        from stormsweep.training.onnx import write_onnx

        write_onnx(model, beside, facts["input_shape"], owner)


def _refuse_other(path: Path, owner: str) -> None:
    from stormsweep.training.onnx import owner_of

    if not path.exists():
        return
    there = owner_of(path) if path.is_file() else None
    if there is None:
        raise UserError(
            f"{path}: is there already and is no model that Stormsweep wrote; "
            "name another with --output"
        )
    if there != owner:
        raise UserError(
            f"{path}: holds the export of another study, {there.rpartition('@')[0]!r}; "
            "name another file with --output"
        )
