"""Reading one block of a sweep file: plain tables in, a checked :class:`SweepBlock` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.errors import Problem, QueryError, unknown_name
from zoo.spec.axes import (
    DrawnAxis,
    GridAxis,
    check_keys,
    read_drawn_axis,
    read_grid_axis,
    read_value,
    read_values,
)
from zoo.spec.check import check_value
from zoo.spec.design import Sample, SweepBlock, When
from zoo.spec.limits import MAX_RUNS
from zoo.spec.points import POINT_METHODS
from zoo.spec.predicate import Predicate, compile_predicate
from zoo.spec.run import field_infos, unknown_field

__all__ = ["BLOCK_KEYS", "DESIGN_KEYS", "read_base", "read_block", "table_of"]

DESIGN_KEYS = ("grid", "zip", "sample", "when", "exclude")
BLOCK_KEYS = ("base", *DESIGN_KEYS)

_WHEN_KEYS = ("if", "base", "grid", "sample")
_SAMPLE_KEYS = ("method", "n", "seed", "axes")

#: A stand-in for a column of each kind, to check the types in a condition before any run is made.
_STAND_INS = {"int": 1, "float": 1.0, "str": "x", "bool": True}


def table_of(raw: Mapping[str, Any], key: str, place: str, problems: list[Problem]) -> Any:
    """Return the table ``raw[key]``, empty where there is none; anything else is reported."""
    value = raw.get(key, {})
    if isinstance(value, Mapping):
        return value
    problems.append(Problem(place, value, "is not a table", f"[{place}] with one key a line"))
    return {}


def read_base(raw: Mapping[str, Any], place: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the checked values of a table of fixed fields."""
    out = {}
    for name, item in raw.items():
        info, value = read_value(name, item, f"{place}.{name}", problems)
        if info is not None:
            out[name] = value
    return out


def read_block(raw: Mapping[str, Any], prefix: str, problems: list[Problem]) -> SweepBlock:
    """Return the block that ``raw`` describes; what is wrong is left out and reported.

    Args:
        raw: the tables of :data:`BLOCK_KEYS`.
        prefix: where the block stands (``"block[0]."``, or empty at the top of a file).
        problems: receives what is wrong.
    """
    base = read_base(table_of(raw, "base", f"{prefix}base", problems), f"{prefix}base", problems)
    grid = _read_grid(table_of(raw, "grid", f"{prefix}grid", problems), f"{prefix}grid", problems)
    zips = _read_zips(raw.get("zip", []), f"{prefix}zip", problems)
    sample = None
    if "sample" in raw:
        table = table_of(raw, "sample", f"{prefix}sample", problems)
        sample = _read_sample(table, f"{prefix}sample", problems)
    when = _read_whens(raw.get("when", []), f"{prefix}when", problems, sampled="sample" in raw)
    exclude = _read_excludes(raw.get("exclude", []), f"{prefix}exclude", problems)
    block = SweepBlock(base, grid, zips, sample, when, exclude)
    _check_once(block, prefix, problems)
    return block


def _check_once(block: SweepBlock, prefix: str, problems: list[Problem]) -> None:
    """Report a field that two parts of one block give."""
    places = {name: f"{prefix}base.{name}" for name in block.base}
    for place, name in block.swept():
        if name in places:
            message = f"is given here and in {places[name]}"
            problems.append(Problem(f"{prefix}{place}", None, message, "one place per field"))
        else:
            places[name] = prefix + place


def _read_grid(raw: Mapping[str, Any], place: str, problems: list[Problem]) -> dict[str, GridAxis]:
    axes = {name: read_grid_axis(name, v, f"{place}.{name}", problems) for name, v in raw.items()}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _read_drawn(
    raw: Mapping[str, Any], place: str, problems: list[Problem]
) -> dict[str, DrawnAxis]:
    axes = {name: read_drawn_axis(name, v, f"{place}.{name}", problems) for name, v in raw.items()}
    return {name: axis for name, axis in axes.items() if axis is not None}


def _tables(raw: Any, place: str, problems: list[Problem]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return ``(place, table)`` for each table of an array of tables."""
    if not isinstance(raw, list | tuple) or not all(isinstance(t, Mapping) for t in raw):
        problems.append(Problem(place, raw, "is not a list of tables", f"[[{place}]]"))
        return []
    return [(f"{place}[{index}]", table) for index, table in enumerate(raw)]


def _read_zips(
    raw: Any, place: str, problems: list[Problem]
) -> tuple[dict[str, tuple[Any, ...]], ...]:
    groups = [(place, raw)] if isinstance(raw, Mapping) else _tables(raw, place, problems)
    zips = (_read_zip(table, where, problems) for where, table in groups)
    return tuple(group for group in zips if group)


def _read_zip(
    raw: Mapping[str, Any], place: str, problems: list[Problem]
) -> dict[str, tuple[Any, ...]]:
    """Return the zipped lists of one group, empty where anything in it is wrong."""
    before = len(problems)
    group: dict[str, tuple[Any, ...]] = {}
    lengths: dict[str, int] = {}
    for name, values in raw.items():
        where = f"{place}.{name}"
        if name not in field_infos():
            problems.append(unknown_field(where, name))
        elif not isinstance(values, list | tuple) or not values:
            problems.append(Problem(where, values, "a zipped field needs a list", "[a, b, ...]"))
        else:
            lengths[name] = len(values)
            group[name] = tuple(read_values(name, values, where, problems))
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        problems.append(
            Problem(place, None, f"lists of different lengths: {shown}", "equal lengths")
        )
    return group if len(problems) == before else {}


def _read_sample(raw: Mapping[str, Any], place: str, problems: list[Problem]) -> Sample | None:
    before = len(problems)
    check_keys(raw, _SAMPLE_KEYS, place, problems)
    method = raw.get("method", "sobol")
    if method not in POINT_METHODS.names():
        message = "unknown sampling method"
        problems.append(unknown_name(f"{place}.method", method, message, POINT_METHODS))
    n, seed = raw.get("n"), raw.get("seed", 0)
    if type(n) is not int or not 1 <= n <= MAX_RUNS:
        message = "is missing" if n is None else "not a number of points"
        allowed = f"an integer from 1 to {MAX_RUNS}"
        problems.append(Problem(f"{place}.n", n, message, allowed))
    if type(seed) is not int or not 0 <= seed < 2**63:
        allowed = f"an integer from 0 to {2**63 - 1}"
        problems.append(Problem(f"{place}.seed", seed, "not a seed", allowed))
    table = table_of(raw, "axes", f"{place}.axes", problems)
    axes = _read_drawn(table, f"{place}.axes", problems)
    if not table and len(problems) == before:
        allowed = "[sample.axes] with a field a line"
        problems.append(Problem(f"{place}.axes", None, "no axis to sample", allowed))
    return Sample(method, n, seed, axes) if len(problems) == before else None  # type: ignore[arg-type]


def _read_whens(
    raw: Any, place: str, problems: list[Problem], *, sampled: bool
) -> tuple[When, ...]:
    found = (_read_when(t, p, problems, sampled=sampled) for p, t in _tables(raw, place, problems))
    return tuple(part for part in found if part is not None)


def _read_when(
    raw: Mapping[str, Any], place: str, problems: list[Problem], *, sampled: bool
) -> When | None:
    check_keys(raw, _WHEN_KEYS, place, problems)
    condition = None
    if "if" in raw:
        condition = _read_condition(raw["if"], f"{place}.if", problems)
    else:
        fix = "write if = \"optimizer == 'sgd'\""
        problems.append(Problem(f"{place}.if", None, "is missing", "a condition", fix))
    base = read_base(table_of(raw, "base", f"{place}.base", problems), f"{place}.base", problems)
    grid = _read_grid(table_of(raw, "grid", f"{place}.grid", problems), f"{place}.grid", problems)
    table = table_of(raw, "sample", f"{place}.sample", problems)
    check_keys(table, ("axes",), f"{place}.sample", problems)
    where = f"{place}.sample.axes"
    drawn = _read_drawn(table_of(table, "axes", where, problems), where, problems)
    if drawn and not sampled:
        fix = "give the block a [sample] with method, n and axes"
        problems.append(Problem(f"{place}.sample", None, "the block samples nothing", "", fix))
    if not any(raw.get(key) for key in ("base", "grid", "sample")):
        problems.append(Problem(place, None, "sets nothing", "base, grid or sample.axes"))
    given = [*base, *grid, *drawn]
    problems.extend(
        Problem(f"{place}.{name}", None, "is given twice", "one place per field")
        for name in dict.fromkeys(given)
        if given.count(name) > 1
    )
    return None if condition is None else When(condition, base, grid, drawn)


def _read_excludes(raw: Any, place: str, problems: list[Problem]) -> tuple[Predicate, ...]:
    if not isinstance(raw, list | tuple):
        allowed = "a list of conditions"
        problems.append(Problem(place, raw, "is not a list", allowed, f"write [{raw!r}]"))
        return ()
    found = [_read_condition(t, f"{place}[{i}]", problems) for i, t in enumerate(raw)]
    return tuple(condition for condition in found if condition is not None)


def _read_condition(raw: Any, place: str, problems: list[Problem]) -> Predicate | None:
    """Return the compiled condition, its names, types and literals checked, or None."""
    infos = field_infos()
    try:
        condition = compile_predicate(raw, infos)
        condition({name: np.array(_STAND_INS[infos[name].kind]) for name in condition.names})
    except QueryError as error:
        problems.append(Problem(place, raw, f"bad condition: {error}"))
        return None
    before = len(problems)
    for name, literal in condition.literals:
        if isinstance(literal, str):
            problem = check_value(infos[name], literal, f"{place}: {name}")[1]
            if problem is not None:
                problems.append(problem)
    return condition if len(problems) == before else None
