"""Queries: a predicate, keyword conditions or both, compiled to one mask over checkpoints.

Keyword conditions are turned into predicate text, so both forms mean the same. A negative epoch or
step counts from the end of a run: ``epoch == -1`` is rewritten to ``from_end == -1``.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.columns import stage_hint, unknown_column
from zoo.errors import QueryError
from zoo.spec.predicate import Predicate, compile_predicate

__all__ = ["Query", "compile_query", "condition_text", "count_from_end"]

#: Columns whose negative values count from the end of a run.
COUNTED = ("epoch", "step")


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled query: every part must hold."""

    parts: tuple[Predicate, ...]

    @property
    def names(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset().union(*(part.names for part in self.parts))

    def mask(
        self, columns: Mapping[str, NDArray[Any]], shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Return where the query holds, of shape ``shape``.

        Args:
            columns: arrays that broadcast to ``shape``, at least those of :attr:`names`.
            shape: ``(M, K)``, or ``(M,)`` for a query of runs.
        """
        result = np.ones(shape, dtype=np.bool_)
        for part in self.parts:
            result &= part(columns)
        return result


def compile_query(
    predicate: str | None, conditions: Mapping[str, Any], names: Iterable[str]
) -> Query:
    """Compile a predicate and keyword conditions, all of which must hold.

    Args:
        predicate: for example ``"test_accuracy > 0.9 and epoch == -1"``, or None.
        conditions: column → scalar (equal), list, set, range or array (one of these), or
            ``(low, high)`` (closed range, None = open).
        names: every column.

    Raises:
        QueryError: text that is no predicate, unknown columns, values that fit no form.
    """
    known = tuple(names)
    parts = [] if predicate is None else [_compile(predicate, known)]
    for name, value in conditions.items():
        if name not in known:
            raise unknown_column(name, known)
        text = condition_text(name, value)
        if text:
            parts.append(_compile(text, known, _narrow(value)))
    return Query(tuple(parts))


def _compile(text: str, names: tuple[str, ...], narrow: np.dtype[Any] | None = None) -> Predicate:
    """Compile one predicate; the user's own text goes first, so that errors point into it."""
    compiled = compile_predicate(text, names, lambda name: stage_hint(name, names), narrow=narrow)
    rewritten = count_from_end(compiled.text)
    if rewritten == compiled.text:
        return compiled
    return compile_predicate(rewritten, names, narrow=narrow)


def _narrow(value: Any) -> np.dtype[Any] | None:
    """Return the least precise type below a double that a condition's values come from, or None."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype if value.dtype.kind == "f" and value.dtype.itemsize < 8 else None
    if not isinstance(value, Set | Sequence) or isinstance(value, str | bytes):
        return None
    found = [dtype for dtype in map(_narrow, value) if dtype is not None]
    return min(found, key=lambda dtype: dtype.itemsize, default=None)


def condition_text(name: str, value: Any) -> str:
    """Return the predicate of one keyword condition, empty where anything is allowed.

    Raises:
        QueryError: a value that is no scalar, collection or range.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple):
        return _range_text(name, value)
    if isinstance(value, Set | range) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes)
    ):
        return _choice_text(name, list(value))
    literal = _literal(name, value)
    return f"{name} is None" if literal == "None" else f"{name} == {literal}"


def _range_text(name: str, value: tuple[Any, ...]) -> str:
    bounds = [v.item() if isinstance(v, np.generic) else v for v in value]
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in bounds]
    if len(bounds) != 2 or not all(n or v is None for n, v in zip(numbers, bounds, strict=True)):
        msg = (
            f"{name}={value!r}: a tuple is a closed range (low, high) of numbers, None = open; "
            f"for one of several values give a list: {name}={list(value)!r}"
        )
        raise QueryError(msg)
    low, high = bounds
    parts = []
    if low is not None and low != -math.inf:
        parts.append(f"{name} >= {_literal(name, low)}")
    if high is not None and high != math.inf:
        parts.append(f"{name} <= {_literal(name, high)}")
    return " and ".join(parts)


def _choice_text(name: str, values: list[Any]) -> str:
    literals = sorted({_literal(name, value) for value in values})
    parts = []
    if "None" in literals:
        literals.remove("None")
        parts.append(f"{name} is None")
    if literals or not parts:
        parts.append(f"{name} in [{', '.join(literals)}]")
    return " or ".join(parts)


def _literal(name: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "None"
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    msg = (
        f"{name}={value!r}: cannot be compared with a column; give a number, text, True, False, "
        "None, a list or set of these, or a range (low, high)"
    )
    raise QueryError(msg)


def count_from_end(text: str) -> str:
    """Return a predicate with every negative epoch and step turned into a position from the end.

    ``epoch == -1`` becomes ``from_end == -1``; ``epoch in (-1, 0)`` becomes
    ``from_end in [-1] or epoch in [0]``. Text without such a comparison comes back unchanged.

    Raises:
        QueryError: a negative epoch or step that is not whole, or that is ordered (``<``).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a doubtful escape in a string literal is no error
        tree = ast.parse(text.strip(), mode="eval")
    rewriter = _FromEnd()
    body = rewriter.visit(tree)
    return ast.unparse(body) if rewriter.changed else text


class _FromEnd(ast.NodeTransformer):
    """Rewrites comparisons of counted columns with negative numbers."""

    def __init__(self) -> None:
        self.changed = False

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        operands = [node.left, *node.comparators]
        pairs = [
            self._pair(left, op, right)
            for left, op, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        if not any(new for new in pairs):
            return node
        self.changed = True
        parts = [
            new or ast.Compare(left, [op], [right])
            for new, left, op, right in zip(pairs, operands, node.ops, operands[1:], strict=False)
        ]
        return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), parts)

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr | None:
        """Return what stands for ``left op right``, or None where it may stay as it is."""
        if _is_counted(right) and _negative(left) is not None:
            left, right = right, left
        if not _is_counted(left):
            return None
        if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple | ast.Set):
            return _membership(left, op, right)
        value = _negative(right)
        if value is None:
            return None
        if not isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot):
            name = ast.unparse(left)
            msg = (
                f"{name} cannot be ordered against {value:g}: a negative {name} counts from the "
                "end of the run, with ==, !=, in and not in; compare positions with from_end, "
                f"for example from_end >= {value:g}"
            )
            raise QueryError(msg)
        return ast.Compare(_from_end(), [op], [_whole(left, right, value)])


def _membership(
    left: ast.expr, op: ast.In | ast.NotIn, right: ast.List | ast.Tuple | ast.Set
) -> ast.expr | None:
    negative = [(v, n) for v in right.elts if (n := _negative(v)) is not None]
    if not negative:
        return None
    rest = [v for v in right.elts if _negative(v) is None]
    ends: list[ast.expr] = [_whole(left, v, n) for v, n in negative]
    either: ast.expr = ast.Compare(_from_end(), [ast.In()], [ast.List(ends, ast.Load())])
    if rest:
        plain = ast.Compare(left, [ast.In()], [ast.List(rest, ast.Load())])
        either = ast.BoolOp(ast.Or(), [either, plain])
    return either if isinstance(op, ast.In) else ast.UnaryOp(ast.Not(), either)


def _from_end() -> ast.Name:
    return ast.Name("from_end", ast.Load())


def _is_counted(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in COUNTED


def _negative(node: ast.expr) -> float | None:
    """Return the value of a negative number as it is written (``-1``), None for all else."""
    if not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)):
        return None
    inner = node.operand
    if not isinstance(inner, ast.Constant) or type(inner.value) not in (int, float):
        return None
    value = -float(inner.value)  # type: ignore[arg-type]
    return value if value < 0 else None


def _whole(column: ast.expr, node: ast.expr, value: float) -> ast.expr:
    if value != int(value):
        msg = (
            f"{ast.unparse(column)} {value:g}: a negative value counts checkpoints from the end "
            "of the run and must be whole: -1 is the last, -2 the one before"
        )
        raise QueryError(msg)
    return node
