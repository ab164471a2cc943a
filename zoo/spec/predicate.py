"""Predicates: ``width >= 64 and norm == 'layer'``, parsed safely and checked before they are run.

The text is Python, cut down by a white list over its syntax tree; nothing is ever evaluated by
Python itself. The same predicate serves a sweep's conditions and the query of a zoo.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import QueryError, did_you_mean
from zoo.spec.other_names import other_names
from zoo.spec.predicate_eval import Evaluator
from zoo.spec.unknown_column import unknown_column_text

__all__ = ["Predicate", "compile_predicate"]

_MAX_CHARACTERS = 100_000
_MAX_DEPTH = 100
_MAX_INT = 2**63

_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod)
_GRAMMAR = (
    "column names, numbers, 'text', True, False, None, and, or, not, in, not in, "
    "== != < <= > >=, is None, + - * / %, parentheses"
)
#: What people write that Python has no room for, and what to write instead.
_HINTS = (
    ("&&", "write `and`"),
    ("||", "write `or`"),
    ("<>", "write `!=`"),
    ("!", "write `not`"),
    ("=", "`==` compares; `=` does not"),
)


@dataclass(frozen=True, slots=True)
class Predicate:
    """A checked predicate over named columns.

    Args:
        text: as the user wrote it.
        names: the columns that it reads.
        literals: ``(column, value)`` for each literal that a column is compared with directly.
        narrow: precision of its literals, where that is less than a double's.
    """

    text: str
    names: frozenset[str]
    literals: tuple[tuple[str, object], ...]
    _tree: ast.expr = field(repr=False, compare=False)
    narrow: np.dtype[Any] | None = None

    def __call__(self, columns: Mapping[str, object]) -> NDArray[np.bool_]:
        """Return where the predicate holds, in the broadcast shape of the columns that it reads.

        A value is missing where it is None or NaN: it equals nothing (``!=`` holds), is neither
        above nor below anything, and only ``x is None`` or ``x == None`` finds it. Numbers of
        different precision meet in the lower one (:mod:`zoo.spec.predicate_eval`).

        Args:
            columns: arrays (or scalars) that broadcast, at least those of :attr:`names`. Numbers,
                booleans, strings, or objects of these and None.

        Raises:
            QueryError: a comparison of text with a number, arithmetic on text, or a part that is
                not a condition.
        """
        return Evaluator(self.text, columns, self.narrow).result(self._tree)


def compile_predicate(
    text: object,
    names: Iterable[str],
    explain: Callable[[str], str] | None = None,
    *,
    narrow: np.dtype[Any] | None = None,
) -> Predicate:
    """Parse a predicate and check it against the columns that there are.

    Args:
        text: a string of Python syntax: comparisons (also chained), ``and or not``, ``in`` a list
            of literals, ``+ - * / %``, parentheses, literals, None, column names.
        names: the columns that it may read.
        explain: returns what to do about a name that is not among them; empty where unknown.
        narrow: the type that its literals come from, where that is float32 or float16.

    Raises:
        QueryError: not in the grammar, or an unknown column (with the nearest known one); the
            message points at the place.
    """
    if not isinstance(text, str):
        msg = f"a predicate is text, not {type(text).__name__}"
        raise QueryError(msg)
    flat = text.replace("\r", " ").replace("\n", " ").strip()
    if not flat:
        msg = "the predicate is empty"
        raise QueryError(msg)
    if len(flat) > _MAX_CHARACTERS:
        msg = f"the predicate has {len(flat)} characters; allowed: up to {_MAX_CHARACTERS}"
        raise QueryError(msg)
    checker = _Checker(flat, tuple(names), explain)
    tree = _parse(flat)
    checker.check(tree, depth=0)
    literals = tuple(checker.literals)
    return Predicate(flat, frozenset(checker.used), literals, tree, narrow)


def pointed(text: str, column: int, message: str) -> QueryError:
    """Return an error that shows the text with a caret under ``column`` (from 0)."""
    start = max(0, column - 60)
    shown = text[start : column + 60]
    caret = " " * (column - start) + "^"
    return QueryError(f"at character {column + 1}: {message}\n    {shown}\n    {caret}")


def _parse(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape in a string literal is no error
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        hint = next((fix for mark, fix in _HINTS if _has(text, mark)), "")
        message = f"not a predicate ({error.msg}){'; ' + hint if hint else ''}"
        place = min(max((error.offset or 1) - 1, 0), len(text))
        raise pointed(text, place, message) from None
    except (ValueError, RecursionError, MemoryError) as error:
        msg = f"the predicate cannot be read: {error or type(error).__name__}"
        raise QueryError(msg) from None


def _has(text: str, mark: str) -> bool:
    """Whether ``mark`` stands in the text other than as a part of a right operator."""
    for right in ("==", "!=", "<=", ">="):
        text = text.replace(right, "  ")
    return mark in text


class _Checker:
    """Walks a syntax tree once: white list, column names, what each column is compared with."""

    def __init__(
        self, text: str, known: tuple[str, ...], explain: Callable[[str], str] | None = None
    ) -> None:
        self.text = text
        self.known = known
        self.explain = explain
        self.used: set[str] = set()
        self.literals: list[tuple[str, object]] = []

    def fail(self, node: ast.expr, message: str) -> QueryError:
        """Return an error that points at ``node``."""
        column = len(self.text.encode()[: node.col_offset].decode(errors="replace"))
        return pointed(self.text, column, message)

    def check(self, node: ast.expr, *, depth: int, beside_column: bool = False) -> None:
        """Raise unless ``node`` and all below it are in the grammar."""
        if depth > _MAX_DEPTH:
            raise self.fail(node, f"nested more than {_MAX_DEPTH} deep")
        match node:
            case ast.Name():
                self._check_name(node, beside_column=beside_column)
            case ast.Constant():
                self._check_literal(node)
            case ast.BoolOp(values=values):
                for value in values:
                    self.check(value, depth=depth + 1)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
                self.check(operand, depth=depth + 1)
            case ast.BinOp(op=op, left=left, right=right):
                self._check_operator(node, op)
                self.check(left, depth=depth + 1)
                self.check(right, depth=depth + 1)
            case ast.Compare():
                self._check_compare(node, depth=depth)
            case _:
                raise self.fail(node, f"{_kind(node)} is not allowed; allowed: {_GRAMMAR}")

    def _check_name(self, node: ast.Name, *, beside_column: bool) -> None:
        if node.id in self.known:
            self.used.add(node.id)
            return
        hint = self.explain(node.id) if self.explain else ""
        hint = hint or did_you_mean(node.id, self.known, other_names())
        if not hint and node.id.lower() in ("true", "false", "none", "null", "nan"):
            hint = "write True, False or None"
        elif not hint and beside_column:
            hint = f"text needs quotes: '{node.id}'"
        raise self.fail(node, unknown_column_text(node.id, self.known, hint))

    def _check_literal(self, node: ast.Constant) -> None:
        value = node.value
        if value is not None and not isinstance(value, bool | int | float | str):
            raise self.fail(node, f"{type(value).__name__} literals are not allowed")
        if isinstance(value, int) and abs(value) >= _MAX_INT:
            raise self.fail(node, "the number is too large")

    def _check_operator(self, node: ast.expr, op: ast.operator) -> None:
        if isinstance(op, _ARITHMETIC):
            return
        better = {ast.BitAnd: "write `and`", ast.BitOr: "write `or`"}.get(type(op))
        fix = better or "allowed: + - * / %"
        raise self.fail(node, f"this operator is not allowed; {fix}")

    def _check_compare(self, node: ast.Compare, *, depth: int) -> None:
        terms = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, terms[:-1], terms[1:], strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                self._check_members(left, right)
            elif isinstance(op, _COMPARISONS):
                self._note_literal(left, right)
                self._note_literal(right, left)
                if isinstance(op, ast.Is | ast.IsNot) and not _is_none(right):
                    raise self.fail(right, "`is` is for None; write `==`")
        in_list = {id(t) for o, t in zip(node.ops, terms[1:], strict=True) if _is_member(o)}
        beside = any(isinstance(t, ast.Name) and t.id in self.known for t in terms)
        for term in terms:
            if id(term) not in in_list:
                self.check(term, depth=depth + 1, beside_column=beside)

    def _check_members(self, left: ast.expr, right: ast.expr) -> None:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self.fail(right, "`in` needs a list of literals, such as [16, 32]")
        for item in right.elts:
            inner = item.operand if isinstance(item, ast.UnaryOp) else item
            if not isinstance(inner, ast.Constant):
                raise self.fail(item, f"{_kind(item)} in a list; a list holds literals only")
            self.check(item, depth=0)
            self._note_literal(left, item)

    def _note_literal(self, column: ast.expr, literal: ast.expr) -> None:
        if isinstance(column, ast.Name) and isinstance(literal, ast.Constant):
            self.literals.append((column.id, literal.value))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_member(op: ast.cmpop) -> bool:
    return isinstance(op, ast.In | ast.NotIn)


def _kind(node: ast.expr) -> str:
    names = {
        ast.Call: "a call",
        ast.Attribute: "an attribute",
        ast.Subscript: "an index",
        ast.Lambda: "a lambda",
        ast.IfExp: "if-else",
        ast.JoinedStr: "an f-string",
        ast.NamedExpr: "an assignment",
        ast.UnaryOp: "this operator (write `not`)",
        ast.Name: "a column",
    }
    for kind, name in names.items():
        if isinstance(node, kind):
            return name
    return f"{type(node).__name__.lower()} syntax"
