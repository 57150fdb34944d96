"""Stormsweep: tune a model's hyperparameters in parallel, and measure the search while it runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stormsweep.data.prepared import PreparedData
    from stormsweep.errors import (
        DataError,
        JournalError,
        ModelError,
        RunError,
        SlurmError,
        StormsweepError,
        StudyBusyError,
        StudyFileError,
        StudyInterrupted,
        UserError,
    )
    from stormsweep.models.estimators import KerasClassifier, KerasRegressor
    from stormsweep.neighbours.export import Exported
    from stormsweep.neighbours.foreign import import_points
    from stormsweep.neighbours.points import known_points
    from stormsweep.neighbours.wanted import Imported
    from stormsweep.report import write_report
    from stormsweep.report.compare import write_comparison
    from stormsweep.scaling.advice import Advice, Budget
    from stormsweep.scaling.compare import compare
    from stormsweep.scaling.comparison import Comparison
    from stormsweep.scaling.foretold import Foretold
    from stormsweep.scaling.machine import Wait
    from stormsweep.search.plan import Plan
    from stormsweep.search.space import Interval
    from stormsweep.study.foretelling import Circumstances
    from stormsweep.study.notebook import NotebookProgress
    from stormsweep.study.predict import predict
    from stormsweep.study.scale import Scaling, scale
    from stormsweep.study.session import Outcome
    from stormsweep.study.study import Study
    from stormsweep.study.submission import Submission
    from stormsweep.sweepcv.search_cv import SweepSearchCV

#: Where each public name lives: nothing heavy is imported before it is needed.
_HOMES = {
    "Advice": "stormsweep.scaling.advice",
    "Budget": "stormsweep.scaling.advice",
    "Circumstances": "stormsweep.study.foretelling",
    "Comparison": "stormsweep.scaling.comparison",
    "DataError": "stormsweep.errors",
    "Exported": "stormsweep.neighbours.export",
    "Foretold": "stormsweep.scaling.foretold",
    "Imported": "stormsweep.neighbours.wanted",
    "Interval": "stormsweep.search.space",
    "JournalError": "stormsweep.errors",
    "KerasClassifier": "stormsweep.models.estimators",
    "KerasRegressor": "stormsweep.models.estimators",
    "ModelError": "stormsweep.errors",
    "NotebookProgress": "stormsweep.study.notebook",
    "Outcome": "stormsweep.study.session",
    "Plan": "stormsweep.search.plan",
    "PreparedData": "stormsweep.data.prepared",
    "RunError": "stormsweep.errors",
    "Scaling": "stormsweep.study.scale",
    "SlurmError": "stormsweep.errors",
    "StormsweepError": "stormsweep.errors",
    "Study": "stormsweep.study.study",
    "StudyBusyError": "stormsweep.errors",
    "StudyFileError": "stormsweep.errors",
    "StudyInterrupted": "stormsweep.errors",
    "Submission": "stormsweep.study.submission",
    "SweepSearchCV": "stormsweep.sweepcv.search_cv",
    "UserError": "stormsweep.errors",
    "Wait": "stormsweep.scaling.machine",
    "compare": "stormsweep.scaling.compare",
    "import_points": "stormsweep.neighbours.foreign",
    "known_points": "stormsweep.neighbours.points",
    "predict": "stormsweep.study.predict",
    "scale": "stormsweep.study.scale",
    "write_comparison": "stormsweep.report.compare",
    "write_report": "stormsweep.report",
}

__all__ = [
    "Advice",
    "Budget",
    "Circumstances",
    "Comparison",
    "DataError",
    "Exported",
    "Foretold",
    "Imported",
    "Interval",
    "JournalError",
    "KerasClassifier",
    "KerasRegressor",
    "ModelError",
    "NotebookProgress",
    "Outcome",
    "Plan",
    "PreparedData",
    "RunError",
    "Scaling",
    "SlurmError",
    "StormsweepError",
    "Study",
    "StudyBusyError",
    "StudyFileError",
    "StudyInterrupted",
    "Submission",
    "SweepSearchCV",
    "UserError",
    "Wait",
    "__version__",
    "compare",
    "import_points",
    "known_points",
    "predict",
    "scale",
    "write_comparison",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
