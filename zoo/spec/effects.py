"""What a sweep sets but no run reads: an axis that changes nothing is a mistake in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from zoo.errors import Problem
from zoo.spec.catalogue import catalogue
from zoo.spec.common import SEED_FIELDS
from zoo.spec.design import SweepBlock
from zoo.spec.run import RunSpec

__all__ = ["find_idle", "find_unread", "readers"]


def readers(name: str) -> str:
    """Return which entries read a conditional field, in words; empty where every run does."""
    pairs = catalogue().readers.get(name, ())
    return " or ".join(f"{owner} = {entry!r}" for owner, entry in pairs)


def find_idle(
    block: SweepBlock, runs: Sequence[RunSpec], matched: Sequence[Set[int]], prefix: str
) -> Iterator[Problem]:
    """Yield a problem for each axis that changes nothing and each fixed field that none reads.

    Args:
        block: the design.
        runs: its runs, after exclusion.
        matched: for each run, the conditional parts that hold for it.
        prefix: where the block stands.
    """
    everywhere = list(range(len(runs)))
    sizes = {name: len(axis) for name, axis in block.grid.items()}
    for group in block.zips:
        sizes |= {name: len(set(values)) for name, values in group.items()}
    for place, name in block.swept():
        varies = sizes.get(name, block.sample.n if block.sample else 1) > 1
        yield from _idle_axis(prefix + place, name, runs, everywhere, varies=varies)
    yield from find_unread(block.base, runs, f"{prefix}base")
    for index, part in enumerate(block.when):
        rows = [i for i, held in enumerate(matched) if index in held]
        place = f"{prefix}when[{index}]"
        for name, axis in part.grid.items():
            where = f"{place}.grid.{name}"
            yield from _idle_axis(where, name, runs, rows, varies=len(axis) > 1)
        for name in part.drawn:
            where = f"{place}.sample.axes.{name}"
            yield from _idle_axis(where, name, runs, rows, varies=len(rows) > 1)
        yield from find_unread(part.base, [runs[i] for i in rows], f"{place}.base")


def find_unread(base: Mapping[str, Any], runs: Sequence[RunSpec], place: str) -> Iterator[Problem]:
    """Yield a problem for each fixed field that has a value and that no run reads."""
    for name, value in base.items():
        if value is not None and runs and all(getattr(run, name) is None for run in runs):
            yield Problem(f"{place}.{name}", value, "no run reads it", readers(name))


def _idle_axis(
    place: str,
    name: str,
    runs: Sequence[RunSpec],
    rows: Sequence[int],
    *,
    varies: bool,
) -> Iterator[Problem]:
    if not rows:
        return
    names = SEED_FIELDS if name == "seed" else (name,)
    seen = {_effect(runs[i], names) for i in rows}
    unread = all(getattr(runs[i], name) is None for i in rows)
    if len(seen) > 1 or not (varies or unread):
        return
    needed = readers(name)
    if unread and needed:
        yield Problem(place, None, "changes nothing: no run of this block reads it", needed)
    elif unread or name in _NEEDS:
        yield Problem(place, None, "changes nothing in any run", _NEEDS.get(name, ""))
    else:
        fix = "see what else sets or excludes it"
        yield Problem(place, None, "has one and the same effect in every run", "", fix)


_NEEDS = {
    "dropout_seed": "dropout > 0",
    "augment_seed": "an augmentation",
    "noise_seed": "label_noise > 0 or a train_size",
    "diet_seed": "a score or a dynamic diet",
    "epochs": "no steps: steps win over epochs",
    "seed": "one of the six seeds not given: each takes the value of seed where it is not",
}


def _effect(run: RunSpec, names: Sequence[str]) -> tuple[object, ...]:
    """Return the values of some fields, None where one changes nothing in this run."""
    idle = run.idle_fields()
    return tuple(None if name in idle else getattr(run, name) for name in names)
