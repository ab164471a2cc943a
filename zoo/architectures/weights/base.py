"""Weight transforms: ŵ = f(w), where w is what is stored and trained, and ŵ what the layer uses.

A transform is a field of its own and no kind of norm, since it acts on weights and combines with
any norm of activations: weight standardization was published with group and with batch norm, and
later used with no norm at all. It acts on hidden layers; the output layer stays plain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from zoo.registry import Registry

__all__ = ["WEIGHT_TRANSFORMS", "WeightTransform"]


class WeightTransform(ABC):
    """One transform of weights ``[G, outputs, ...]``, stateless, without parameters of its own."""

    #: Kinds of factor ("scale", "sign") on one output's weights that its ŵ takes on.
    output_factors: ClassVar[frozenset[str]] = frozenset()
    #: Kinds of factor on one input's weights that its ŵ takes on.
    input_factors: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def forward(self, w: Tensor) -> tuple[Tensor, Any]:
        """Return ŵ of the same shape, and what :meth:`backward` needs."""

    @abstractmethod
    def backward(self, dw: Tensor, saved: Any) -> Tensor:
        """Return the gradient of w, given that of ŵ."""

    @abstractmethod
    def single(self, w: Tensor) -> Tensor:
        """Return ŵ of one model's w ``[outputs, ...]``, in plain torch."""


WEIGHT_TRANSFORMS: Registry[WeightTransform] = Registry(
    "weight transform", field="weight_transform"
)
