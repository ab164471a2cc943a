"""The parts of a sweep: blocks of runs, the design of each, and its conditional axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.spec.axes import DrawnAxis, GridAxis, write_value
from zoo.spec.predicate import Predicate

__all__ = ["Sample", "SweepBlock", "When"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A space-filling design: n points over the drawn axes.

    Args:
        method: a name of :data:`zoo.spec.points.POINT_METHODS`.
        n: number of points.
        seed: of the design, not of the runs.
        axes: field -> drawn axis.
    """

    method: str
    n: int
    seed: int
    axes: Mapping[str, DrawnAxis]

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        axes = {name: axis.to_raw() for name, axis in self.axes.items()}
        return {"method": self.method, "n": self.n, "seed": self.seed, "axes": axes}


@dataclass(frozen=True, slots=True)
class When:
    """Fields and axes of those runs of a block for which a condition holds.

    Args:
        condition: over run-spec fields, as they stand before this part.
        base: fixed fields.
        grid: axes; each run is multiplied by their product.
        drawn: further dimensions of the block's sample, used in these runs alone.
    """

    condition: Predicate
    base: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, GridAxis] = field(default_factory=dict)
    drawn: Mapping[str, DrawnAxis] = field(default_factory=dict)

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has."""
        raw: dict[str, Any] = {"if": self.condition.text}
        if self.base:
            raw["base"] = {name: write_value(v) for name, v in self.base.items()}
        if self.grid:
            raw["grid"] = {name: axis.to_raw() for name, axis in self.grid.items()}
        if self.drawn:
            raw["sample"] = {"axes": {name: axis.to_raw() for name, axis in self.drawn.items()}}
        return raw


@dataclass(frozen=True, slots=True)
class SweepBlock:
    """One design: sample points x grid x zips, then the conditional parts, then the exclusions.

    Args:
        base: fixed fields, over those of the sweep.
        grid: field -> axis; their product.
        zips: groups of equally long lists that move together.
        sample: the space-filling part, if any.
        when: conditional parts, applied in order.
        exclude: conditions; a run for which one holds is left out.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, GridAxis] = field(default_factory=dict)
    zips: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    sample: Sample | None = None
    when: tuple[When, ...] = ()
    exclude: tuple[Predicate, ...] = ()

    def swept(self) -> Iterator[tuple[str, str]]:
        """Yield ``(place, field)`` of every axis outside the conditional parts."""
        yield from ((f"grid.{name}", name) for name in self.grid)
        for index, group in enumerate(self.zips):
            place = "zip" if len(self.zips) == 1 else f"zip[{index}]"
            yield from ((f"{place}.{name}", name) for name in group)
        if self.sample is not None:
            yield from ((f"sample.axes.{name}", name) for name in self.sample.axes)

    def to_raw(self) -> dict[str, Any]:
        """Return the form that a sweep file has, without empty parts."""
        raw: dict[str, Any] = {}
        if self.base:
            raw["base"] = {name: write_value(v) for name, v in self.base.items()}
        if self.grid:
            raw["grid"] = {name: axis.to_raw() for name, axis in self.grid.items()}
        if self.zips:
            groups = [{k: [write_value(v) for v in vs] for k, vs in z.items()} for z in self.zips]
            raw["zip"] = groups
        if self.sample is not None:
            raw["sample"] = self.sample.to_raw()
        if self.when:
            raw["when"] = [part.to_raw() for part in self.when]
        if self.exclude:
            raw["exclude"] = [condition.text for condition in self.exclude]
        return raw
