"""How the axes of an op hang together: what a permutation or a factor on units moves with them.

An op says so in records, one for each set of units that it touches. Union-find over the records of
a whole network makes its permutation groups (:mod:`zoo.architectures.symmetry`): a residual link
unites what it adds, tied weights unite what shares them, and a value that no record names keeps its
order.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOTH", "Units"]

#: The kinds of factor: any a > 0, and a = ±1.
BOTH = frozenset({"scale", "sign"})
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Units:
    """One set of units, and where an op has an axis along it.

    Args:
        params: (suffix, axis) of the op's own tensors.
        inputs: indices of the inputs whose channels are these units.
        output: whether the channels of the output are.
        blocks: units may move within one of so many equal blocks, and blocks as wholes.
        name: of units that live within the op and reach neither input nor output, such as the
            heads of an attention; completes the op's path to the group's name.
        multiplied: (suffix, axis) of the tensors that, multiplied by a, multiply the output by a.
        divided: (suffix, axis) of the tensors that, divided by a, undo a factor a on the inputs.
        factors: kinds of factor that ``multiplied`` and ``divided`` hold for.
        passes: kinds of factor that go from these inputs through to the output.
    """

    params: tuple[tuple[str, int], ...] = ()
    inputs: tuple[int, ...] = ()
    output: bool = False
    blocks: int = 1
    name: str = ""
    multiplied: tuple[tuple[str, int], ...] = ()
    divided: tuple[tuple[str, int], ...] = ()
    factors: frozenset[str] = BOTH
    passes: frozenset[str] = _NONE
