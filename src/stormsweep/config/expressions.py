"""Expressions over hyperparameters, computed by walking them: nothing of a file is ever executed.

Known are names, numbers, texts, lists of these, ``+ - * / // % **``, comparisons (chained and
``in``, too), ``and``, ``or`` and ``not``, with the meaning that Python gives them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What values of hyperparameters stand for, by hyperparameter and value.
Meanings = Mapping[str, Mapping[Any, Any]]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}
#: Whole numbers beyond this are not raised to powers: they would take the machine.
_LARGEST_POWER = 64
_LARGEST_BASE = 10**6


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was found sound.

    Attributes
    ----------
    text : str
        As it was written.
    names : frozenset of str
        The hyperparameters in it.
    meant : mapping
        What the expression is about where values only stand for others.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr
    meant: Meanings = field(default_factory=dict, compare=False)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the expression is true.

        Parameters
        ----------
        values : mapping
            Value of every name in it.

        Raises
        ------
        ValueError
            If it cannot be computed with these, or is neither true nor false.
        """
        try:
            value = _value(self._tree, self.known(values))
        except (ArithmeticError, TypeError) as error:
            raise ValueError(f"cannot be computed ({error})") from None
        if not isinstance(value, bool):
            raise ValueError(f"must be a comparison; it is {value!r}, neither true nor false")
        return value

    def known(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the names in it stand for, of the values of all."""
        return {
            name: self.meant[name][values[name]] if name in self.meant else values[name]
            for name in self.names
        }


def parse(text: str, meant: Meanings | None = None) -> Expression:
    """Read an expression.

    Parameters
    ----------
    text : str
        The expression.
    meant : mapping, optional
        What values stand for, where they do.

    Raises
    ------
    ValueError
        If it is no expression, or holds what is not allowed.

    Examples
    --------
    >>> sorted(parse("filters * layers <= 256").names)
    ['filters', 'layers']
    >>> parse("filters * layers <= 256").holds({"filters": 64, "layers": 5})
    False
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            'is no expression such as "filters * layers <= 256"; hyperparameters, numbers and '
            "texts, + - * / // % **, comparisons, and, or, not are known"
        ) from None
    names: set[str] = set()
    _check(tree, names)
    return Expression(text, frozenset(names), tree, meant or {})


def _check(node: ast.expr, names: set[str], depth: int = 0) -> None:
    if depth > 50:
        raise ValueError("is nested too deep")
    match node:
        case ast.Name(id=name):
            names.add(name)
            return
        case ast.Constant(value=value) if isinstance(value, bool | int | float | str):
            return
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            parts = [left, right]
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() | ast.Not(), operand=operand):
            parts = [operand]
        case ast.BoolOp(values=values):
            parts = values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _COMPARISONS for op in ops
        ):
            parts = [left, *others]
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            parts = elements
        case _:
            raise ValueError(
                f"{ast.unparse(node)} is not allowed; hyperparameters, numbers and texts, "
                "+ - * / // % **, comparisons, and, or, not are"
            )
    for part in parts:
        _check(part, names, depth + 1)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _value(left, values), _value(right, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.UnaryOp(op=sign, operand=operand):
            number = _number(_value(operand, values))
            return -number if isinstance(sign, ast.USub) else number
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_truth(_value(part, values)) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_truth(_value(part, values)) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            one = _value(left, values)
            for comparison, other in zip(ops, others, strict=True):
                two = _value(other, values)
                if not _COMPARISONS[type(comparison)](one, two):
                    return False
                one = two
            return True
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element, values) for element in elements]
    raise AssertionError(ast.dump(node))  # _check lets nothing else through.


def _arithmetic(op: ast.operator, one: Any, two: Any) -> Any:
    one, two = _number(one), _number(two)
    if isinstance(op, ast.Pow) and (abs(one) > _LARGEST_BASE or abs(two) > _LARGEST_POWER):
        one = float(one)
    result = _ARITHMETIC[type(op)](one, two)
    if isinstance(result, complex):
        raise TypeError("a root of a negative number")
    return result


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
