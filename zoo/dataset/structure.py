"""What rows of one kind share: the layout and the symmetries of their architecture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures import Layout, build
from zoo.architectures.symmetry import (
    PermutationGroup,
    UnitSymmetry,
    permutation_groups,
    unit_symmetries,
)
from zoo.data.shape import DataShape
from zoo.dataset.any_view import AnyView
from zoo.errors import PluginMissingError, QueryError
from zoo.landscape.weight_matching import groups_from_json
from zoo.spec.run import RunSpec
from zoo.train.plan import Cohort

__all__ = ["Structure", "by_structure", "only_structure", "structure_of"]


@dataclass(frozen=True, slots=True)
class Structure:
    """The form of a slab row ``[P]``, equal for all runs that compute the same function of it.

    Cohorts that differ by batch size or optimizer share a structure; those that differ by
    activation do not, even where their layouts are equal.

    Args:
        layout: where each tensor is in a row.
        groups: units that may be permuted, from input to output.
        units: scale and sign symmetries, from input to output.
        family: architecture family.
        activation: activation function.
        norm: normalisation layer.
        data_shape: the form of an example and of its target.
        ops: description of each operation, JSON.
    """

    layout: Layout
    groups: tuple[PermutationGroup, ...]
    units: tuple[UnitSymmetry, ...]
    family: str
    activation: str
    norm: str
    data_shape: DataShape
    ops: tuple[str, ...]

    def __repr__(self) -> str:
        text = f"{self.family}, {self.activation}, norm {self.norm}, {self.params} parameters"
        return f"<Structure: {text}>"

    @property
    def params(self) -> int:
        """P: values of a row, buffers included."""
        return self.layout.params

    def require_chain(self, what: str) -> None:
        """Make sure that layers follow one another, so that a row can be read as a list of them.

        Args:
            what: what reads it so.

        Raises:
            QueryError: they do not, or nothing is known of them.
        """
        ops = [json.loads(op) for op in self.ops]
        if any("reads" in op or op["op"] == "module" for op in ops):
            msg = (
                f"{what} needs layers that follow one another, and of {self.family!r} that is not"
                " known: query other architectures, or take the form 'flat' or 'tokens'"
            )
            raise QueryError(msg)

    def group(self, name: str) -> PermutationGroup:
        """Return the permutation group of this name.

        Raises:
            KeyError: there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    @classmethod
    def of(cls, run: RunSpec, data: DataShape) -> Structure:
        """Return the structure of a run's rows."""
        network = build(run, data)
        return cls(
            layout=network.layout,
            groups=permutation_groups(network),
            units=unit_symmetries(network),
            family=run.architecture,
            activation=run.activation,
            norm=run.norm,
            data_shape=data,
            ops=tuple(json.dumps(op, sort_keys=True) for op in network.describe_ops()),
        )


@lru_cache(maxsize=4096)
def structure_of(cohort: Cohort) -> Structure:
    """Return the structure of a cohort's rows; where a plug-in is missing, as the store has it."""
    try:
        return Structure.of(cohort.runs[0], cohort.data_shape)
    except PluginMissingError:
        return _as_stored(cohort)


def _as_stored(cohort: Cohort) -> Structure:
    run, about = cohort.runs[0], cohort.architecture
    units = tuple(
        UnitSymmetry(row["group"], row["kind"], _axes(row["multiplied"]), _axes(row["divided"]))
        for row in about["unit_symmetries"]
    )
    return Structure(
        layout=cohort.layout,
        groups=groups_from_json(about["permutation_groups"]),
        units=units,
        family=str(run.architecture),
        activation=str(run.activation),
        norm=str(run.norm),
        data_shape=cohort.data_shape,
        ops=tuple(json.dumps(op, sort_keys=True) for op in about["ops"]),
    )


def _axes(rows: Iterable[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(key), int(axis)) for key, axis in rows)


def by_structure(view: AnyView) -> dict[Structure, NDArray[np.int64]]:
    """Return the positions of a view's rows by structure, in view order, structures as planned."""
    found: dict[Structure, NDArray[np.bool_]] = {}
    for index in np.unique(view.cohort_index):
        structure = structure_of(view.zoo.plan.cohorts[index])
        at = view.cohort_index == index
        found[structure] = found[structure] | at if structure in found else at
    return {structure: np.flatnonzero(at) for structure, at in found.items()}


def only_structure(view: AnyView) -> Structure:
    """Return the structure of every row of a view.

    Raises:
        QueryError: the view has no rows, or rows of several structures.
    """
    found = by_structure(view)
    if len(found) != 1:
        shown = "; ".join(
            f"{s.family}, {s.activation}, norm {s.norm}, {s.params} parameters"
            for s in list(found)[:6]
        )
        msg = (
            f"the view holds rows of {len(found)} structures ({shown or 'no rows'}); query one "
            "architecture, width, depth, activation and norm"
        )
        raise QueryError(msg)
    return next(iter(found))
