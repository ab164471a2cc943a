"""The passes that follow from a forward pass by ``torch.func``: slow, short, and right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.mode import Gradients, Mode, Params, Values

__all__ = ["Pullback", "pullback", "tangent"]

#: From an op's trained tensors, its inputs and the mode to its output ``[G, B, T', C']``.
Forward = Callable[[Params, Values, Mode], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Pullback:
    """The gradients of one forward pass, given that of its output.

    Args:
        back: from the output's gradient to those of parameters and of inputs that need one.
        needs: which inputs do.
        dtype: of the output.
    """

    back: Callable[[Tensor], tuple[dict[str, Tensor], list[Tensor]]] | None
    needs: tuple[bool, ...]
    dtype: torch.dtype

    def __call__(self, dy: Tensor) -> tuple[Gradients, dict[str, Tensor]]:
        """Return the gradients of the inputs (None unless needed) and of the parameters."""
        if self.back is None:
            return (None,) * len(self.needs), {}
        grads, dxs = self.back(dy.to(self.dtype))
        left = iter(dxs)
        return tuple(next(left) if need else None for need in self.needs), grads


def pullback(
    forward: Forward, own: dict[str, Tensor], xs: Values, mode: Mode, needs: tuple[bool, ...]
) -> tuple[Tensor, Pullback]:
    """Return the output of a forward pass, and its gradients as a function.

    Args:
        forward: the pass.
        own: the tensors that are trained.
        xs: inputs; those that need no gradient may be integers.
        mode: of the pass; buffers go into it.
        needs: which inputs need a gradient.
    """
    moving = [x for x, need in zip(xs, needs, strict=True) if need]
    if not own and not moving:
        y = forward(own, xs, mode)
        return y, Pullback(None, needs, y.dtype)

    def run(own: dict[str, Tensor], moving: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        inner = replace(mode, new_buffers={})
        y = forward(own, _merged(xs, moving, needs), inner)
        return y, inner.new_buffers

    found: Any = torch.func.vjp(run, own, moving, has_aux=True)
    y, back, new = found
    mode.new_buffers.update(new)
    return y, Pullback(back, needs, y.dtype)


def tangent(
    forward: Forward,
    point: tuple[dict[str, Tensor], Values],
    along: tuple[dict[str, Tensor], Gradients],
    mode: Mode,
) -> Tensor | None:
    """Return the derivative of a forward pass along a direction, None where it is zero.

    Args:
        forward: the pass.
        point: trained tensors and inputs.
        along: the direction; an input that does not move has None.
        mode: of the pass.
    """
    own, xs = point
    needs = tuple(dx is not None for dx in along[1])
    moving = [x for x, need in zip(xs, needs, strict=True) if need]
    if not own and not moving:
        return None

    def run(own: dict[str, Tensor], moving: list[Tensor]) -> Tensor:
        return forward(own, _merged(xs, moving, needs), replace(mode, new_buffers={}))

    steps = [dx for dx in along[1] if dx is not None]
    out: Tensor = torch.func.jvp(run, (own, moving), (along[0], steps))[1]
    return out


def _merged(xs: Values, moving: list[Tensor], needs: tuple[bool, ...]) -> Values:
    left = iter(moving)
    return tuple(next(left) if need else x for x, need in zip(xs, needs, strict=True))
