"""The plain ``nn.Module`` of a graph: a tree of sequentials for a chain, a runner otherwise."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from zoo.architectures.graph import Graph
from zoo.architectures.op import Op

__all__ = ["GraphModule", "plain_module"]


def plain_module(graph: Graph, *, flatten: bool) -> nn.Module:
    """Return the module of one model, its state-dict keys those of the layout.

    Args:
        graph: the network.
        flatten: whether an example is read as one vector.
    """
    if not graph.is_chain or any(node.op.channels_last for node in graph.nodes):
        return GraphModule(graph, flatten=flatten)
    if graph.last == 0 and not graph.nodes[0].op.path:
        return graph.nodes[0].op.module()
    tree: OrderedDict[str, Any] = OrderedDict()
    if flatten:
        tree["flatten"] = nn.Flatten()
    for node in graph.nodes:
        _plant(tree, node.op.path, node.op.module())
    return _sequential(tree)


class GraphModule(nn.Module):
    """Runs a graph of plain modules on ``[B, C, ...]``; an output with positions is ``[B, T, C]``.

    Args:
        graph: the network.
        flatten: whether an example is read as one vector.
    """

    def __init__(self, graph: Graph, *, flatten: bool) -> None:
        super().__init__()
        self.graph = graph
        self.flatten = flatten
        tree: OrderedDict[str, Any] = OrderedDict()
        ops: dict[str, Op] = {}
        for node in graph.nodes:
            if node.op.path not in ops:
                ops[node.op.path] = node.op
                _plant(tree, node.op.path, node.op.module())
        for name, child in _sequential(tree).named_children():
            self.add_module(name, child)
        #: (op's path, its parameter's name) -> state-dict key of the tensor of another op.
        self._tied = {
            (op.path, param.suffix): op.key(param.suffix)
            for op in ops.values()
            for param in op.params()
            if op.key(param.suffix) != f"{op.path}.{param.suffix}"
        }
        for path, suffix in self._tied:
            self.get_submodule(path)._parameters[suffix] = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of examples ``[B, *example_shape]``."""
        for (path, suffix), key in self._tied.items():
            owner, _, name = key.rpartition(".")
            self.get_submodule(path)._parameters[suffix] = getattr(self.get_submodule(owner), name)
        try:
            y = self.graph.forward(x.flatten(1) if self.flatten else x, self._visit)
        finally:
            for path, suffix in self._tied:
                self.get_submodule(path)._parameters[suffix] = None
        return y.movedim(1, -1) if self.graph.nodes[-1].op.out_shape().spatial else y

    def _visit(self, index: int, op: Op, xs: tuple[Tensor, ...]) -> Tensor:
        module = self.get_submodule(op.path)
        if not op.channels_last:
            y: Tensor = module(*xs)
            return y
        out: Tensor = module(*(x.movedim(1, -1) for x in xs))
        return out.movedim(-1, 1)


def _plant(tree: OrderedDict[str, Any], path: str, module: nn.Module) -> None:
    node = tree
    *parents, leaf = path.split(".")
    for name in parents:
        node = node.setdefault(name, OrderedDict())
    node[leaf] = module


def _sequential(tree: OrderedDict[str, Any]) -> nn.Sequential:
    children = OrderedDict(
        (name, _sequential(node) if isinstance(node, OrderedDict) else node)
        for name, node in tree.items()
    )
    return nn.Sequential(children)
