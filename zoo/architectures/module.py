"""A user's own ``nn.Module`` as an architecture: a graph of one op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.graph import Node
from zoo.architectures.lowered import lowered
from zoo.architectures.mode import Mode, Params, Values
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Param, Shape
from zoo.architectures.stacked_module import ModuleError, StackedModule
from zoo.data.shape import DataShape
from zoo.errors import Problem, SpecError

__all__ = ["ModuleOp", "module_network"]


class ModuleOp(Op):
    """A module on examples as they are, ``[G, B, *example_shape]``.

    Args:
        stacked: the module.
        name: of the architecture.
        options: what it was made with, for its description.
    """

    bits_vary = True

    def __init__(self, stacked: StackedModule, name: str, options: dict[str, Any]) -> None:
        super().__init__("")
        self.stacked, self.name, self.options = stacked, name, options
        stacked.alone  # noqa: B018 - tried now, and not within a step that is compiled
        *spatial, channels = stacked.out_shape
        self._shape = Shape(tuple(spatial), channels)

    def params(self) -> tuple[Param, ...]:
        """Return the module's tensors under its own names."""
        return self.stacked.params

    def out_shape(self) -> Shape:
        """Return what the module makes."""
        return self._shape

    def flops(self) -> int:
        """Return those of the module's products."""
        return self.stacked.flops()

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the module's output; in training, also its running statistics."""
        y, new = self.stacked(self.own(p), xs[0], training=mode.training)
        mode.new_buffers.update(new)
        return y.reshape(*y.shape[:2], self._shape.positions, self._shape.channels)

    def fresh_statistics(self, p: Params, xs: Values) -> dict[str, Tensor]:
        """Return the running statistics of the module's norms anew."""
        return self.stacked.fresh_statistics(self.own(p), xs[0])

    def initial(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Return the values that the module's constructor gives."""
        return self.stacked.initial(seed)

    def module(self) -> nn.Module:
        """Return a module of the user's class."""
        return self.stacked.module()

    def describe(self) -> dict[str, Any]:
        """Return name, options, and whether models are stacked."""
        how = {"one_by_one": self.stacked.alone} if self.stacked.alone else {}
        return {"op": "module", "path": "", "module": self.name, **self.options, **how}


def _agree(network: Network, stacked: StackedModule, x: Tensor) -> bool:
    """Return whether a graph computes what its module does, in both modes, statistics included."""
    rows = {n: torch.from_numpy(np.stack([v, v])) for n, v in stacked.initial(1).items()}
    p = {s.name: rows[s.name] for s in network.layout.segments}
    both = x.expand(2, *x.shape)
    with torch.no_grad():
        for training in (False, True):
            mode = Mode(training=training)
            z, _ = network.forward(p, network.inputs(x).expand(2, -1, -1, -1), mode)
            wanted, new = stacked(p, both, training=training)
            pairs = [(z, wanted.flatten(2)), *((mode.new_buffers[n], b) for n, b in new.items())]
            if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs):
                return False
    return True


def module_network(
    make: Callable[[], nn.Module],
    name: str,
    data: DataShape,
    options: dict[str, Any],
) -> Network:
    """Return the network of a user's module: a graph where all of it is known, else one op.

    Args:
        make: makes the module.
        name: of the architecture.
        data: the form of an example and of its target.
        options: the fields that the module was made with.

    Raises:
        SpecError: the module cannot be made, run or trained, or makes something else than
            ``[B, outputs]``, or ``[B, T, outputs]`` of T positions.
    """
    example_shape, wanted = data.example, (*data.positions, data.outputs)

    def example(count: int) -> Tensor:
        values = torch.linspace(-1, 1, count * math.prod(example_shape))
        if data.tokens is not None:
            values = ((values + 1) / 2 * (data.tokens - 1)).round().long()
        return values.reshape(count, *example_shape)

    try:
        stacked = StackedModule(make, example)
        found = stacked.out_shape
        if not stacked.params or all(p.role == "buffer" for p in stacked.params):
            msg = "has no parameter to train"
            raise ModuleError(msg)
        if found != wanted:
            msg = (
                f"makes {['B', *found]} of B examples {list(example_shape)}; it must make"
                f" {['B', *wanted]}, one output for each class or value".replace("'", "")
            )
            raise ModuleError(msg)
    except ModuleError as error:
        raise SpecError([Problem("architecture", name, str(error))]) from error
    known = lowered(stacked, example_shape)
    if known is not None:
        network = Network(name, known[0], example_shape, form=known[1], source=stacked
        )  # fmt: skip
        if _agree(network, stacked, example(4)):
            return network
    op = ModuleOp(stacked, name, options)
    return Network(name, [Node(op, (-1,))], example_shape, form="as it is", tokens=data.tokens)
