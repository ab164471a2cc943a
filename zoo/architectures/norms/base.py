"""What normalisation layers share: the registry, the affine parameters, and standardisation.

Statistics are float32 whatever the compute type, and variances are two-pass: the mean of squares
minus the square of the mean loses every digit once the offset is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.op import Param, Shape, Unary
from zoo.architectures.units import BOTH, Units
from zoo.errors import Problem
from zoo.fields import Fields
from zoo.registry import Registry
from zoo.spec.run import RunSpec

__all__ = ["EPS", "NORMS", "Norm", "standardize", "standardize_backward"]

#: Added to every variance, as torch's norms do by default.
EPS = 1e-5


class Norm(Unary):
    """A normalisation layer over ``[G, B, T, C]`` with a per-channel weight and bias.

    Args:
        path: place in the module tree.
        shape: shape of one example.
        options: values of the conditional fields that the norm declares in ``fields``.
    """

    #: Conditional run-spec fields that this norm reads, with their defaults.
    fields: ClassVar[Fields] = {}
    #: Kinds of factor ("scale", "sign") that the output takes on from what :meth:`scaled` names.
    output_factors: ClassVar[frozenset[str]] = BOTH
    #: Run-spec fields that this norm decides itself: its own activation, say.
    fixes: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, path: str, shape: Shape, options: Mapping[str, Any]) -> None:
        super().__init__(path)
        self.shape = shape
        self.options = dict(options)

    @classmethod
    def misfit(cls, run: RunSpec) -> Problem | None:
        """Return why a run cannot have this norm whatever its place, or None."""
        return None

    def problem(self) -> str | None:
        """Return why this norm cannot be at this place, or None."""
        return None

    @property
    def permutation_blocks(self) -> int:
        """Channels may be permuted within each of so many equal blocks, and blocks as wholes."""
        return 1

    def scaled(self) -> tuple[str, ...]:
        """Return the suffixes of the parameters that, multiplied by a, multiply the output by a."""
        return tuple(p.suffix for p in self.params() if p.role != BUFFER)

    def units(self) -> tuple[Units, ...]:
        """Return the channels; a factor on the input is undone, one on the affine map passes."""
        return (
            Units(
                params=tuple((param.suffix, 0) for param in self.params()),
                inputs=(0,),
                output=True,
                blocks=self.permutation_blocks,
                multiplied=tuple((suffix, 0) for suffix in self.scaled()),
                factors=self.output_factors,
            ),
        )

    def params(self) -> tuple[Param, ...]:
        """Return weight and bias, both ``[C]``."""
        shape = (self.shape.channels,)
        return (Param("weight", shape, "norm_weight"), Param("bias", shape, "norm_bias"))

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.shape

    def flops(self) -> int:
        """Return about eight an element: two passes of statistics, then the affine map."""
        return 8 * self.shape.positions * self.shape.channels

    def describe(self) -> dict[str, Any]:
        """Return path, channels and options."""
        return {**super().describe(), "channels": self.shape.channels, **self.options}


NORMS: Registry[type[Norm]] = Registry("norm", field="norm", builds=True)


def standardize(
    x: Tensor, dims: tuple[int, ...], eps: float = EPS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (x − μ)/√(σ² + ε) over ``dims``, with rstd, μ and the biased σ² (kept dims)."""
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    var = centred.square().mean(dims, keepdim=True)
    rstd = torch.rsqrt(var + eps)
    return centred * rstd, rstd, mean, var


def standardize_backward(d: Tensor, xhat: Tensor, rstd: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the gradient of the input of :func:`standardize`.

    dx = rstd · (d − mean(d) − x̂ · mean(d · x̂)), means over ``dims``.
    """
    shift = d.mean(dims, keepdim=True)
    scale = (d * xhat).mean(dims, keepdim=True)
    return (d - shift - xhat * scale) * rstd
