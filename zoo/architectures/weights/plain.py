"""No transform: ŵ = w."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from zoo.architectures.weights.base import WEIGHT_TRANSFORMS, WeightTransform

__all__ = ["Plain"]


class Plain(WeightTransform):
    """The identity."""

    output_factors: ClassVar[frozenset[str]] = frozenset({"scale", "sign"})
    input_factors: ClassVar[frozenset[str]] = frozenset({"scale", "sign"})

    def forward(self, w: Tensor) -> tuple[Tensor, Any]:
        """Return w."""
        return w, None

    def backward(self, dw: Tensor, saved: Any) -> Tensor:
        """Return dw."""
        return dw

    def single(self, w: Tensor) -> Tensor:
        """Return w."""
        return w


WEIGHT_TRANSFORMS.register("none", doc="weights as they are")(Plain())
