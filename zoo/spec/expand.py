"""Expansion: from the blocks of a sweep to its runs, each checked, none twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import Problem, SpecError
from zoo.spec.axes import DrawnAxis
from zoo.spec.design import SweepBlock
from zoo.spec.effects import find_idle
from zoo.spec.limits import MAX_RUNS
from zoo.spec.points import unit_points
from zoo.spec.predicate import Predicate
from zoo.spec.run import RunSpec, field_infos

__all__ = [
    "BlockRuns", "Row", "build_runs", "counted", "designed_count", "expand_block", "unique_runs",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One run before it is built.

    Args:
        values: what the sweep gives; other fields keep their defaults.
        point: index of the sample point that it comes from.
        matched: the conditional parts that hold for it.
    """

    values: Mapping[str, Any]
    point: int = 0
    matched: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class BlockRuns:
    """The runs of one block, in order, repeats among them.

    Args:
        runs: after exclusion.
        rows: what each run was built from.
        excluded: how many were left out.
        problems: what is wrong with the block; its runs are then not to be used.
    """

    runs: tuple[RunSpec, ...] = ()
    rows: tuple[Row, ...] = ()
    excluded: int = 0
    problems: tuple[Problem, ...] = ()


class _TooManyError(Exception):
    """The design multiplies out to ``count`` runs."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


def expand_block(block: SweepBlock, base: Mapping[str, Any], prefix: str) -> BlockRuns:
    """Return the runs of a block whose parts were read without a problem.

    The order is that of nested loops: sample points outermost, then the axes of the grid in file
    order, then the zips; a conditional part multiplies each run where it stands.

    Args:
        block: the design.
        base: the sweep's fixed fields, under those of the block.
        prefix: where the block stands, for messages.
    """
    try:
        rows = _designed_rows(block, base)
        problems = []
        for index, part in enumerate(block.when):
            rows = _apply_when(block, index, rows)
            if not any(index in row.matched for row in rows):
                place = f"{prefix}when[{index}].if"
                text = part.condition.text
                problems.append(Problem(place, text, "holds for no run of the block"))
    except _TooManyError as error:
        allowed = f"up to {MAX_RUNS:,} in one sweep"
        message = f"the design has {error.count:,} runs"
        return BlockRuns(problems=(Problem(prefix.rstrip(".") or "grid", None, message, allowed),))
    runs, bad = build_runs([row.values for row in rows], prefix)
    if bad:
        return BlockRuns(problems=(*problems, *bad))
    keep = _kept(block.exclude, runs)
    kept_runs = tuple(itertools.compress(runs, keep))
    kept_rows = tuple(itertools.compress(rows, keep))
    if runs and not kept_runs:
        message = f"leaves none of the {len(runs)} runs of the block"
        problems.append(Problem(f"{prefix}exclude", None, message))
    elif not problems:
        matched = [row.matched for row in kept_rows]
        problems.extend(find_idle(block, kept_runs, matched, prefix))
    return BlockRuns(kept_runs, kept_rows, len(runs) - len(kept_runs), tuple(problems))


def build_runs(
    rows: Iterable[Mapping[str, Any]], prefix: str = ""
) -> tuple[list[RunSpec], list[Problem]]:
    """Return the run specs of ``rows``, and each different problem once with its count."""
    runs: list[RunSpec] = []
    found: dict[tuple[str, str, str], list[Problem]] = {}
    total = 0
    for values in rows:
        total += 1
        try:
            runs.append(RunSpec(**values))
        except SpecError as error:
            for problem in error.problems:
                found.setdefault((problem.field, problem.message, problem.allowed), []).append(
                    problem
                )
    return runs, [counted(group, total, prefix) for group in found.values()]


def counted(group: Sequence[Problem], total: int, prefix: str = "") -> Problem:
    """Return one problem for a group of equal ones, with its count among ``total`` runs."""
    first = group[0]
    message = f"{first.message} (in {len(group)} of {total} runs)"
    return Problem(f"{prefix}{first.field}", first.value, message, first.allowed, first.fix)


def unique_runs(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """Return the runs without those equivalent to an earlier one, in order."""
    first: dict[str, RunSpec] = {}
    for run in runs:
        first.setdefault(run.run_id, run)
    return tuple(first.values())


def designed_count(block: SweepBlock) -> int:
    """Return sample x grid x zips: the runs before conditional parts, exclusions and repeats."""
    sizes = [len(axis) for axis in block.grid.values()]
    sizes += [len(next(iter(group.values()))) for group in block.zips]
    return math.prod(sizes) * (block.sample.n if block.sample else 1)


def _designed_rows(block: SweepBlock, base: Mapping[str, Any]) -> list[Row]:
    """Return sample x grid x zips, before the conditional parts."""
    infos = field_infos()
    count = designed_count(block)
    if count > MAX_RUNS:
        raise _TooManyError(count)
    choices: list[list[dict[str, Any]]] = []
    for name, axis in block.grid.items():
        choices.append([{name: value} for value in axis.expand(infos[name])])
    for group in block.zips:
        moved = zip(*group.values(), strict=True)
        choices.append([dict(zip(group, values, strict=True)) for values in moved])
    fixed = {**base, **block.base}
    out = []
    for point, drawn in enumerate(_drawn_points(block)):
        for parts in itertools.product(*choices):
            values = {**fixed, **drawn}
            for part in parts:
                values.update(part)
            out.append(Row(values, point))
    return out


def _drawn_points(block: SweepBlock) -> list[dict[str, Any]]:
    """Return the drawn values of each sample point; one empty point where nothing is sampled."""
    if block.sample is None:
        return [{}]
    axes = block.sample.axes
    unit = _unit(block)[:, : len(axes)]
    return _draw(axes, unit)


def _unit(block: SweepBlock) -> NDArray[np.float64]:
    """Return ``[n, D]``: the block's own sample axes first, then those of its conditional parts."""
    sample = block.sample
    if sample is None:
        return np.zeros((0, 0))
    names = [*sample.axes]
    for index, part in enumerate(block.when):
        names += [f"when[{index}].{name}" for name in part.drawn]
    return unit_points(sample.method, names, sample.n, sample.seed)


def _draw(axes: Mapping[str, DrawnAxis], unit: NDArray[np.float64]) -> list[dict[str, Any]]:
    infos = field_infos()
    columns = [axis.draw(infos[name], unit[:, d]) for d, (name, axis) in enumerate(axes.items())]
    return [dict(zip(axes, values, strict=True)) for values in zip(*columns, strict=True)]


def _apply_when(block: SweepBlock, index: int, rows: list[Row]) -> list[Row]:
    """Return the rows after conditional part ``index``."""
    infos = field_infos()
    part = block.when[index]
    holds = np.broadcast_to(_evaluate(part.condition, [row.values for row in rows]), len(rows))
    copies = math.prod(len(axis) for axis in part.grid.values())
    count = len(rows) + int(holds.sum()) * (copies - 1)
    if count > MAX_RUNS:
        raise _TooManyError(count)
    drawn: list[dict[str, Any]] = []
    if part.drawn and block.sample is not None:
        before = sum(len(p.drawn) for p in block.when[:index]) + len(block.sample.axes)
        drawn = _draw(part.drawn, _unit(block)[:, before : before + len(part.drawn)])
    axes = [[(name, v) for v in axis.expand(infos[name])] for name, axis in part.grid.items()]
    out = []
    for row, held in zip(rows, holds.tolist(), strict=True):
        if not held:
            out.append(row)
            continue
        fixed = {**row.values, **part.base, **(drawn[row.point] if drawn else {})}
        matched = row.matched | {index}
        grid = itertools.product(*axes)
        out.extend(Row({**fixed, **dict(values)}, row.point, matched) for values in grid)
    return out


def _evaluate(condition: Predicate, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """Return ``[n]`` where the condition holds, conditional fields and defaults filled in."""
    runs = [RunSpec(**values) for values in rows] if condition.names else []
    return condition(_columns(condition, runs))


def _columns(condition: Predicate, runs: Sequence[RunSpec]) -> dict[str, NDArray[Any]]:
    return {
        name: np.array([getattr(run, name) for run in runs], dtype=object)
        for name in condition.names
    }


def _kept(exclude: Sequence[Predicate], runs: Sequence[RunSpec]) -> list[bool]:
    keep = np.ones(len(runs), dtype=bool)
    for condition in exclude:
        keep &= ~condition(_columns(condition, runs))
    return [bool(k) for k in keep]
