"""Cells from a plain CSV file, whoever made it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Problem, SpecError, nearest
from zoo.paths import absolute
from zoo.phases.cells import INPUTS, Cells
from zoo.phases.units import UnitChoice, settle_units

__all__ = ["CsvCells", "read_cells"]

_AXES = ("load", "temperature")
#: What else a column may be called, and the unit that the name itself says.
_ALIASES: Mapping[str, tuple[str, str]] = {
    "hessian_trace": ("trace", "auto"),
    "log_lambda_max": ("lambda_max", "log"),
    "log_trace": ("trace", "log"),
    "cka_softmax": ("cka", "softmax"),
    "cka_logits": ("cka", "logits"),
}
_MISSING = ("", "nan", "na", "n/a", "none", "null", "-")
_INFINITE = ("inf", "+inf", "infinity", "+infinity")


@dataclass(frozen=True, slots=True, eq=False)
class CsvCells:
    """The cells of a file, and how its columns were read.

    Args:
        cells: in the units of :data:`zoo.phases.cells.INPUTS`, in the order of the file.
        units: column → its unit, and why.
        ignored: columns that nothing reads.
    """

    cells: Cells
    units: Mapping[str, UnitChoice]
    ignored: tuple[str, ...]


def read_cells(
    path: str | PathLike[str],
    *,
    units: Mapping[str, str] | None = None,
    classes: int | None = None,
) -> CsvCells:
    """Return the cells of a CSV file.

    Columns: ``load``, ``temperature`` and any of ``train_loss`` (nats), ``train_error``,
    ``lambda_max``, ``trace``, ``mode_connectivity``, ``cka``; each may have a standard error
    beside it (``cka_se``), and ``classes`` or ``chance_loss`` allow to see collapsed cells. Empty
    cells and ``nan`` are missing; ``inf`` is a training that diverged.

    Args:
        path: the file, UTF-8, comma- or semicolon- or tab-separated.
        units: column → unit, as in :data:`zoo.phases.units.UNITS`; what is not said is found out.
        classes: C, where the file has no column of it.

    Raises:
        SpecError: no such file, columns that are missing, given twice, or not numbers; all at once.
    """
    source = str(path)
    head, rows = _read(absolute(path), source)
    problems: list[Problem] = []
    texts, said, ignored = _columns(head, rows, problems)
    numbers = {name: _numbers(name, texts[name], problems) for name in texts if name not in _AXES}
    if problems:
        raise SpecError(problems, source)
    values = {name: numbers[name] for name in INPUTS if name in numbers}
    errors = {n: numbers[f"{n}_se"] for n in INPUTS if f"{n}_se" in numbers}
    chosen = settle_units(values, {**said, **(units or {})})
    for name, choice in chosen.items():
        _convert(name, choice.unit, values, errors)
    n = len(rows)
    chance = numbers.get("chance_loss", np.full(n, np.nan))
    count = numbers.get("classes", np.full(n, np.nan if classes is None else float(classes)))
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(np.isnan(chance), np.log(count), chance)
    load, temperature = (np.array(texts[axis], dtype=np.str_) for axis in _AXES)
    cells = Cells(
        load=load,
        temperature=temperature,
        values=values,
        errors=errors,
        chance_loss=chance,
        bad_share=np.zeros(n),
        ids=np.array([f"{x}, {y}" for x, y in zip(load, temperature, strict=True)], dtype=np.str_),
        pool=np.full(n, ""),
    )
    return CsvCells(cells, chosen, ignored)


def _read(path: Path, source: str) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("file", None, f"not UTF-8: {error.reason} at byte {error.start}")
        raise SpecError([problem], source) from None
    except OSError as error:
        problem = Problem("file", None, f"cannot be read: {error.strerror or error}")
        raise SpecError([problem], source) from error
    first = text.partition("\n")[0]
    mark = max(",;\t", key=first.count)
    lines = [row for row in csv.reader(io.StringIO(text), delimiter=mark) if any(row)]
    if len(lines) < 2:
        problem = Problem("file", None, "has no rows", "a line of names, then one line per cell")
        raise SpecError([problem], source)
    head, *rows = lines
    short = [i + 2 for i, row in enumerate(rows) if len(row) != len(head)]
    if short:
        message = f"{len(short)} rows have not {len(head)} values; the first is line {short[0]}"
        raise SpecError([Problem("file", None, message)], source)
    return [name.strip().lower() for name in head], rows


def _columns(
    head: list[str], rows: list[list[str]], problems: list[Problem]
) -> tuple[dict[str, list[str]], dict[str, str], tuple[str, ...]]:
    """Return the texts of each column that is read, the units that names say, and the rest."""
    known = (*_AXES, *INPUTS, *(f"{n}_se" for n in INPUTS), "classes", "chance_loss")
    texts: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    ignored = []
    # a column under its own name goes before one under another
    for index, given in sorted(enumerate(head), key=lambda item: item[1] in _ALIASES):
        base, unit = _ALIASES.get(given.removesuffix("_se"), (given.removesuffix("_se"), ""))
        name = base + ("_se" if given.endswith("_se") else "")
        if name not in known or (given != name and name in texts):
            ignored.append(given)
            continue
        if name in texts:
            problems.append(Problem(name, None, "is there twice", "once"))
        texts[name] = [row[index].strip() for row in rows]
        if unit not in ("", "auto"):
            said[base] = unit
    for name in _AXES:
        if name not in texts:
            close = nearest(name, head)
            fix = f"rename {close!r}" if close else f"there are: {', '.join(head)}"
            problems.append(Problem(name, None, "no such column", "", fix))
    if not any(name in texts for name in INPUTS):
        problems.append(Problem("file", None, "no column that the rule reads", ", ".join(INPUTS)))
    return texts, said, tuple(ignored)


def _numbers(name: str, texts: list[str], problems: list[Problem]) -> NDArray[np.float64]:
    out = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if text.lower() in _MISSING:
            continue
        if text.lower() in _INFINITE:
            out[row] = math.inf if name == "train_loss" else math.nan
            continue
        try:
            out[row] = float(text)
        except ValueError:
            problems.append(Problem(f"{name}, line {row + 2}", text, "not a number"))
    return out


def _convert(
    name: str,
    unit: str,
    values: dict[str, NDArray[np.float64]],
    errors: dict[str, NDArray[np.float64]],
) -> None:
    """Bring a column and its standard errors to the units of the rule."""
    if unit == "fraction":
        values[name] = values[name] * 100.0
        if name in errors:
            errors[name] = errors[name] * 100.0
    elif unit == "log":
        with np.errstate(over="ignore"):
            values[name] = np.exp(values[name])
        if name in errors:
            errors[name] = errors[name] * values[name]
