"""What a data set is to predict: columns as numbers or as class numbers, nothing missing unasked.

A class has the same number in every part of a split and after the zoo has grown. So the numbers
come from a list that no run changes: the values that the sweep format allows, in alphabetical
order; the phases, in their own order; the states of a run. Further values of a run's field follow
in the order of the plan, to which a growing zoo only adds. A text column of a stage of your own is
numbered by the values that the zoo has today, with a warning that says how to pin them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.dataset.any_view import AnyView, AnyZoo
from zoo.dataset.columns import STATUSES, unknown_column
from zoo.errors import QueryError
from zoo.phases import PHASES, UNDETERMINED
from zoo.registry import vocabulary

__all__ = ["MISSING", "NO_CLASS", "Targets", "encode_targets", "has_targets", "known_classes"]

#: What to do with rows that lack a target.
MISSING = ("error", "drop", "keep")
#: Class number of a missing text that is kept: what torch's losses ignore.
NO_CLASS = -100
_SHOWN = 12
#: Frames from the warning to the caller of ``torch_dataset``.
_CALLER = 5


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The targets of n rows.

    Args:
        values: ``[n]`` or ``[n, T]``; float32 numbers or int64 class numbers.
        classes: target → its classes, by number; for targets that are classes.
    """

    values: Tensor
    classes: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Which columns are targets, and how.

    Args:
        names: the columns.
        single: whether one name was given, not a list of them.
        classes: column → its classes, in the order of their numbers, where they were given.
        missing: one of :data:`MISSING`.
    """

    names: tuple[str, ...]
    single: bool
    classes: Mapping[str, tuple[Any, ...]]
    missing: str

    @classmethod
    def read(
        cls,
        targets: str | Sequence[str],
        classes: Sequence[Any] | Mapping[str, Sequence[Any]] | None,
        missing: str,
    ) -> TargetOptions:
        """Return the options as one record.

        Raises:
            QueryError: a value that is none of those allowed.
        """
        single = isinstance(targets, str)
        names: tuple[Any, ...] = (targets,) if isinstance(targets, str) else tuple(targets)
        if wrong := [name for name in names if not isinstance(name, str)]:
            msg = f"targets: {wrong[0]!r} is not the name of a column"
            raise QueryError(msg)
        if missing not in MISSING:
            msg = f"missing = {missing!r}; allowed: {', '.join(map(repr, MISSING))}"
            raise QueryError(msg)
        given = _given_classes(names, classes)
        return cls(names, single, given, missing)


def _given_classes(
    names: tuple[str, ...], classes: Sequence[Any] | Mapping[str, Sequence[Any]] | None
) -> dict[str, tuple[Any, ...]]:
    if classes is None:
        return {}
    if isinstance(classes, str):
        msg = f"classes = {classes!r}: give a list of classes, in the order of their numbers"
        raise QueryError(msg)
    if not isinstance(classes, Mapping):
        if len(names) != 1:
            msg = f"classes: with {len(names)} targets give a dict, {{target: [class, ...]}}"
            raise QueryError(msg)
        classes = {names[0]: classes}
    for name, values in classes.items():
        if name not in names:
            msg = f"classes: {name!r} is not a target; targets: {', '.join(names) or 'none'}"
            raise QueryError(msg)
        listed = list(values)
        if len(listed) < 1 or len(set(listed)) < len(listed):
            msg = f"classes of {name!r}: {listed!r} must list each class once"
            raise QueryError(msg)
    return {name: tuple(values) for name, values in classes.items()}


def encode_targets(view: AnyView, options: TargetOptions) -> Targets:
    """Return the targets of every row of a view.

    Raises:
        QueryError: an unknown column, missing values where they are an error, values that are not
            among the given classes, or numbers beside classes.
    """
    found: dict[str, tuple[Any, ...]] = {}
    notes: list[str] = []
    columns = [_encoded(view, name, options, found, notes) for name in options.names]
    for note in notes:
        warnings.warn(note, stacklevel=_CALLER)
    if len({column.dtype for column in columns}) > 1:
        msg = (
            f"targets {', '.join(options.names)}: numbers and classes cannot share one tensor; "
            "make a data set for each"
        )
        raise QueryError(msg)
    stacked = torch.stack(columns, 1) if columns else torch.empty(len(view), 0)
    return Targets(stacked[:, 0] if options.single else stacked, found)


def has_targets(view: AnyView, options: TargetOptions) -> NDArray[np.bool_]:
    """Return ``[n]``: the rows that have every target.

    Raises:
        QueryError: an unknown column.
    """
    there = np.ones(len(view), dtype=np.bool_)
    for name in options.names:
        there &= ~_missing(view.column(name))
    return there


def known_classes(zoo: AnyZoo, name: str) -> tuple[tuple[Any, ...], bool]:
    """Return the classes of a column of text or truth values, and whether no run can move them.

    Raises:
        QueryError: an unknown column.
    """
    if name not in zoo.columns:
        raise unknown_column(name, zoo.columns)
    field = zoo.axes.get(name, name)
    info = zoo.plan.run_fields.get(field)
    declared: tuple[Any, ...] = ()
    if info is not None and info.kind == "bool":
        declared = (False, True)
    elif info is not None and (registry := vocabulary(field)) is not None:
        declared = tuple(sorted(registry.names()))
    elif name == "status":
        declared = STATUSES
    elif name == "phase" or name.startswith("phase_v"):
        declared = (*PHASES, UNDETERMINED)
    planned = info is not None or name in ("run_id", "cohort")
    here = dict.fromkeys(v for table in zoo.tables for v in table[name].ravel().tolist())
    others = [v for v in here if v not in declared and v != "" and v == v]
    return (*declared, *(others if planned else sorted(others))), planned or not others


def _encoded(
    view: AnyView,
    name: str,
    options: TargetOptions,
    found: dict[str, tuple[Any, ...]],
    notes: list[str],
) -> Tensor:
    values = view.column(name)
    missing = _missing(values)
    if missing.any() and options.missing != "keep":
        raise QueryError(_missing_text(name, values, missing))
    given = options.classes.get(name)
    if given is None and not _is_class(view.zoo, name, values):
        return torch.from_numpy(values.astype(np.float32))
    classes, fixed = (given, True) if given is not None else known_classes(view.zoo, name)
    found[name] = classes
    numbers = {value: number for number, value in enumerate(classes)}
    distinct, inverse = np.unique(values, return_inverse=True)
    lost = [v for v in distinct.tolist() if v not in numbers and v == v and v != ""]
    if lost:
        shown = ", ".join(repr(v) for v in lost[:_SHOWN])
        count = int(np.isin(values, lost).sum())
        msg = (
            f"{count} of {len(values)} rows have a {name!r} that is not among the classes: {shown};"
            f' add these, or leave the rows out with the query "{name} in {list(classes)}"'
        )
        raise QueryError(msg)
    if given is None:
        notes += _notes(view, name, classes, set(distinct.tolist()), fixed=fixed)
    codes = np.array([numbers.get(v, NO_CLASS) for v in distinct.tolist()], dtype=np.int64)
    return torch.from_numpy(codes[inverse] if len(values) else codes)


def _is_class(zoo: AnyZoo, name: str, values: NDArray[Any]) -> bool:
    # a column of truth values is one of floats where some cohort has none
    info = zoo.plan.run_fields.get(zoo.axes.get(name, name))
    return values.dtype.kind in "Ub" or (info is not None and info.kind == "bool")


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "U":
        return np.asarray(values == "")
    return ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), np.bool_)


def _missing_text(name: str, values: NDArray[Any], missing: NDArray[np.bool_]) -> str:
    text = values.dtype.kind == "U"
    infinite = 0 if text else int(np.isinf(values).sum())
    query = f"{name} != ''" if text else f"{name} is not None"
    also = f" ({infinite} of them infinite, which only missing='drop' leaves out)"
    return (
        f"{int(missing.sum())} of {len(values)} rows have no {'' if text else 'finite '}{name!r}"
        f'{also if infinite else ""}; leave them out with the query "{query}" or'
        " missing='drop', or take them as they are with missing='keep'"
    )


def _notes(
    view: AnyView, name: str, classes: tuple[Any, ...], present: set[Any], *, fixed: bool
) -> list[str]:
    """Return what to warn of: numbers that may move, and classes that no row here has."""
    notes = []
    if not fixed:
        notes.append(
            f"{name!r} has values that are in no fixed list, so its class numbers move when the zoo"
            f" grows; pin them with classes=[{_listed(classes)}]"
        )
    everywhere = {v for table in view.zoo.tables for v in np.unique(table[name]).tolist()}
    absent = [v for v in classes if v in everywhere and v not in present]
    if absent and len(view):
        here = [v for v in classes if v in present]
        notes.append(
            f"no row here has {name} = {' or '.join(map(repr, absent[:_SHOWN]))}, which other rows"
            f" of the zoo have; give classes=[{_listed(here)}] to number these alone, or list those"
            " that you want"
        )
    return notes


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(repr(v) for v in values[:_SHOWN]) + ", ..." * (len(values) > _SHOWN)
