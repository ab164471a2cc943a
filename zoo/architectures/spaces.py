"""Spaces of units: union-find over what the ops of a network say of their axes.

Every value and every axis of a tensor is in a space; a record of an op puts those that it names
into one (:mod:`zoo.architectures.units`). A space that reaches the example, the output, or an op
that says nothing of it keeps its order. The others are the permutation groups.

Factors go the same way: values that must take the same factor are in one class, and what every
writer and every reader of it allows is a symmetry. A class that something can neither pass on nor
undo has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from zoo.architectures.graph import EXAMPLE, Node
from zoo.architectures.network import Network
from zoo.architectures.op import Op
from zoo.architectures.units import BOTH, Units

__all__ = ["PermutationGroup", "Spaces", "UnitSymmetry", "unit_spaces"]


@dataclass(frozen=True, slots=True)
class PermutationGroup:
    """Units that may be permuted together.

    Args:
        name: path of the op that makes them.
        size: number of units.
        blocks: units may move within one of so many equal blocks, and blocks as wholes.
        axes: (state-dict key, axis) of every tensor axis that the permutation acts on.
    """

    name: str
    size: int
    blocks: int
    axes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class UnitSymmetry:
    """A factor a on each unit of a group: ``multiplied`` by a, ``divided`` by a, along an axis.

    Args:
        group: name of the permutation group.
        kind: ``"scale"`` (any a > 0) or ``"sign"`` (a = ±1).
        multiplied: (key, axis) of the tensors that take a.
        divided: (key, axis) of the tensors that take 1/a.
    """

    group: str
    kind: str
    multiplied: tuple[tuple[str, int], ...]
    divided: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Spaces:
    """What may be done to the units of a network.

    Args:
        groups: permutation groups, by the node that makes them first.
        symmetries: scale and sign symmetries of them.
        readers: (node, index of its input) that first reads each group's units as a whole; None
            for units that live within an op.
    """

    groups: tuple[PermutationGroup, ...]
    symmetries: tuple[UnitSymmetry, ...]
    readers: tuple[tuple[int, int] | None, ...]


class _Union:
    """Sets of things that are united in pairs."""

    def __init__(self) -> None:
        self._up: dict[Hashable, Hashable] = {}

    def find(self, a: Hashable) -> Hashable:
        """Return the one that stands for the set of ``a``."""
        while a in self._up:
            a = self._up[a]
        return a

    def add(self, a: Hashable, b: Hashable) -> None:
        """Unite the sets of ``a`` and ``b``."""
        a, b = self.find(a), self.find(b)
        if a != b:
            self._up[b] = a


@dataclass(slots=True)
class _Space:
    """What is known of one space."""

    name: str = ""
    first: int = -1
    frozen: bool = False
    sizes: set[int] = field(default_factory=set)
    blocks: set[int] = field(default_factory=set)
    axes: dict[tuple[str, int], None] = field(default_factory=dict)
    reader: tuple[int, int] | None = None


@dataclass(slots=True)
class _Class:
    """What is known of the values that take one factor."""

    kinds: frozenset[str] = BOTH
    multiplied: dict[tuple[str, int], None] = field(default_factory=dict)
    divided: dict[tuple[str, int], None] = field(default_factory=dict)


def _records(nodes: tuple[Node, ...]) -> Iterator[tuple[int, Node, Units]]:
    """Yield every record of every node, then one without a name for what no record names."""
    for index, node in enumerate(nodes):
        for units in node.op.units():
            yield index, node, units


def _unnamed(nodes: tuple[Node, ...]) -> Iterator[int]:
    """Yield the values that some op reads or makes without a word of their channels."""
    for index, node in enumerate(nodes):
        said = node.op.units()
        if not any(units.output for units in said):
            yield index
        named = {i for units in said for i in units.inputs}
        yield from (value for i, value in enumerate(node.inputs) if i not in named)


def _keys(op: Op, params: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    return [(op.key(suffix), axis) for suffix, axis in params]


def unit_spaces(network: Network) -> Spaces:
    """Return the permutation groups and the factors of a network.

    Raises:
        ValueError: an op puts axes of different lengths into one space.
    """
    union, spaces = _united(network)
    found = [
        (root, space)
        for root, space in spaces.items()
        if not space.frozen and space.axes and space.name and len(space.blocks - {1}) <= 1
    ]
    found.sort(key=lambda item: item[1].first)
    groups, names = [], {}
    for root, space in found:
        if len(space.sizes) > 1:
            msg = f"{space.name}: axes of {sorted(space.sizes)} units are said to be the same ones"
            raise ValueError(msg)
        names[root] = space.name
        blocks = max(space.blocks, default=1)
        groups.append(PermutationGroup(space.name, min(space.sizes), blocks, tuple(space.axes)))
    symmetries = _symmetries(network.graph.nodes, union, names)
    return Spaces(tuple(groups), symmetries, tuple(space.reader for _, space in found))


def _united(network: Network) -> tuple[_Union, dict[Hashable, _Space]]:
    """Return the union of values and axes, and what is known of each space."""
    nodes = network.graph.nodes
    union = _Union()
    for index, node, units in _records(nodes):
        members = _members(index, node, units)
        for other in members[1:]:
            union.add(members[0], other)
    spaces: dict[Hashable, _Space] = {}
    shapes = {s.name: s.shape for s in network.layout.segments}
    for index, node, units in _records(nodes):
        space = spaces.setdefault(union.find(_members(index, node, units)[0]), _Space())
        if not space.name and (units.name or (units.output and not units.inputs)):
            space.name, space.first = _name(node.op, units), index
        keys = _keys(node.op, units.params)
        space.axes.update(dict.fromkeys(keys))
        space.sizes.update(shapes[key][axis] for key, axis in keys)
        space.blocks.add(units.blocks)
        if units.inputs and not units.output and space.reader is None:
            space.reader = (index, units.inputs[0])
    for value in (EXAMPLE, network.graph.last, *_unnamed(nodes)):
        spaces.setdefault(union.find(value), _Space()).frozen = True
    return union, spaces


def _name(op: Op, units: Units) -> str:
    return f"{op.path}.{units.name}" if units.name else op.path


def _members(index: int, node: Node, units: Units) -> list[Hashable]:
    """Return what a record puts into one space."""
    values = [node.inputs[i] for i in units.inputs] + [index] * units.output
    return [*values, *_keys(node.op, units.params)]


def _symmetries(
    nodes: tuple[Node, ...], spaces: _Union, names: dict[Hashable, str]
) -> tuple[UnitSymmetry, ...]:
    """Return the factors of the units of every named space."""
    union = _Union()
    for index, node, units in _records(nodes):
        if units.output and units.passes:
            for i in units.inputs:
                union.add(index, node.inputs[i])
    classes: dict[Hashable, _Class] = {}

    def of(value: int) -> _Class:
        return classes.setdefault(union.find(value), _Class())

    for index, node, units in _records(nodes):
        passes = units.passes if units.output and units.inputs else frozenset()
        for i in units.inputs:
            one = of(node.inputs[i])
            if passes:
                one.kinds &= passes
            else:
                one.divided.update(dict.fromkeys(_keys(node.op, units.divided)))
                one.kinds &= units.factors if units.divided else frozenset()
        if units.output and not passes:
            one = of(index)
            one.multiplied.update(dict.fromkeys(_keys(node.op, units.multiplied)))
            one.kinds &= units.factors if units.multiplied else frozenset()
    for value in (EXAMPLE, len(nodes) - 1, *_unnamed(nodes)):
        of(value).kinds = frozenset()
    # a tensor that several nodes use would take the factors of all of them
    used = Counter(node.op.key(p.suffix) for node in nodes for p in node.op.params())
    found = []
    for index in sorted(index for index in classes if isinstance(index, int)):
        one, name = classes[index], names.get(spaces.find(index))
        if name is None:
            continue
        shared = any(used[key] > 1 for key, _ in (*one.multiplied, *one.divided))
        kinds = frozenset() if shared else one.kinds
        found += [
            UnitSymmetry(name, kind, tuple(one.multiplied), tuple(one.divided))
            for kind in sorted(kinds)
        ]
    return tuple(found)
