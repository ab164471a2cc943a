"""A user's own ``nn.Module`` as a normalisation layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.layout import BUFFER
from zoo.architectures.mode import Mode, Params, Values, wide
from zoo.architectures.norms.base import Norm
from zoo.architectures.op import Op, Param, Shape
from zoo.architectures.stacked_module import ModuleError, StackedModule
from zoo.architectures.units import Units

__all__ = ["OwnNorm"]


class OwnNorm(Norm):
    """A norm that a module computes, which takes and returns ``[B, C]`` or ``[B, C, *spatial]``.

    Args:
        path: place in the module tree.
        shape: shape of one example.
        options: values of the fields that the norm declares.
    """

    bits_vary = True
    #: Makes the module from the number of channels and the options.
    make: ClassVar[Callable[..., nn.Module]]
    #: Whether the channels may be permuted, along the first axis of every tensor of C values.
    per_channel: ClassVar[bool] = False

    def __init__(self, path: str, shape: Shape, options: Mapping[str, Any]) -> None:
        super().__init__(path, shape, options)
        self._problem: str | None = None
        try:
            self.stacked = StackedModule(self._make, self._example)
            made = self.stacked.out_shape
            self.stacked.alone  # noqa: B018 - tried now, and not within a step that is compiled
            if made != (shape.channels, *shape.spatial):
                wanted = ["B", shape.channels, *shape.spatial]
                self._problem = f"makes {['B', *made]} of {wanted}".replace("'", "")
        except ModuleError as error:
            self._problem = str(error)

    def _make(self) -> nn.Module:
        return type(self).make(self.shape.channels, **self.options)

    def _example(self, count: int) -> Tensor:
        shape = (count, self.shape.channels, *self.shape.spatial)
        return torch.linspace(-1, 2, int(np.prod(shape))).reshape(shape)

    def problem(self) -> str | None:
        """Return what is wrong with the module."""
        return self._problem

    def units(self) -> tuple[Units, ...]:
        """Return the channels, if the norm says that it treats each alike."""
        if not self.per_channel:
            return ()
        C = self.shape.channels
        own = tuple((p.suffix, 0) for p in self.params() if p.shape == (C,))
        return (Units(params=own, inputs=(0,), output=True),)

    def params(self) -> tuple[Param, ...]:
        """Return the module's tensors; trained ones count as those of a norm."""
        return tuple(
            p if p.role == BUFFER else Param(p.suffix, p.shape, _role(p.suffix))
            for p in self.stacked.params
        )

    def _images(self, x: Tensor) -> Tensor:
        """Return inputs ``[G, B, T, C]`` as the module takes them, ``[G, B, C, *spatial]``."""
        return x.reshape(*x.shape[:2], *self.shape.spatial, self.shape.channels).movedim(-1, 2)

    def fresh_statistics(self, p: Params, xs: Values) -> dict[str, Tensor]:
        """Return the running statistics of norms within the module anew."""
        found = self.stacked.fresh_statistics(self.own(p), self._images(wide(xs[0])))
        return {self.key(name): tensor for name, tensor in found.items()}

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the module's output; in training, also its running statistics."""
        x = wide(xs[0])
        y, new = self.stacked(self.own(p), self._images(x), training=mode.training)
        mode.new_buffers.update({self.key(name): tensor for name, tensor in new.items()})
        return y.movedim(2, -1).reshape(x.shape)

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return what any op keeps of its forward pass."""
        return Op.run(self, p, (x,), mode, (True,))

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the default gradients of any op."""
        (dx,), grads = Op.pull(self, p, saved, dy, mode, (need_dx,))
        return dx, grads

    def initial(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Return the values that the module's constructor gives."""
        return self.stacked.initial(seed)

    def module(self) -> nn.Module:
        """Return a module of the user's class."""
        return self.stacked.module()


def _role(suffix: str) -> str:
    return "norm_bias" if "bias" in suffix else "norm_weight"
