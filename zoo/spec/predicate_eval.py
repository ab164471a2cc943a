"""Evaluation of a checked predicate over columns: kinds of value, each with a missing mask.

Numbers of several precisions meet by one rule, however they are spelled: where a column of single
(or half) precision meets another number, both are rounded to that precision. What they make is
worked out in double precision, counts as single, and is rounded in turn where it is compared. So
``step_lr == 0.1``, ``step_lr == lr``, ``step_lr * 10 == 1`` and ``step_lr - lr == 0`` agree.
Integers compare exactly with integers.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import QueryError

__all__ = ["Evaluator"]

NUMBER, TEXT, TRUTH, NOTHING = "number", "text", "true or false", "None"
_Array = NDArray[Any]
_ORDER = {ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal}
_ARITHMETIC = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.remainder,
}


@dataclass(frozen=True, slots=True)
class _Value:
    """A column, a literal or the result of a part.

    Args:
        kind: one of the four kinds.
        data: an array, or a plain Python number or string.
        missing: where there is no value.
        narrow: the type with fewer digits than a double that the numbers come from, or None.
    """

    kind: str
    data: Any
    missing: _Array
    narrow: np.dtype[Any] | None = None


_NEVER = np.zeros((), dtype=bool)


class Evaluator:
    """Evaluates one checked syntax tree.

    Args:
        text: the predicate, for messages.
        columns: what its names stand for.
        narrow: precision of its literals, where that is less than a double's.
    """

    def __init__(
        self, text: str, columns: Mapping[str, object], narrow: np.dtype[Any] | None = None
    ) -> None:
        self.text = text
        self.columns = columns
        self.narrow = narrow

    def result(self, tree: ast.expr) -> NDArray[np.bool_]:
        """Return where ``tree`` holds."""
        with np.errstate(all="ignore"):
            return np.asarray(self._truth(tree), dtype=np.bool_)

    def _fail(self, node: ast.expr, message: str) -> QueryError:
        part = ast.get_source_segment(self.text, node) or self.text
        return QueryError(f"in `{part}`: {message}\n    {self.text}")

    def _truth(self, node: ast.expr) -> _Array:
        value = self._value(node)
        if value.kind != TRUTH:
            fix = "compare it, as in `width >= 64`"
            raise self._fail(node, f"{value.kind} is not a condition; {fix}")
        return np.asarray(np.logical_and(value.data, ~value.missing))

    def _value(self, node: ast.expr) -> _Value:
        match node:
            case ast.Name(id=name):
                return self._column(node, name)
            case ast.Constant(value=literal):
                return _literal(literal, self.narrow)
            case ast.BoolOp(op=op, values=values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                out = self._truth(values[0])
                for part in values[1:]:
                    out = join(out, self._truth(part))
                return _Value(TRUTH, out, _NEVER)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Value(TRUTH, np.logical_not(self._truth(operand)), _NEVER)
            case ast.UnaryOp(op=op, operand=operand):
                value = self._number(operand)
                data = value.data if isinstance(op, ast.UAdd) else -value.data
                return _Value(NUMBER, data, value.missing, value.narrow)
            case ast.BinOp(op=op, left=left, right=right):
                ufunc = _ARITHMETIC[type(op)]
                one, other = self._number(left), self._number(right)
                missing = np.logical_or(one.missing, other.missing)
                narrow = _narrower(one, other)
                a, b = (
                    # what single numbers have made is a double already, and stays one
                    _rounded(v, None if v.narrow == narrow else narrow).astype(np.float64)[()]
                    for v in (one, other)
                )
                return _Value(NUMBER, ufunc(a, b), missing, narrow)
            case ast.Compare():
                return _Value(TRUTH, self._compare(node), _NEVER)
        raise self._fail(node, "is not in the grammar")

    def _column(self, node: ast.expr, name: str) -> _Value:
        if name not in self.columns:
            raise self._fail(node, f"column {name!r} was not given")
        array = np.asarray(self.columns[name])
        kind = array.dtype.kind
        if kind == "b":
            return _Value(TRUTH, array, _NEVER)
        if kind in "iu":
            return _Value(NUMBER, array, _NEVER)
        if kind == "f":
            narrow = array.dtype if array.dtype.itemsize < 8 else None
            return _Value(NUMBER, array, np.isnan(array), narrow)
        if kind == "U":
            return _Value(TEXT, array, _NEVER)
        if kind == "S":
            return _Value(TEXT, np.char.decode(array, "utf-8"), _NEVER)
        if kind in "OT":
            return self._objects(node, array.astype(object))
        raise self._fail(node, f"a column of type {array.dtype} cannot be queried")

    def _objects(self, node: ast.expr, array: _Array) -> _Value:
        """Read a column of Python objects: values of one kind, and None where one is missing."""
        items = array.ravel().tolist()
        missing = np.array([i is None for i in items], dtype=bool).reshape(array.shape)
        types = {type(i) for i in items if i is not None}
        if not types:
            return _Value(NOTHING, np.zeros(array.shape), missing)
        if types == {bool}:
            return _Value(TRUTH, np.array([bool(i) for i in items]).reshape(array.shape), missing)
        if all(issubclass(t, str) for t in types):
            filled = np.array(["" if i is None else str(i) for i in items])
            return _Value(TEXT, filled.reshape(array.shape), missing)
        if all(issubclass(t, bool | int | float | np.number) for t in types):
            numbers = np.array([np.nan if i is None else float(i) for i in items])
            numbers = numbers.reshape(array.shape)
            few = [np.dtype(t) for t in types if issubclass(t, np.float32 | np.float16)]
            narrow = min(few, key=lambda dtype: dtype.itemsize, default=None)
            return _Value(NUMBER, numbers, np.isnan(numbers), narrow)
        shown = ", ".join(sorted(t.__name__ for t in types))
        raise self._fail(node, f"a column that mixes {shown} cannot be queried")

    def _number(self, node: ast.expr) -> _Value:
        value = self._value(node)
        if value.kind == NOTHING and np.ndim(value.data):
            return _Value(NUMBER, np.full(np.shape(value.data), np.nan), value.missing)
        if value.kind != NUMBER:
            raise self._fail(node, f"arithmetic needs numbers, and this is {value.kind}")
        if np.asarray(value.data).dtype.kind in "iu":
            # integers as doubles: exact to 2**53, and nothing wraps round
            return _Value(NUMBER, np.asarray(value.data, dtype=np.float64)[()], value.missing)
        return value

    def _compare(self, node: ast.Compare) -> _Array:
        left = node.left
        out: _Array = np.ones((), dtype=bool)
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                held = self._member(node, left, right)
                held = ~held if isinstance(op, ast.NotIn) else held
            else:
                held = self._pair(node, op, self._value(left), self._value(right))
            out = np.logical_and(out, held)
            left = right
        return out

    def _member(self, node: ast.expr, left: ast.expr, right: ast.expr) -> _Array:
        value = self._value(left)
        items = [self._value(item) for item in getattr(right, "elts", [])]
        if value.kind == TEXT and items and all(i.kind == TEXT for i in items):
            found = np.isin(value.data, [i.data for i in items])
            return np.logical_and(found, ~value.missing)
        out = np.zeros(np.shape(value.data), dtype=bool)
        for item in items:
            out = np.logical_or(out, self._pair(node, ast.Eq(), value, item))
        return out

    def _pair(self, node: ast.expr, op: ast.cmpop, left: _Value, right: _Value) -> _Array:
        missing = np.logical_or(left.missing, right.missing)
        negative = isinstance(op, ast.NotEq | ast.IsNot)
        ordered = type(op) in _ORDER
        for one, other in ((left, right), (right, left)):
            if one.kind == NOTHING and one.data is None and not ordered:
                found = np.broadcast_to(other.missing, np.shape(other.data))
                return np.logical_not(found) if negative else np.array(found)
        if (left.kind == TEXT) != (right.kind == TEXT) and NOTHING not in (left.kind, right.kind):
            words = f"{left.kind} compared with {right.kind}"
            text, number = (left, right) if left.kind == TEXT else (right, left)
            fix = f"; without quotes: {text.data}" if _looks_numeric(text.data) else ""
            if not fix and np.ndim(number.data) == 0:
                fix = f"; with quotes: '{number.data}'"
            raise self._fail(node, words + fix)
        if NOTHING in (left.kind, right.kind):
            if ordered and None in (_plain(left), _plain(right)):
                raise self._fail(node, "None is neither above nor below; write `is None`")
            shape = np.broadcast_shapes(np.shape(left.data), np.shape(right.data))
            return np.full(shape, negative)
        if ordered and left.kind == TEXT:
            raise self._fail(node, "text has no order here; use == != in")
        narrow = _narrower(left, right)
        a, b = (_rounded(value, narrow) for value in (left, right))
        if ordered:
            return np.asarray(_ORDER[type(op)](a, b) & ~missing)
        same = np.asarray(np.equal(a, b) & ~missing)
        return np.asarray(~same) if negative else same


def _narrower(left: _Value, right: _Value) -> np.dtype[Any] | None:
    """Return the less precise type of two values; None where neither is below a double."""
    types = [value.narrow for value in (left, right) if value.narrow is not None]
    return min(types, key=lambda dtype: dtype.itemsize, default=None)


def _rounded(value: _Value, narrow: np.dtype[Any] | None) -> _Array:
    data = np.asarray(value.data)
    return data if narrow is None else data.astype(narrow, copy=False)


def _literal(value: object, narrow: np.dtype[Any] | None) -> _Value:
    if value is None:
        return _Value(NOTHING, None, np.ones((), dtype=bool))
    if isinstance(value, bool):
        return _Value(TRUTH, value, _NEVER)
    if isinstance(value, str):
        return _Value(TEXT, value, _NEVER)
    return _Value(NUMBER, value, _NEVER, narrow)


def _plain(value: _Value) -> object:
    return value.data if np.ndim(value.data) == 0 else "array"


def _looks_numeric(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True
