"""What a rule for the derivatives of an op is, and the one that fits any op.

The derivative of the gradient along a direction v is a second forward and backward pass, linear in
v (:mod:`zoo.architectures.tangent`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.default import tangent
from zoo.architectures.op import Gradients, Mode, Op, Params, Values

__all__ = ["GenericRule", "Tangent", "TangentRule", "UnaryRule"]

#: Derivative of a tensor along the direction; None where it is zero.
Tangent = Tensor | None


class TangentRule(ABC):
    """The derivative of one op at fixed parameters and inputs.

    Args:
        op: the op.
        p: the parameters ``[G, *shape]``.
        xs: the op's inputs ``[G, B, T, C]``.
        mode: of the pass.
    """

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        self.op, self.p, self.xs, self.mode = op, p, xs, mode
        self.d: Tensor = torch.empty(0)

    def prepare(self, d: Tensor) -> None:
        """Take the gradient of the op's output ``[G, B, T', C']``."""
        self.d = d

    @abstractmethod
    def push(self, v: Params, dxs: Gradients) -> Tangent:
        """Return the derivative of the output, given those of parameters and inputs."""

    @abstractmethod
    def pull(
        self, v: Params, dd: Tensor, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Return the derivatives of the inputs' gradients and of the parameters' gradients.

        Args:
            v: the direction.
            dd: derivative of the gradient of the output.
            needs: which inputs' are wanted; one that does not move is not.
        """


class UnaryRule(TangentRule):
    """The rule of an op of one input."""

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        super().__init__(op, p, xs, mode)
        self.x = xs[0]

    def push(self, v: Params, dxs: Gradients) -> Tangent:
        """Return what :meth:`forward` does."""
        return self.forward(v, dxs[0])

    def pull(
        self, v: Params, dd: Tensor, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Return what :meth:`backward` does."""
        out, grads = self.backward(v, dd, need_dx=needs[0])
        return (out,), grads

    @abstractmethod
    def forward(self, v: Params, dx: Tangent) -> Tangent:
        """Return what :meth:`push` does."""

    @abstractmethod
    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        """Return what :meth:`pull` does."""


class GenericRule(TangentRule):
    """Any op, by forward-mode differentiation of its own two passes: slow, short, and right."""

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        # forward mode refuses inputs that are expanded over the models
        super().__init__(op, p, tuple(x.contiguous() for x in xs), mode)

    def push(self, v: Params, dxs: Gradients) -> Tangent:
        """Differentiate the forward pass."""
        self.dxs = dxs
        own = self.op.trained(self.p)

        def forward(own: Params, xs: Values, mode: Mode) -> Tensor:
            return self.op.value({**self.p, **own}, xs, mode)

        return tangent(forward, (own, self.xs), (self.op.trained(v), dxs), self.mode)

    def pull(
        self, v: Params, dd: Tensor, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Differentiate the backward pass; one that is a default itself, twice."""
        moved = [i for i, dx in enumerate(self.dxs) if dx is not None]
        wanted = [i for i, need in enumerate(needs) if need]

        def run(own: dict[str, Tensor], moving: list[Tensor], d: Tensor) -> Any:
            xs = list(self.xs)
            for i, x in zip(moved, moving, strict=True):
                xs[i] = x
            p = {**self.p, **own}
            saved = self.op.run(p, tuple(xs), self.mode, needs)[1]
            out, grads = self.op.pull(p, saved, d, self.mode, needs)
            return [out[i] for i in wanted], grads

        point = (self.op.trained(self.p), [self.xs[i] for i in moved], self.d)
        along = (self.op.trained(v), [self.dxs[i] for i in moved], dd)
        found: Any = torch.func.jvp(run, point, along)[1]
        dxs: list[Tangent] = [None] * len(needs)
        for i, dx in zip(wanted, found[0], strict=True):
            dxs[i] = dx
        return tuple(dxs), found[1]
