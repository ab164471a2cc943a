"""Multi-layer perceptron: ``depth`` hidden layers of ``width`` units."""

from __future__ import annotations

import math

from zoo.architectures.families import ARCHITECTURES, Family, after_weights
from zoo.architectures.linear import Linear
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Shape
from zoo.architectures.weights import transformed
from zoo.spec.run import RunSpec

__all__ = ["mlp"]


def mlp(run: RunSpec, example_shape: tuple[int, ...], classes: int) -> Network:
    """Return flatten, then depth × (linear, norm, activation, dropout), then linear."""
    inputs = math.prod(example_shape)
    ops: list[Op] = []
    for layer in range(run.depth or 1):
        block = f"hidden.{layer}"
        ops.append(transformed(Linear(f"{block}.linear", inputs, run.width), run.weight_transform))
        ops += after_weights(run, block, Shape((), run.width), layer)
        inputs = run.width
    ops.append(Linear("output", inputs, classes))
    return Network("mlp", ops, example_shape, flatten=True)


ARCHITECTURES.register("mlp")(Family(mlp, {"depth": 2}))
