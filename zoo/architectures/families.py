"""The registry of architecture families, and what all of them build a hidden block from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.architectures.activations import Activation
from zoo.architectures.dropout import Dropout
from zoo.architectures.network import Network
from zoo.architectures.norms import NORMS
from zoo.architectures.op import Op, Shape
from zoo.data.shape import DataShape
from zoo.errors import Problem, SpecError
from zoo.fields import Field, Fields
from zoo.registry import Registry
from zoo.spec.limits import MAX_DEPTH
from zoo.spec.plugged import check_plugins
from zoo.spec.run import RunSpec

__all__ = ["ARCHITECTURES", "DEPTH", "Family", "after_weights", "build"]

#: Of families that are so many blocks of one kind.
DEPTH = Field(
    "depth", "int", 2, "hidden layers; None = the family's own", low=1, high=MAX_DEPTH,
    per="cohort", aka="num_layers n_layers layers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture family.

    Args:
        build: makes the network from (run, shape of the data).
        fields: conditional run-spec fields that it reads.
        fixes: fields of every run that it does not read, at the value that means so.
        tokens: whether it reads examples of tokens, too.
    """

    build: Callable[[RunSpec, DataShape], Network]
    fields: Fields
    fixes: Mapping[str, Any] = field(default_factory=dict)
    tokens: bool = False


ARCHITECTURES: Registry[Family] = Registry("architecture", field="architecture", builds=True)


def after_weights(run: RunSpec, block: str, shape: Shape, layer: int) -> list[Op]:
    """Return what follows the weights of hidden block ``layer``: norm, activation, dropout.

    Raises:
        SpecError: the norm cannot stand here.
    """
    kind = NORMS[run.norm]
    norm = kind(f"{block}.norm", shape, {name: getattr(run, name) for name in kind.fields})
    reason = norm.problem()
    if reason is not None:
        raise SpecError([Problem("norm", run.norm, f"does not fit {block}: {reason}")])
    return [
        norm,
        Activation(f"{block}.activation", shape, run.activation),
        Dropout(f"{block}.dropout", shape, layer),
    ]


def build(run: RunSpec, data: DataShape) -> Network:
    """Return the network that a run spec describes.

    Args:
        run: the spec.
        data: the form of an example and of its target.

    Raises:
        SpecError: the architecture does not fit the data, or a norm its place.
        PluginMissingError: the run uses a plug-in that is not loaded, or has changed.
    """
    check_plugins(run)
    return ARCHITECTURES[run.architecture].build(run, data)
