"""A user's module as a graph of our own ops, where all that it does is known.

``torch.fx`` writes down what a module calls. If each call is one of an op of ours, the network
trains by the fast passes of those ops, and its symmetries follow from the graph; otherwise it is
one op (:mod:`zoo.architectures.module`). Names of tensors are the module's own, and so are its
initial values. What comes out is compared with the module before anything is trained
(:func:`zoo.architectures.symmetry.verify`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from zoo.architectures.activations import Activation
from zoo.architectures.combine import Add, Multiply
from zoo.architectures.conv import Conv, Window
from zoo.architectures.graph import EXAMPLE, Node
from zoo.architectures.linear import Linear
from zoo.architectures.norms.base import EPS
from zoo.architectures.norms.batch import MOMENTUM, BatchNorm
from zoo.architectures.op import Op, Shape
from zoo.architectures.pool import GlobalAveragePool, Pool
from zoo.architectures.stacked_module import StackedModule

__all__ = ["lowered"]


class _UnknownError(Exception):
    """A call that no op of ours computes."""


#: Activations as modules and as functions.
_ACTIVATIONS: Mapping[Any, str] = {
    nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu",
    torch.relu: "relu", F.relu: "relu", "relu": "relu", "relu_": "relu",
    torch.tanh: "tanh", F.tanh: "tanh", "tanh": "tanh",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", "sigmoid": "sigmoid",
    F.silu: "silu",
}  # fmt: skip
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_MULTIPLY = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_CHANGING = (operator.iadd, operator.imul, "add_", "mul_")
_FLATTEN = (torch.flatten, "flatten")
_MEAN = (torch.mean, "mean")
_POOLS: Mapping[type[nn.Module], str] = {
    nn.AvgPool1d: "average", nn.AvgPool2d: "average", nn.MaxPool1d: "max", nn.MaxPool2d: "max",
}  # fmt: skip
_GLOBAL = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_ADAPTIVE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)


def lowered(
    stacked: StackedModule, example_shape: tuple[int, ...]
) -> tuple[tuple[Node, ...], str] | None:
    """Return the nodes of a module and the form of its examples; None where a call is unknown.

    Args:
        stacked: the module.
        example_shape: shape of one input example, channels first.
    """
    found = []
    for training in (True, False):
        try:
            found.append(_Lowering(stacked.template, example_shape, training=training))
        except (_UnknownError, fx.proxy.TraceError, TypeError, ValueError, AttributeError,
                RuntimeError, KeyError, NotImplementedError):  # fmt: skip
            return None
    first, second = ([n.op.describe() | {"reads": n.inputs} for n in one.nodes] for one in found)
    if first != second:  # a module that does one thing in training and another afterwards
        return None
    nodes, form = tuple(found[0].nodes), found[0].form
    params = {op.key(p.suffix): p.shape for op in found[0].ops.values() for p in op.params()}
    if params != {p.suffix: p.shape for p in stacked.params}:
        return None
    roles = {op.key(p.suffix): p.role for op in found[0].ops.values() for p in op.params()}
    if roles != {p.suffix: p.role for p in stacked.params}:  # such as a frozen layer
        return None
    return nodes, form


class _Lowering:
    """Walks through the calls of a module.

    Args:
        module: the module.
        example_shape: of one example, channels first.
        training: in which mode.
    """

    def __init__(
        self, module: nn.Module, example_shape: tuple[int, ...], *, training: bool
    ) -> None:
        was = module.training
        try:
            graph = fx.symbolic_trace(module.train(training)).graph
        finally:
            module.train(was)
        self.modules = dict(module.named_modules())
        self.nodes: list[Node] = []
        self.ops: dict[str, Op] = {}
        #: fx node -> (value, its shape).
        self.values: dict[fx.Node, tuple[int, Shape]] = {}
        vector = len(example_shape) == 1
        self.form = "vector" if vector else "positions"
        channels, *spatial = example_shape
        self.example = Shape(tuple(spatial), channels)
        last: int | None = None
        for node in graph.nodes:
            last = self._visit(node) if node.op != "output" else self._output(node)
        if not self.nodes or last != len(self.nodes) - 1:
            raise _UnknownError

    def _output(self, node: fx.Node) -> int:
        (value,) = node.args
        if not isinstance(value, fx.Node):
            raise _UnknownError
        return self.values[value][0]

    def _visit(self, node: fx.Node) -> int | None:
        if node.op == "placeholder":
            if self.values or node.args:
                raise _UnknownError
            self.values[node] = EXAMPLE, self.example
            return None
        if node.op == "call_module":
            self._module(node, str(node.target))
            return None
        if node.op in ("call_function", "call_method"):
            self._function(node, node.target)
            return None
        raise _UnknownError

    # -- what is called -------------------------------------------------------------------

    def _module(self, node: fx.Node, path: str) -> None:
        module, kind = self.modules[path], type(self.modules[path])
        if node.kwargs or len(node.args) != 1:
            raise _UnknownError
        value, shape = self._read(node.args[0])
        if isinstance(module, nn.Identity) or (kind is nn.Dropout and module.p == 0):
            self.values[node] = value, shape
        elif kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            self._flatten(node, value, shape)
        elif kind in (nn.Conv1d, nn.Conv2d):
            self._enter(node, _conv(path, module, shape), value)
        elif kind is nn.Linear and module.bias is not None and shape.positions == 1:
            if shape.spatial or shape.channels != module.in_features:
                raise _UnknownError
            self._enter(node, Linear(path, module.in_features, module.out_features), value)
        elif kind in (nn.BatchNorm1d, nn.BatchNorm2d):
            self._enter(node, _batch_norm(path, module, shape), value)
        elif kind in _POOLS:
            self._enter(node, _pool(_name(node), module, shape), value)
        elif kind in _GLOBAL and _is_one(module.output_size):
            self._pooled(node, value, shape)
        elif kind is nn.GELU and module.approximate == "none":
            self._enter(node, Activation(_name(node), shape, "gelu"), value)
        elif kind in _ACTIVATIONS:
            self._enter(node, Activation(_name(node), shape, _ACTIVATIONS[kind]), value)
            self._in_place(node, changes=getattr(module, "inplace", False))
        else:
            raise _UnknownError

    def _function(self, node: fx.Node, target: Any) -> None:
        args = node.args
        if target in _ADD or target in _MULTIPLY:
            self._combine(node, Add if target in _ADD else Multiply)
            return
        value, shape = self._read(args[0])
        known = {k: v for k, v in node.kwargs.items() if k != "inplace"}
        if target in _ACTIVATIONS and len(args) == 1 and not known:
            self._enter(node, Activation(_name(node), shape, _ACTIVATIONS[target]), value)
            changes = target == "relu_" or bool(node.kwargs.get("inplace", False))
            self._in_place(node, changes=changes)
        elif target is F.gelu and len(args) == 1 and known.get("approximate", "none") == "none":
            self._enter(node, Activation(_name(node), shape, "gelu"), value)
        elif target in _FLATTEN and (tuple(args[1:]) or (known.pop("start_dim", 0),)) == (1,):
            if known:
                raise _UnknownError
            self._flatten(node, value, shape)
        elif target in _MEAN:
            self._mean(node, value, shape, known)
        elif target in _ADAPTIVE and len(args) == 2 and _is_one(args[1]):
            self._pooled(node, value, shape)
        else:
            raise _UnknownError

    def _mean(self, node: fx.Node, value: int, shape: Shape, known: dict[str, Any]) -> None:
        """A mean over all positions; with kept axes, what comes next must flatten them."""
        dims = known.pop("dim", node.args[1] if len(node.args) > 1 else None)
        axes = len(shape.spatial)
        keep = known.pop("keepdim", False)
        dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
        wanted = tuple(range(2, 2 + axes))
        here = tuple(sorted(d % (2 + axes) for d in dims))
        if known or len(node.args) > 2 or not axes or here != wanted:
            raise _UnknownError
        self._enter(node, GlobalAveragePool(_name(node), shape), value)
        if keep:
            index, _ = self.values[node]
            self.values[node] = index, Shape((1,) * axes, shape.channels)

    def _pooled(self, node: fx.Node, value: int, shape: Shape) -> None:
        if not shape.spatial:
            raise _UnknownError
        self._enter(node, GlobalAveragePool(_name(node), shape), value)
        index, _ = self.values[node]
        self.values[node] = index, Shape((1,) * len(shape.spatial), shape.channels)

    def _flatten(self, node: fx.Node, value: int, shape: Shape) -> None:
        """Of one position there is nothing to flatten; an example is read as a vector instead."""
        if value == EXAMPLE and not any(EXAMPLE in n.inputs for n in self.nodes):
            self.form = "vector"
            size = shape.positions * shape.channels
            self.values[node] = value, Shape((), size)
            return
        if shape.positions != 1:
            raise _UnknownError
        self.values[node] = value, Shape((), shape.channels)

    def _combine(self, node: fx.Node, kind: Callable[[str, Shape, int], Op]) -> None:
        known = {k: v for k, v in node.kwargs.items() if k != "out"}
        if known or len(node.args) != 2:
            raise _UnknownError
        (a, first), (b, second) = (self._read(arg) for arg in node.args)
        if first != second:
            raise _UnknownError
        self._enter(node, kind(_name(node), first, 2), a, b)
        self._in_place(node, changes=node.target in _CHANGING)

    def _in_place(self, node: fx.Node, *, changes: bool) -> None:
        """Let whoever reads the first argument later read what it has become."""
        if changes:
            (argument, *_) = node.args
            assert isinstance(argument, fx.Node)
            if self.values[argument][0] == EXAMPLE:
                raise _UnknownError
            self.values[argument] = self.values[node]

    # -- values ---------------------------------------------------------------------------

    def _read(self, arg: Any) -> tuple[int, Shape]:
        if not isinstance(arg, fx.Node):
            raise _UnknownError
        value, shape = self.values[arg]
        if value == EXAMPLE and self.form == "vector" and shape.spatial:
            raise _UnknownError  # it is read as a vector elsewhere
        return value, shape

    def _enter(self, node: fx.Node, op: Op, *values: int) -> None:
        if op.path in self.ops:
            if self.ops[op.path].describe() != op.describe():
                raise _UnknownError
            op = self.ops[op.path]  # tied weights
        self.ops[op.path] = op
        self.values[node] = len(self.nodes), op.out_shape()
        self.nodes.append(Node(op, values))


def _name(node: fx.Node) -> str:
    """Return the path of an op without tensors, which a module may call several times."""
    return f"call.{node.name}"


def _conv(path: str, module: Any, shape: Shape) -> Conv:
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str) or shape.channels != module.in_channels:
        raise _UnknownError
    if len(module.kernel_size) != len(shape.spatial):
        raise _UnknownError
    window = Window(module.stride, module.kernel_size, module.padding)
    bias = "without" if module.bias is None else "with"
    return Conv(path, shape, module.out_channels, window, bias=bias)


def _batch_norm(path: str, module: Any, shape: Shape) -> BatchNorm:
    ours = (module.eps, module.momentum, module.affine, module.track_running_stats)
    if ours != (EPS, MOMENTUM, True, True) or module.num_features != shape.channels:
        raise _UnknownError
    return BatchNorm(path, shape, {})


def _pool(path: str, module: Any, shape: Shape) -> Pool:
    sizes = (module.kernel_size, module.stride, module.padding)
    kernel, stride, padding = (_one(size) for size in sizes)
    odd = module.ceil_mode or getattr(module, "dilation", 1) != 1
    odd = odd or getattr(module, "divisor_override", None) is not None
    if odd or not getattr(module, "count_include_pad", True) or not shape.spatial:
        raise _UnknownError
    return Pool(path, shape, _POOLS[type(module)], kernel, stride=stride, padding=padding)


def _one(size: Any) -> int:
    found = set(size) if isinstance(size, tuple) else {size}
    if len(found) != 1:
        raise _UnknownError
    return int(found.pop())


def _is_one(size: Any) -> bool:
    return size == 1 or (isinstance(size, tuple | list) and set(size) == {1})
