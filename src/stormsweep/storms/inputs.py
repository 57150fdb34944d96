"""What a study's inputs are: weather fields of the patches, or columns of the tables."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stormsweep.data.layout import Variable
from stormsweep.errors import DataError, nearest
from stormsweep.storms import schema

_CURRENT = tuple(name for name in schema.FIELDS if name.endswith("_curr"))
_SHAPE_UNITS = {
    "area": "cell",
    "eccentricity": "1",
    "major_axis_length": "cell",
    "minor_axis_length": "cell",
    "orientation": "rad",
}
#: The 41 columns that a storm can be predicted from, in the table's order, with their units: nine
#: statistics of the four fields of the current hour over the storm's cells, and the storm's shape.
PREDICTORS: dict[str, str] = {
    schema.column(field, statistic): schema.PHYSICAL_UNITS[field]
    for field in _CURRENT
    for statistic in schema.STATISTICS
} | {name: _SHAPE_UNITS[name] for name in schema.SHAPES}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of one kind.

    Attributes
    ----------
    kind : {"fields", "columns"}
        Channels of patches, or columns of tables.
    variables : tuple of Variable
        Names, units, and which are components of a vector.
    """

    kind: Literal["fields", "columns"]
    variables: tuple[Variable, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(variable.name for variable in self.variables)


def choose_inputs(asked: Sequence[str], target: str) -> Inputs:
    """Decide what ``data.inputs`` means for storms.

    Parameters
    ----------
    asked : sequence of str
        Weather fields; or columns of the tables, patterns such as ``*_mean`` among them.
    target : str
        The weather field that is predicted.

    Returns
    -------
    Inputs
        In the order asked for; a pattern's columns in the order of the table, each once.

    Raises
    ------
    DataError
        If a name is unknown, twice there, of the hour that is predicted or of the target itself, or
        both kinds are mixed.

    Examples
    --------
    >>> choose_inputs(["U10_mean", "*_axis_length"], "RVORT1_MAX_future").names
    ('U10_mean', 'major_axis_length', 'minor_axis_length')
    """
    fields: dict[str, Variable] = {}
    columns: dict[str, Variable] = {}
    for name in asked:
        if name == target:
            raise DataError(f"data.inputs: {name!r} is the target; remove it from the inputs")
        if _of_the_next_hour(name):
            raise DataError(
                f"data.inputs: {name!r} is of the hour after, the one that is predicted, and would "
                f"tell the model the answer; allowed: {', '.join(_CURRENT)}, or columns without "
                "-future"
            )
        if list(asked).count(name) > 1:
            raise DataError(f"data.inputs: {name!r} stands there twice")
        if name in _CURRENT:
            units, vector = schema.PHYSICAL_UNITS[name], schema.VECTORS.get(name, "")
            fields[name] = Variable(name, units, vector)
        else:
            for column in _columns(name):
                columns[column] = Variable(column, PREDICTORS[column])
    if fields and columns:
        raise DataError(
            f"data.inputs: {next(iter(fields))!r} is a weather field and {next(iter(columns))!r} a "
            "column of the table; all must be of one kind"
        )
    if of_target := {schema.column(target, one) for one in schema.STATISTICS} & columns.keys():
        raise DataError(
            f"data.inputs: {min(of_target)!r} is of {target}, the target, in the same hour, and "
            "would tell the model the answer; name columns of other fields only"
        )
    if columns:
        return Inputs("columns", tuple(columns.values()))
    return Inputs("fields", tuple(fields.values()))


def _of_the_next_hour(name: str) -> bool:
    return "future" in name and name in (*schema.FIELDS, *schema.COLUMNS)


def _columns(name: str) -> list[str]:
    if glob.has_magic(name):
        found = [column for column in PREDICTORS if fnmatch.fnmatchcase(column, name)]
        if not found:
            raise DataError(
                f"data.inputs: no column fits the pattern {name!r}; there are "
                f"{', '.join(PREDICTORS)}"
            )
        return found
    if name not in PREDICTORS:
        known = [*_CURRENT, *PREDICTORS]
        hint = nearest(name, known)
        what = "is a column, but no predictor" if name in schema.COLUMNS else "is unknown"
        raise DataError(
            f"data.inputs: {name!r} {what}{hint}; allowed: the fields {', '.join(_CURRENT)}, or "
            f"the columns FIELD_STATISTIC such as U10_mean, and {', '.join(schema.SHAPES)}"
        )
    return [name]
