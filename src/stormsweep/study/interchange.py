"""A study given to the tools of others: its journal, or its verified model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.neighbours.export import Exported, export, place
from stormsweep.neighbours.owned import need
from stormsweep.study.delivery import FOLDER, read_facts

if TYPE_CHECKING:
    from stormsweep.study.study import Study


def export_to(study: Study, to: str, output: Path | str | None) -> Exported:
    """Write a study for a tool of others; see `stormsweep.study.study.Study.export_to`."""
    where = place(to, output, study.directory)
    if to == "onnx":
        _write_onnx(study.directory, Path(where))
        return Exported(to, where, "")
    return export(study.entries(), to, where, study.file.search.objectives)


def _write_onnx(directory: Path, path: Path) -> None:
    """Write the verified model as ONNX; what is at `path` must be one that we wrote, or nothing."""
    from stormsweep.errors import UserError
    from stormsweep.files import replacing, writing
    from stormsweep.study.predict import model_loaded

    facts = read_facts(directory / FOLDER)
    for module in ("onnx", "tf2onnx", "onnxruntime"):
        need("onnx", module, module, "onnx")
    if path.exists() and not (path.is_file() and path.suffix == ".onnx"):
        raise UserError(f"{path}: is there already and is no ONNX file; name another with --output")
    with model_loaded(directory, facts) as model, writing(path), replacing(path) as beside:
        from stormsweep.training.onnx import write_onnx

        write_onnx(model, beside, facts["input_shape"])
