"""A study file of one's own, commented from the very models that check it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stormsweep.config.study import StudyFile

#: What a newcomer should find filled in, where it differs from the default.
_FILLED: dict[str, Any] = {
    "data.patches": 2000,
    "balance.method": "oversample",
}
_SPACE = """\
# [search.space]: one line a hyperparameter, each a list of values. Those that the model's builder
# takes by name reach it; batch_size and epochs are the engine's.
[search.space]
batch_size = [128, 512]
learning_rate = [0.001, 0.005]
epochs = [2, 4]
# Ranges, for any strategy but "grid", and hyperparameters that are there only beside certain values
# of others:
# dropout = {low = 0.0, high = 0.5}
# l2 = {low = 1e-6, high = 1e-2, log = true}
# filters = {low = 8, high = 64, log = true, integer = true}
# optimizer = ["adam", "sgd"]
# momentum = {low = 0.5, high = 0.99, when = {optimizer = ["sgd"]}}
# nesterov = {values = [true, false], when = {optimizer = ["sgd"]}}
"""


def template(name: str) -> str:
    """Return a study file with every key, its meaning and its default.

    Parameters
    ----------
    name : str
        Name of the study.

    Returns
    -------
    str
        TOML that loads as it is.
    """
    parts = [
        f"# The study {name!r}: run it with `stormsweep run` and the path of this file.",
        "# A working example with every key. A line that begins with '#' is not set. The default",
        "# stands above a value that is another.",
        "",
    ]
    for table, field in StudyFile.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        parts += [f"# {_one_line(model.__doc__ or '')}", f"[{table}]"]
        for key, entry in model.model_fields.items():
            parts += _key(table, key, entry, name)
        parts.append("")
        if table == "search":
            parts += [_SPACE]
    return "\n".join(parts)


def _key(table: str, key: str, field: FieldInfo, name: str) -> list[str]:
    dotted = f"{table}.{key}"
    if dotted == "search.space":
        return []
    default = field.get_default(call_default_factory=True)
    value = name if dotted == "study.name" else _FILLED.get(dotted, default)
    lines = [f"# {_one_line(field.description or '')}"]
    if dotted in _FILLED:
        lines.append(f"# Default: {_toml(default)}.")
    if value in (None, "") or isinstance(value, dict):
        return [*lines, f"# {key} = {_EXAMPLES[dotted]}"]
    return [*lines, f"{key} = {_toml(value)}"]


#: What unset keys may look like.
_EXAMPLES = {
    "data.path": '"storms"',
    "data.inputs": '["REFL_COM_curr", "U10_curr", "V10_curr"]',
    "data.target": '"RVORT1_MAX_future"',
    "data.threshold": "0.005",
    "data.first_date": "2011-01-01",
    "data.last_date": "2016-12-31",
    "data.groups": '{run_date = "file:(\\\\d{8})"}',
    "data.vectors": '{wind = ["images[1]", "images[2]"]}',
    "data.test_from": "2015-01-01",
    "model.parameters": "{filters = [8, 16, 32], dropout = 0.1}",
    "search.known": '"points.jsonl"',
    "search.first_folds": "1",
    "validation.split": '"grouped"',
    "validation.group_by": '"run_date"',
    "site.nodes": "2",
    "site.walltime": '"01:30:00"',
    "site.memory_gb": "4.0",
}


def _toml(value: Any) -> str:
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value)


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "").split())
