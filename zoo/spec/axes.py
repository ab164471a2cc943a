"""Axes: the values that one field takes, as a sweep file writes them.

A grid axis lists its values (:class:`Values`, :class:`Spaced`, :class:`Span`); a drawn axis maps
points of [0, 1) to values (:class:`Interval`, :class:`Choices`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Problem, unknown_name
from zoo.fields import Field
from zoo.spec.check import check_value
from zoo.spec.limits import MAX_RUNS
from zoo.spec.run import field_infos, unknown_field

__all__ = [
    "NONE_WORD",
    "SCALES",
    "Choices",
    "DrawnAxis",
    "GridAxis",
    "Interval",
    "Spaced",
    "Span",
    "Values",
    "read_drawn_axis",
    "read_grid_axis",
    "read_value",
    "write_value",
]

SCALES = ("linear", "log")

#: TOML has no null; this string stands for None in an optional field that is not text.
NONE_WORD = "none"

_GRID_FORMS = "[a, b, ...], {start, stop, num, scale} or {range = [first, end, step]}"
_DRAWN_FORMS = "{low, high, scale} or {choices = [a, b, ...]}"


@dataclass(frozen=True, slots=True)
class Values:
    """A grid axis that lists its values."""

    values: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.values)

    def expand(self, info: Field) -> tuple[Any, ...]:
        """Return every value, in order."""
        return self.values

    def to_raw(self) -> list[Any]:
        """Return the form that a sweep file has."""
        return [write_value(v) for v in self.values]


@dataclass(frozen=True, slots=True)
class Spaced:
    """A grid axis of ``num`` evenly (or geometrically) spaced values, both ends included."""

    start: float
    stop: float
    num: int
    scale: str = "linear"

    def __len__(self) -> int:
        return self.num

    def expand(self, info: Field) -> tuple[Any, ...]:
        """Return the values; those of an integer field are rounded, and repeats dropped."""
        if self.scale == "log":
            points = np.geomspace(self.start, self.stop, self.num)
        else:
            points = np.linspace(self.start, self.stop, self.num)
        low, high = sorted((self.start, self.stop))
        return tuple(dict.fromkeys(_settle(info, points, low, high)))

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        return {"start": self.start, "stop": self.stop, "num": self.num, "scale": self.scale}


@dataclass(frozen=True, slots=True)
class Span:
    """A grid axis of integers ``first, first + step, ...`` below ``end``, as Python's range."""

    first: int
    end: int
    step: int = 1

    def __len__(self) -> int:
        return self.count

    @property
    def count(self) -> int:
        """The number of values, also where it is too large for ``len``."""
        ahead = (self.end - self.first) * (1 if self.step > 0 else -1)
        return max(0, -(-ahead // abs(self.step)))

    def expand(self, info: Field) -> tuple[Any, ...]:
        """Return every value, in order."""
        cast: Callable[[int], Any] = float if info.kind == "float" else int
        return tuple(cast(i) for i in range(self.first, self.end, self.step))

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        ends = [self.first, self.end]
        return {"range": ends if self.step == 1 else [*ends, self.step]}


@dataclass(frozen=True, slots=True)
class Interval:
    """A drawn axis between ``low`` and ``high``, uniform in the value or in its logarithm."""

    low: float
    high: float
    scale: str = "linear"

    def draw(self, info: Field, unit: NDArray[np.float64]) -> list[Any]:
        """Return a value for each of ``unit`` ``[n]`` in [0, 1); integers are equally likely."""
        half = 0.5 if info.kind == "int" else 0.0
        low, high = self.low - half, self.high + half
        if self.scale == "log":
            points = np.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            points = low + unit * (high - low)
        return _settle(info, points, self.low, self.high)

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        return {"low": self.low, "high": self.high, "scale": self.scale}


@dataclass(frozen=True, slots=True)
class Choices:
    """A drawn axis over listed values, each equally likely (one listed twice, twice so)."""

    choices: tuple[Any, ...]

    def draw(self, info: Field, unit: NDArray[np.float64]) -> list[Any]:
        """Return a value for each of ``unit`` ``[n]`` in [0, 1)."""
        count = len(self.choices)
        return [self.choices[min(int(u * count), count - 1)] for u in unit]

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        return {"choices": [write_value(v) for v in self.choices]}


GridAxis = Values | Spaced | Span
DrawnAxis = Interval | Choices


def _settle(info: Field, points: NDArray[np.float64], low: float, high: float) -> list[Any]:
    """Round points to what a run spec holds.

    Floats get six significant digits (of the range, where that is narrow): readable, and the same
    on every machine, since a run id must not depend on the last bit of a logarithm.
    """
    if info.kind == "int":
        return [int(min(max(round(p), low), high)) for p in points.tolist()]
    spread = abs(high - low) or 1.0
    digits = 6 + max(0, math.floor(math.log10(max(abs(low), abs(high), spread) / spread)))
    return [min(max(float(f"{p:.{digits}g}"), low), high) for p in points.tolist()]


def write_value(value: Any) -> Any:
    """Return a value as a sweep file writes it."""
    return NONE_WORD if value is None else value


def read_value(
    name: str, raw: Any, place: str, problems: list[Problem]
) -> tuple[Field | None, Any]:
    """Return the field and the checked value; the field is None where anything is wrong.

    Args:
        name: the field.
        raw: what the file says.
        place: where, for the message.
        problems: receives what is wrong.
    """
    info = field_infos().get(name)
    if info is None:
        problems.append(unknown_field(place, name))
        return None, None
    if raw == NONE_WORD and info.optional and info.kind != "str":
        return info, None
    if isinstance(raw, list | tuple | dict):
        kind = "a table" if isinstance(raw, dict) else "a list"
        fix = "a field that varies goes in [grid]" if kind == "a list" else "give one value"
        problems.append(Problem(place, raw, f"is {kind}, not one value", _one(info), fix))
        return None, None
    value, problem = check_value(info, raw, place)
    if problem is not None:
        problems.append(problem)
        return None, None
    return info, value


def _one(info: Field) -> str:
    names = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false"}
    return " ".join(filter(None, [names[info.kind], info.bounds()]))


def read_values(name: str, raw: Sequence[Any], place: str, problems: list[Problem]) -> list[Any]:
    """Return the checked values of a list; wrong ones are left out and reported."""
    out = []
    for index, item in enumerate(raw):
        info, value = read_value(name, item, f"{place}[{index}]", problems)
        if info is not None:
            out.append(value)
    return out


def read_grid_axis(name: str, raw: Any, place: str, problems: list[Problem]) -> GridAxis | None:
    """Return the grid axis that ``raw`` writes, or None where anything is wrong."""
    info = field_infos().get(name)
    if info is None:
        problems.append(unknown_field(place, name))
        return None
    before = len(problems)
    axis: GridAxis | None = None
    if isinstance(raw, list | tuple):
        axis = Values(tuple(read_values(name, raw, place, problems)))
        _check_repeats(axis, place, problems)
    elif isinstance(raw, Mapping) and "range" in raw:
        axis = _read_span(info, raw, place, problems)
    elif isinstance(raw, Mapping):
        axis = _read_spaced(info, raw, place, problems)
    else:
        fix = f"write [{raw!r}], or fix it in [base]"
        problems.append(Problem(place, raw, "an axis needs several values", _GRID_FORMS, fix))
    if axis is not None and len(problems) == before and len(axis) == 0:
        problems.append(Problem(place, raw, "the axis has no value", _GRID_FORMS))
    return axis if len(problems) == before else None


def read_drawn_axis(name: str, raw: Any, place: str, problems: list[Problem]) -> DrawnAxis | None:
    """Return the drawn axis that ``raw`` writes, or None where anything is wrong."""
    info = field_infos().get(name)
    if info is None:
        problems.append(unknown_field(place, name))
        return None
    before = len(problems)
    axis: DrawnAxis | None = None
    if isinstance(raw, Mapping) and "choices" in raw:
        check_keys(raw, ("choices",), place, problems)
        choices = raw["choices"]
        if not isinstance(choices, list | tuple) or not choices:
            problems.append(Problem(f"{place}.choices", choices, "needs a list", "[a, b, ...]"))
        else:
            axis = Choices(tuple(read_values(name, choices, f"{place}.choices", problems)))
    elif isinstance(raw, Mapping):
        axis = _read_interval(info, raw, place, problems)
    else:
        fix = "a list goes in choices" if isinstance(raw, list | tuple) else ""
        problems.append(Problem(place, raw, "not a drawn axis", _DRAWN_FORMS, fix))
    return axis if len(problems) == before else None


def check_keys(
    raw: Mapping[str, Any], allowed: Sequence[str], place: str, problems: list[Problem]
) -> None:
    """Report the keys of a table that nothing reads."""
    for key in raw:
        if key not in allowed:
            dotted = f"{place}.{key}" if place else str(key)
            found = unknown_name(dotted, str(key), "unknown key", allowed)
            problems.append(dataclasses.replace(found, value=None))


def _check_repeats(axis: Values, place: str, problems: list[Problem]) -> None:
    seen: set[Any] = set()
    for value in axis.values:
        if value in seen:
            problems.append(Problem(place, value, "is given twice", "each value once"))
        seen.add(value)


def _read_span(
    info: Field, raw: Mapping[str, Any], place: str, problems: list[Problem]
) -> Span | None:
    check_keys(raw, ("range",), place, problems)
    ends = raw["range"]
    place = f"{place}.range"
    good = isinstance(ends, list | tuple) and len(ends) in (2, 3)
    if not good or not all(type(e) is int for e in ends) or info.kind not in ("int", "float"):
        allowed = "[first, end] or [first, end, step], integers, for a numeric field"
        problems.append(Problem(place, ends, "not a range", allowed))
        return None
    if len(ends) == 3 and ends[2] == 0:
        problems.append(Problem(place, ends, "the step is 0", "any other integer"))
        return None
    if (axis := Span(*ends)).count > MAX_RUNS:
        message = f"has {axis.count:,} values"
        problems.append(Problem(place, ends, message, f"up to {MAX_RUNS:,}"))
        return None
    values = range(*ends)
    for value in {values[0], values[-1]} if values else ():
        problem = check_value(info, value, place)[1]
        if problem is not None:
            problems.append(problem)
    return axis


def _read_spaced(
    info: Field, raw: Mapping[str, Any], place: str, problems: list[Problem]
) -> Spaced | None:
    check_keys(raw, ("start", "stop", "num", "scale"), place, problems)
    ends = _read_ends(info, raw, ("start", "stop"), place, problems)
    num = raw.get("num")
    if type(num) is not int or not 2 <= num <= MAX_RUNS:
        message = "is missing" if num is None else "not a number of values"
        allowed = f"an integer from 2 to {MAX_RUNS}"
        problems.append(Problem(f"{place}.num", num, message, allowed))
        return None
    return None if ends is None else Spaced(*ends, num, _scale(raw))


def _read_interval(
    info: Field, raw: Mapping[str, Any], place: str, problems: list[Problem]
) -> Interval | None:
    check_keys(raw, ("low", "high", "scale"), place, problems)
    ends = _read_ends(info, raw, ("low", "high"), place, problems)
    if ends is None:
        return None
    if not ends[0] < ends[1]:
        problems.append(Problem(place, list(ends), "low is not below high", "low < high"))
    return Interval(*ends, _scale(raw))


def _scale(raw: Mapping[str, Any]) -> str:
    return str(raw.get("scale", "linear"))


def _read_ends(
    info: Field,
    raw: Mapping[str, Any],
    keys: tuple[str, str],
    place: str,
    problems: list[Problem],
) -> tuple[float, float] | None:
    """Return the two ends of a numeric axis, checked against the field and the scale."""
    if info.kind not in ("int", "float"):
        message = f"{info.name} is not a number, so it has no {keys[0]} and {keys[1]}"
        problems.append(Problem(place, None, message, "a list of values"))
        return None
    scale = _scale(raw)
    if scale not in SCALES:
        problems.append(unknown_name(f"{place}.scale", scale, "unknown scale", SCALES))
    ends = []
    for key in keys:
        if key not in raw:
            problems.append(Problem(f"{place}.{key}", None, "is missing", _one(info)))
            continue
        value, problem = check_value(info, raw[key], f"{place}.{key}")
        if problem is None and value is None:
            problem = Problem(f"{place}.{key}", None, "is missing", _one(info))
        if problem is None and scale == "log" and value <= 0:
            problem = Problem(f"{place}.{key}", value, "has no logarithm", "> 0")
        if problem is not None:
            problems.append(problem)
        else:
            ends.append(value)
    return (ends[0], ends[1]) if len(ends) == 2 else None
