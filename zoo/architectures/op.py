"""The one description of a layer: from it come layout, stacked forward and backward, and module.

Inside the stacked network a feature map is ``[G, B, T, C]``: G models of a group, B examples, T
positions (1 for vectors, H·W in row-major order for images), C channels last. One layout for every
family keeps norms and activations free of special cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Mode", "Op", "Param", "Params", "Shape"]

#: Named tensors of a group, each ``[G, *shape]``.
Params = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of one example between two ops: spatial extent and channels."""

    spatial: tuple[int, ...]
    channels: int

    @property
    def positions(self) -> int:
        """T: the product of the spatial extent, 1 for a vector."""
        count = 1
        for extent in self.spatial:
            count *= extent
        return count


@dataclass(frozen=True, slots=True)
class Param:
    """One tensor that an op owns; ``suffix`` completes the op's path to the state-dict key."""

    suffix: str
    shape: tuple[int, ...]
    role: str
    fan_in: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """How a forward pass is to be run.

    Args:
        training: batch statistics and dropout on.
        dtype: compute type of matrix products; statistics and loss stay float32.
        conv: ``"im2col"`` (matrix products), ``"grouped"`` (one grouped convolution),
            ``"implicit"`` (a kernel), or ``"measured"`` (on a GPU: what a table says).
        dropout_rate: ``[G]`` probabilities, or None where the cohort has no dropout.
        dropout_seed: ``[G]`` int64 seeds.
        step: ``[G]`` int64, each model's own step: the counter of its random numbers.
        new_buffers: filled by norms in training: state-dict key -> new value ``[G, ...]``.
    """

    training: bool
    dtype: torch.dtype = torch.float32
    conv: str = "im2col"
    dropout_rate: Tensor | None = None
    dropout_seed: Tensor | None = None
    step: Tensor | None = None
    new_buffers: dict[str, Tensor] = field(default_factory=dict)


class Op(ABC):
    """A layer of a sequential network, for one model and for G stacked models.

    Args:
        path: dotted place in the module tree (``"hidden.0.linear"``); never depends on
            hyper-parameters, so that names do not shift between runs.
    """

    #: Whether permuting input channels permutes output channels alike.
    equivariant = True
    #: Kinds of factor ("scale", "sign") that an output unit takes on from the parameters that
    #: :meth:`scaled` names.
    output_factors: frozenset[str] = frozenset({"scale", "sign"})
    #: Kinds of factor on an input unit that its column of the weight can undo.
    input_factors: frozenset[str] = frozenset()

    def __init__(self, path: str) -> None:
        self.path = path

    def params(self) -> tuple[Param, ...]:
        """Return the tensors that this op owns, buffers last."""
        return ()

    def scaled(self) -> tuple[str, ...]:
        """Return the suffixes of the parameters that, multiplied by a, multiply the output by a."""
        return tuple(p.suffix for p in self.params() if p.role != "buffer")

    def key(self, suffix: str) -> str:
        """Return the state-dict key of one of them."""
        return f"{self.path}.{suffix}"

    @abstractmethod
    def out_shape(self) -> Shape:
        """Return the shape of one output example."""

    def flops(self) -> int:
        """Return forward floating-point operations of one example, a multiply-add as two."""
        return 0

    @abstractmethod
    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return the output ``[G, B, T', C']`` and what :meth:`backward` needs."""

    @abstractmethod
    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradient of the input (None unless wanted) and of each own parameter."""

    @abstractmethod
    def module(self) -> nn.Module:
        """Return the plain module of one model."""

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"op": type(self).__name__.lower(), "path": self.path}
