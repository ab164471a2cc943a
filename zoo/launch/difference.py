"""How a sweep differs from the one that a store was made with."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from zoo.errors import short
from zoo.spec import RunSpec, Sweep, resolve_runs
from zoo.store import read_plan, read_sweep_text

__all__ = ["SweepChange", "sweep_change"]


@dataclass(frozen=True, slots=True)
class SweepChange:
    """What a sweep has that a store has not, and the other way round.

    Args:
        fields: place in the file, what the store has, what the sweep has; empty text = nothing.
        added: runs of the sweep that the store lacks.
        absent: runs of the store that are not in the sweep; they stay.
        shared: runs of both.
    """

    fields: tuple[tuple[str, str, str], ...]
    added: int
    absent: int
    shared: int

    def lines(self) -> list[str]:
        """Return the change in words, a line per field, then one about the runs."""
        unset = "not set"
        out = [f"{place}: {old or unset} -> {new or unset}" for place, old, new in self.fields]
        runs = [f"{self.added:,} added"] if self.added else []
        if self.absent:
            runs.append(f"{self.absent:,} of the store not in the sweep (they stay)")
        if not self.shared:
            runs.append("none in common: is this the right store?")
        return [*out, f"runs: {', '.join(runs) or 'the same'}"]


def sweep_change(sweep: Sweep, path: str | PathLike[str]) -> SweepChange | None:
    """Return how a sweep differs from that of a store; None where it does not.

    Args:
        sweep: the sweep.
        path: the store.

    Raises:
        StoreError: the store cannot be read.
        SpecError: the runs do not fit the data that the store was made with.
    """
    plan = read_plan(path)
    old = dict(_flat(tomllib.loads(read_sweep_text(path))))
    new = dict(_flat(tomllib.loads(sweep.to_toml())))
    fields = tuple(
        (place, old.get(place, ""), new.get(place, ""))
        for place in dict.fromkeys([*new, *old])
        if old.get(place) != new.get(place) and not place.startswith("paths.")
    )
    sizes = {name: int(facts["train_examples"]) for name, facts in plan.data.items()}
    known = [run for run in sweep.runs() if run.data_key in sizes]
    wanted = {run.run_id for run in resolve_runs(known, sizes)}
    there = {_named(run).run_id for cohort in plan.cohorts for run in cohort.runs}
    added = len(wanted - there) + len(sweep.runs()) - len(known)
    absent = len(there - wanted)
    if not (fields or added or absent):
        return None
    return SweepChange(fields, added, absent, len(wanted & there))


def _named(run: RunSpec) -> RunSpec:
    """Return a planned run as a sweep file has it: its files by their names, not their content."""
    if run.data_sha256 is None and run.score_sha256 is None:
        return run
    return run.replace(data_sha256=None, score_sha256=None)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted place and the text of each value; an axis is one value."""
    for key, value in table.items():
        place = f"{prefix}{key}"
        if isinstance(value, Mapping) and not place.startswith(("grid.", "sample.axes.")):
            yield from _flat(value, f"{place}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for index, item in enumerate(value):
                yield from _flat(item, f"{place}[{index}].")
        else:
            yield place, short(value)
