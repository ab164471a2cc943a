"""The one description of an op: from it come layout, every pass of the walker, and the module.

Inside the stacked network a value is ``[G, B, T, C]``: G models of a group, B examples, T positions
(1 for vectors, H·W in row-major order for images), C channels last. One layout for every family
keeps norms and activations free of special cases.

An op must give its forward pass (:meth:`Op.value`) and say which of its axes belong to the same
units (:meth:`Op.units`). The other passes follow from the first by ``torch.func``
(:mod:`zoo.architectures.default`). An op of one input that has faster ones of its own is a
:class:`Unary`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.default import Pullback, pullback
from zoo.architectures.example_gradients import ExampleGradients, Written
from zoo.architectures.layout import BUFFER
from zoo.architectures.mode import Gradients, Mode, Params, Values
from zoo.architectures.units import Units

__all__ = ["Gradients", "Mode", "Op", "Param", "Params", "Shape", "Unary", "Values"]


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


class Op(ABC):
    """One node's computation, for one model and for G stacked models.

    Args:
        path: dotted place in the module tree (``"hidden.0.linear"``); never depends on
            hyper-parameters, so that names do not shift between runs.
    """

    #: Whether the plain module takes channels last, ``[B, T, C]``, unlike ``[B, C, ...]``.
    channels_last = False
    #: Whether a model's bits depend on how many run together, as those of foreign code may:
    #: groups of such networks are all of one size.
    bits_vary = False
    #: Whether what it reads are features that its weight turns into logits, as a last linear layer.
    reads_features = False

    def __init__(self, path: str) -> None:
        self.path = path
        self._tied: dict[str, str] = {}

    def tie(self, suffix: str, key: str) -> Self:
        """Let the op use another op's tensor for its own; return the op.

        Args:
            suffix: of its own parameter.
            key: state-dict key of the other tensor, which has the same shape.
        """
        self._tied[suffix] = key
        return self

    def params(self) -> tuple[Param, ...]:
        """Return the tensors that this op owns, buffers last."""
        return ()

    def key(self, suffix: str) -> str:
        """Return the state-dict key of one of them."""
        if suffix in self._tied:
            return self._tied[suffix]
        return f"{self.path}.{suffix}" if self.path else suffix

    def own(self, p: Params) -> dict[str, Tensor]:
        """Return the op's own tensors out of ``p`` by suffix, buffers included."""
        return {param.suffix: p[self.key(param.suffix)] for param in self.params()}

    def trained(self, p: Params) -> dict[str, Tensor]:
        """Return the op's own tensors out of ``p``, but for buffers."""
        keys = (self.key(param.suffix) for param in self.params() if param.role != BUFFER)
        return {key: p[key] for key in keys}

    def units(self) -> tuple[Units, ...]:
        """Return which axes belong to the same units; an op that says nothing claims nothing."""
        return ()

    @abstractmethod
    def out_shape(self) -> Shape:
        """Return the shape of one output example."""

    def flops(self) -> int:
        """Return forward floating-point operations of one example, a multiply-add as two."""
        return 0

    @abstractmethod
    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the output ``[G, B, T', C']`` of inputs ``[G, B, T, C]``, one an edge."""

    def run(self, p: Params, xs: Values, mode: Mode, needs: tuple[bool, ...]) -> tuple[Tensor, Any]:
        """Return the output, and what :meth:`pull` needs.

        Args:
            p: parameters.
            xs: inputs.
            mode: how to run it.
            needs: of which inputs :meth:`pull` may be asked the gradient.
        """
        if mode.training:
            return self._pullback(p, xs, mode, needs)
        return self.value(p, xs, mode), xs  # a pass that is run again only if it is asked to be

    def pull(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Return the gradient of each input (None unless it needs one) and of each parameter."""
        back = saved if isinstance(saved, Pullback) else self._pullback(p, saved, mode, needs)[1]
        return back(dy)

    def _pullback(
        self, p: Params, xs: Values, mode: Mode, needs: tuple[bool, ...]
    ) -> tuple[Tensor, Pullback]:
        def forward(own: Params, xs: Values, mode: Mode) -> Tensor:
            return self.value({**p, **own}, xs, mode)

        return pullback(forward, self.trained(p), xs, mode, needs)

    def pull_inputs(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> Gradients:
        """Return the gradients of the inputs alone."""
        return self.pull(p, saved, dy, mode, needs)[0]

    def example_gradients(
        self, p: Params, xs: Values, saved: Any, dy: Tensor, mode: Mode
    ) -> ExampleGradients:
        """Return the gradient of the op's parameters for each example by itself.

        What couples examples (batch norm in training) is not meant.

        Args:
            p: parameters.
            xs: inputs ``[G, B, T, C]``.
            saved: what :meth:`run` kept.
            dy: ``[G, B, T', C']`` gradient of each example's own output.
            mode: of the pass.
        """
        return self.written_gradients(p, xs, dy, mode)

    def written_gradients(self, p: Params, xs: Values, dy: Tensor, mode: Mode) -> Written:
        """Return :meth:`example_gradients` written out, which any op can."""
        # every example as the only one of a model of its own
        G, N = dy.shape[:2]
        many = {
            self.key(param.suffix): p[self.key(param.suffix)].repeat_interleave(N, 0)
            for param in self.params()
        }
        alone = tuple(x.reshape(G * N, 1, *x.shape[2:]) for x in xs)
        apart = replace(mode, conv="grouped")
        nothing = (False,) * len(xs)
        _, kept = self.run(many, alone, apart, nothing)
        d = dy.reshape(G * N, 1, *dy.shape[2:])
        _, grads = self.pull(many, kept, d, apart, nothing)
        return Written({k: grad.reshape(G, N, *grad.shape[1:]) for k, grad in grads.items()})

    def fresh_statistics(self, p: Params, xs: Values) -> dict[str, Tensor]:
        """Return running statistics anew, from inputs ``[G, B, T, C]`` that reach the op."""
        if not any(param.suffix == "running_var" for param in self.params()):
            return {}
        reaches = xs[0].float()
        return {
            self.key("running_mean"): reaches.mean((1, 2)),
            self.key("running_var"): torch.var(reaches, (1, 2)),
        }

    def initial(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Return by suffix the values that tensors begin with, of those that have their own."""
        return {}

    @abstractmethod
    def module(self) -> nn.Module:
        """Return the plain module of one model."""

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"op": type(self).__name__.lower(), "path": self.path}


class Unary(Op):
    """An op of one input with passes of its own, faster than the default ones."""

    @abstractmethod
    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return the output ``[G, B, T', C']`` and what :meth:`backward` needs."""

    @abstractmethod
    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradient of the input (None unless wanted) and of each own parameter."""

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the output."""
        return self.forward(p, xs[0], mode)[0]

    def run(self, p: Params, xs: Values, mode: Mode, needs: tuple[bool, ...]) -> tuple[Tensor, Any]:
        """Return what :meth:`forward` does."""
        return self.forward(p, xs[0], mode)

    def pull(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Return what :meth:`backward` does."""
        dx, grads = self.backward(p, saved, dy, mode, need_dx=needs[0])
        return (dx,), grads
