"""The convolutional net of the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448), and kin.

At depth 3 and width 16 on one input channel and ten classes it has that zoo's 4,970 parameters:
three 3-wide convolutions of stride 2, a global average pool and a linear layer.
"""

from __future__ import annotations

from zoo.architectures.conv import Conv, Window
from zoo.architectures.families import ARCHITECTURES, DEPTH, Family, after_weights
from zoo.architectures.graph import chain
from zoo.architectures.linear import Linear
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Shape
from zoo.architectures.pool import GlobalAveragePool
from zoo.architectures.weights import transformed
from zoo.data.shape import DataShape
from zoo.errors import Problem, SpecError
from zoo.fields import named
from zoo.spec.run import RunSpec

__all__ = ["cnn"]

#: Convolutions that halve the map; deeper nets stay at stride 1.
_STRIDED = 3


def cnn(run: RunSpec, data: DataShape) -> Network:
    """Return depth × (convolution, norm, activation, dropout), average pool, linear.

    Raises:
        SpecError: the data are neither ``(channels, length)`` nor ``(channels, height, width)``.
    """
    if len(data.example) not in (2, 3):
        message = f"needs signals or images, but an example of {run.data} is {data.example}"
        raise SpecError([Problem("architecture", "cnn", message, fix="use architecture = 'mlp'")])
    shape = Shape(data.example[1:], data.example[0])
    ops: list[Op] = []
    for layer in range(run.depth or 1):
        block = f"hidden.{layer}"
        conv = Conv(f"{block}.conv", shape, run.width, Window(2 if layer < _STRIDED else 1))
        shape = conv.out_shape()
        ops.append(transformed(conv, run.weight_transform))
        ops += after_weights(run, block, shape, layer)
    ops.append(GlobalAveragePool("pool", shape))
    ops.append(Linear("output", run.width, data.total))
    return Network("cnn", chain(ops), data.example, form="positions")


ARCHITECTURES.register(
    "cnn",
    doc="depth x (3-wide convolution, norm, activation, dropout), average pool, linear",
    source="Unterthiner et al. 2020, arXiv 2002.11448",
)(Family(cnn, named(DEPTH.at(3))))
