"""Multi-layer perceptron: ``depth`` hidden layers of ``width`` units."""

from __future__ import annotations

import math

from zoo.architectures.families import ARCHITECTURES, DEPTH, Family, after_weights
from zoo.architectures.graph import chain
from zoo.architectures.linear import Linear
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Shape
from zoo.architectures.weights import transformed
from zoo.data.shape import DataShape
from zoo.fields import named
from zoo.spec.run import RunSpec

__all__ = ["mlp"]


def mlp(run: RunSpec, data: DataShape) -> Network:
    """Return flatten, then depth × (linear, norm, activation, dropout), then linear."""
    inputs = math.prod(data.example)
    ops: list[Op] = []
    for layer in range(run.depth or 1):
        block = f"hidden.{layer}"
        ops.append(transformed(Linear(f"{block}.linear", inputs, run.width), run.weight_transform))
        ops += after_weights(run, block, Shape((), run.width), layer)
        inputs = run.width
    ops.append(Linear("output", inputs, data.total))
    return Network("mlp", chain(ops), data.example, form="vector")


ARCHITECTURES.register("mlp", doc="depth x (linear, norm, activation, dropout), linear")(
    Family(mlp, named(DEPTH))
)
