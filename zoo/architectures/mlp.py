"""Multi-layer perceptron: ``depth`` hidden layers of ``width`` units."""

from __future__ import annotations

import math

from zoo.architectures.families import ARCHITECTURES, DEPTH, Family, after_weights
from zoo.architectures.graph import chain
from zoo.architectures.linear import Linear
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Shape
from zoo.architectures.weights import transformed
from zoo.fields import named
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
    return Network("mlp", chain(ops), example_shape, form="vector")


ARCHITECTURES.register("mlp", doc="depth x (linear, norm, activation, dropout), linear")(
    Family(mlp, named(DEPTH))
)
