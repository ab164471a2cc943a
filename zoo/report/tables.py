"""Text tables: aligned columns, numbers as people write them, plain or Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import View

__all__ = ["Rows", "format_table", "json_rows"]

#: What a table is made of: a view, a structured array, or one mapping per row.
Rows = View | NDArray[Any] | Iterable[Mapping[str, Any]]

MISSING = "-"
_DIGITS = 4


def format_table(
    rows: Rows,
    columns: Sequence[str] | None = None,
    *,
    style: str = "plain",
    limit: int | None = None,
) -> str:
    """Return rows as an aligned text table.

    The numbers of a column share their number of decimals (four significant digits of the largest;
    decimals that are zero everywhere are dropped); missing values are ``-``.

    Args:
        rows: a view, a structured array, or one mapping per row.
        columns: which columns, in order; None = all.
        style: ``"plain"`` or ``"markdown"``.
        limit: show so many rows, and say how many there are; None = all.

    Raises:
        ValueError: an unknown style.
        KeyError: a column that the rows do not have.
    """
    if style not in ("plain", "markdown"):
        msg = f"unknown table style {style!r}; allowed: plain, markdown"
        raise ValueError(msg)
    total = len(rows) if isinstance(rows, View | np.ndarray) else None
    if total is None:
        rows = list(rows)
        total = len(rows)
    shown = total if limit is None else min(limit, total)
    values = _columns(rows[:shown], columns)  # type: ignore[index]
    cells = {name: _format_column(column) for name, column in values.items()}
    right = {name: _is_numeric(column) for name, column in values.items()}
    text = _plain(cells, right) if style == "plain" else _markdown(cells, right)
    if shown < total:
        text += f"\n... {shown:,} of {total:,} rows"
    return text


def json_rows(rows: Rows, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return rows as a list of JSON-ready dicts: plain Python values, NaN and infinities as None.

    Raises:
        KeyError: a column that the rows do not have.
    """
    if not isinstance(rows, View | np.ndarray):
        rows = list(rows)
    values = _columns(rows, columns)
    plain = [[_json_value(v) for v in column] for column in values.values()]
    return [dict(zip(values, row, strict=True)) for row in zip(*plain, strict=True)]


def _columns(rows: Any, names: Sequence[str] | None) -> dict[str, list[Any]]:
    """Return the columns of rows as lists of plain values."""
    if isinstance(rows, View):
        return {n: rows.column(n).tolist() for n in (names if names is not None else rows.columns)}
    if isinstance(rows, np.ndarray):
        known = rows.dtype.names or ()
        for name in names or ():
            _check(name, known)
        return {n: rows[n].tolist() for n in (names if names is not None else known)}
    known = tuple(dict.fromkeys(key for row in rows for key in row))
    if rows:
        for name in names or ():
            _check(name, known)
    return {n: [row.get(n) for row in rows] for n in (names if names is not None else known)}


def _check(name: str, known: Sequence[str]) -> None:
    if name not in known:
        msg = f"no column {name!r}; there are: {', '.join(known)}"
        raise KeyError(msg)


def _json_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(_is_missing(v) or _is_number(v) for v in values) and len(values) > 0


def _format_column(values: Sequence[Any]) -> list[str]:
    numbers = [v for v in values if _is_number(v) and math.isfinite(v)]
    if not _is_numeric(values) or not numbers:
        return [MISSING if _is_missing(v) else _one_line(str(v)) for v in values]
    largest = max(abs(v) for v in numbers)
    whole = all(v == int(v) for v in numbers)
    if whole and (largest < 1e7 or all(isinstance(v, int | np.integer) for v in numbers)):
        return [_special(v) or str(int(v)) for v in values]
    sizes = [abs(v) for v in numbers if v]
    if max(sizes) >= 1e6 or min(sizes) < 1e-4:
        return [_special(v) or f"{v:.{_DIGITS}g}" for v in values]
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(max(sizes))))
    decimals = max(decimals, -math.floor(math.log10(min(sizes))))
    cells = [_special(v) or f"{v:.{decimals}f}" for v in values]
    return _drop_zeros(cells, values, decimals)


def _one_line(text: str) -> str:
    """Return text with control characters written out: a value is never a line of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _special(value: Any) -> str:
    """Return the cell of a value that is no finite number, empty for those that are."""
    if _is_missing(value):
        return MISSING
    return "" if math.isfinite(value) else str(float(value))


def _drop_zeros(cells: list[str], values: Sequence[Any], decimals: int) -> list[str]:
    """Drop the decimals that are zero in every cell."""
    finite = [c for c, v in zip(cells, values, strict=True) if not _special(v)]
    drop = min((len(c) - len(c.rstrip("0")) for c in finite), default=0)
    drop = min(drop, max(decimals - 1, 0))
    if not drop:
        return cells
    return [c if _special(v) else c[:-drop] for c, v in zip(cells, values, strict=True)]


def _plain(cells: Mapping[str, list[str]], right: Mapping[str, bool]) -> str:
    width = {n: max(len(n), *(len(c) for c in column), 0) for n, column in cells.items()}

    def line(values: Iterable[tuple[str, str]]) -> str:
        parts = [v.rjust(width[n]) if right[n] else v.ljust(width[n]) for n, v in values]
        return "  ".join(parts).rstrip()

    lines = [line((n, n) for n in cells), line((n, "-" * width[n]) for n in cells)]
    lines += [line(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    return "\n".join(lines)


def _markdown(cells: Mapping[str, list[str]], right: Mapping[str, bool]) -> str:
    lines = [
        "| " + " | ".join(_bars(name) for name in cells) + " |",
        "|" + "|".join(" ---: " if right[n] else " :--- " for n in cells) + "|",
    ]
    lines += [
        "| " + " | ".join(_bars(c) for c in row) + " |" for row in zip(*cells.values(), strict=True)
    ]
    return "\n".join(lines)


def _bars(text: str) -> str:
    return text.replace("|", "\\|")
