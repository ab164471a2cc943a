"""The graph of a network, and the one walk over it that every pass is made of.

Node i makes value i from the values that its edges name; :data:`EXAMPLE` is what comes in. A value
that several nodes read is a residual link or a branch; an op that is at several nodes has tied
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from zoo.architectures.op import Op

__all__ = ["EXAMPLE", "Graph", "Node", "chain"]

#: The value that a network is given.
EXAMPLE = -1

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Node:
    """An op at a place in a graph.

    Args:
        op: what it computes.
        inputs: the nodes whose values it reads, or :data:`EXAMPLE`.
    """

    op: Op
    inputs: tuple[int, ...]


def chain(ops: Sequence[Op]) -> tuple[Node, ...]:
    """Return the nodes of a network in which each op reads what the one before it makes."""
    return tuple(Node(op, (index - 1,)) for index, op in enumerate(ops))


class Graph:
    """Nodes in topological order; the value of the last one is the output.

    Args:
        nodes: the nodes.

    Raises:
        ValueError: a node reads what comes later, or a value is read by none.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self.last = len(self.nodes) - 1
        _check(self.nodes)
        #: For each value whether a parameter stands before it, so that its gradient is wanted.
        moves: list[bool] = []
        for node in self.nodes:
            moves.append(bool(node.op.params()) or any(i >= 0 and moves[i] for i in node.inputs))
        self.moves = tuple(moves)
        self.needs = tuple(tuple(i >= 0 and moves[i] for i in node.inputs) for node in self.nodes)
        self._needs_all = tuple((True,) * len(node.inputs) for node in self.nodes)
        last_reader = {i: index for index, node in enumerate(self.nodes) for i in node.inputs}
        done: list[tuple[int, ...]] = [() for _ in self.nodes]
        for value, reader in last_reader.items():
            done[reader] = (*done[reader], value)
        self._done = tuple(done)
        #: Whether each node reads the one before it, and nothing else.
        self.is_chain = all(n.inputs == (index - 1,) for index, n in enumerate(self.nodes))

    def forward(self, x: V, visit: Callable[[int, Op, tuple[V, ...]], V]) -> V:
        """Visit every node from input to output; return the value of the last one.

        Args:
            x: the value of the example.
            visit: from (index, op, values that it reads) makes the value of a node.
        """
        if self.is_chain:  # as every step of plain networks is
            for index, node in enumerate(self.nodes):
                x = visit(index, node.op, (x,))
            return x
        values: dict[int, V] = {EXAMPLE: x}
        for index, node in enumerate(self.nodes):
            read = tuple(values[i] for i in node.inputs)
            for i in self._done[index]:
                del values[i]  # no later node reads it
            values[index] = visit(index, node.op, read)
        return values[self.last]

    def backward(
        self,
        d: Tensor,
        visit: Callable[[int, Op, Tensor, tuple[bool, ...]], Sequence[Tensor | None]],
        *,
        to_example: bool = False,
    ) -> Tensor | None:
        """Visit the nodes from output to input, but for those that no parameter stands before.

        What comes back to a value from its several readers is added up, the last reader's first.

        Args:
            d: gradient of the output, or anything of its shape that flows as a gradient does.
            visit: from (index, op, gradient of its value, which inputs need one) returns the
                gradients of what it reads.
            to_example: continue to the example.

        Returns:
            The gradient of the example if it is wanted, otherwise None.
        """
        wanted = self._needs_all if to_example else self.needs
        if self.is_chain:
            return self._down(d, visit, wanted, to_example)
        flow: dict[int, Tensor] = {self.last: d}
        for index in range(self.last, -1, -1):
            if index not in flow or not (to_example or self.moves[index]):
                continue
            node, needs = self.nodes[index], wanted[index]
            found = visit(index, node.op, flow.pop(index), needs)
            for i, need, dx in zip(node.inputs, needs, found, strict=True):
                if need and dx is not None:
                    flow[i] = flow[i] + dx if i in flow else dx
        return flow.get(EXAMPLE)

    def _down(
        self,
        d: Tensor,
        visit: Callable[[int, Op, Tensor, tuple[bool, ...]], Sequence[Tensor | None]],
        wanted: Sequence[tuple[bool, ...]],
        to_example: bool,  # noqa: FBT001
    ) -> Tensor | None:
        """Do what :meth:`backward` does, where each value has one reader: as long as it flows."""
        flow: Tensor | None = d
        for index in range(self.last, -1, -1):
            if flow is None or not (to_example or self.moves[index]):
                return None
            (flow,) = visit(index, self.nodes[index].op, flow, wanted[index])
        return flow if to_example else None


def _check(nodes: tuple[Node, ...]) -> None:
    if not nodes:
        msg = "a network has at least one node"
        raise ValueError(msg)
    for index, node in enumerate(nodes):
        if not node.inputs or not all(EXAMPLE <= i < index for i in node.inputs):
            msg = (
                f"node {index} ({node.op.path}) reads {node.inputs}; it may read nodes"
                f" {EXAMPLE} (the example) to {index - 1}"
            )
            raise ValueError(msg)
    read = {i for node in nodes for i in node.inputs}
    unread = [nodes[i].op.path for i in range(len(nodes) - 1) if i not in read]
    if unread:
        msg = f"nothing reads the values of {', '.join(unread)}: leave these nodes out"
        raise ValueError(msg)
