"""Weight-space symmetries derived from a network, and their numerical proof.

A permutation group names one set of units and every axis that their permutation moves. A scale or
sign symmetry says that multiplying some tensors of a unit by a, and others by 1/a, changes no
output. Both are read off the ops, never typed by hand, and :func:`verify` tries them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures.activations import Activation
from zoo.architectures.network import Network
from zoo.architectures.norms import Norm
from zoo.architectures.op import Mode
from zoo.errors import ZooError
from zoo.seeds import Stream, permutation, uniform

__all__ = [
    "PermutationGroup",
    "UnitSymmetry",
    "apply_permutation",
    "apply_scaling",
    "permutation_groups",
    "random_permutation",
    "unit_symmetries",
    "verify",
]


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


def _walk(network: Network) -> tuple[list[PermutationGroup], list[UnitSymmetry]]:
    groups: list[PermutationGroup] = []
    symmetries: list[UnitSymmetry] = []
    name, size, blocks = "", 0, 1
    axes: list[tuple[str, int]] = []
    factor: list[tuple[str, int]] = []
    kinds: frozenset[str] = frozenset()
    activated: frozenset[str] = frozenset()
    for op in network.ops:
        if not op.equivariant:
            if name:
                consumer = (op.key("weight"), 1)
                groups.append(PermutationGroup(name, size, blocks, (*axes, consumer)))
                shared = sorted(kinds & activated & op.input_factors)
                symmetries += [UnitSymmetry(name, k, tuple(factor), (consumer,)) for k in shared]
            name, size, blocks = op.path, op.out_shape().channels, 1
            activated = frozenset()
            axes = [(op.key(p.suffix), 0) for p in op.params()]
            factor, kinds = [(op.key(s), 0) for s in op.scaled()], op.output_factors
        elif name:
            own = [(op.key(p.suffix), 0) for p in op.params()]
            axes += own
            if isinstance(op, Norm) and own:
                blocks = op.permutation_blocks
                # A norm undoes a factor on its input; one on its affine output passes through.
                factor, kinds = [(op.key(s), 0) for s in op.scaled()], op.output_factors
            if isinstance(op, Activation):
                activated = op.kind.symmetries
    return groups, symmetries


def permutation_groups(network: Network) -> tuple[PermutationGroup, ...]:
    """Return the permutation groups of a network, from input to output."""
    return tuple(_walk(network)[0])


def unit_symmetries(network: Network) -> tuple[UnitSymmetry, ...]:
    """Return the scale and sign symmetries of a network, from input to output."""
    return tuple(_walk(network)[1])


def random_permutation(group: PermutationGroup, seed: int) -> NDArray[np.int64]:
    """Draw a permitted permutation ``[size]``: blocks as wholes, then within each block."""
    each = group.size // group.blocks
    order = permutation(seed, Stream.PERMUTATION, 0, group.blocks)
    parts = [
        block * each + permutation(seed, Stream.PERMUTATION, 1 + int(block), each)
        for block in order
    ]
    return np.concatenate(parts)


def apply_permutation(
    state: dict[str, torch.Tensor], group: PermutationGroup, order: NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    """Return a state dict with the group's units in a new order."""
    index = torch.from_numpy(order)
    changed = dict(state)
    for key, axis in group.axes:
        changed[key] = changed[key].index_select(axis, index)
    return changed


def apply_scaling(
    state: dict[str, torch.Tensor], symmetry: UnitSymmetry, factor: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return a state dict with a factor ``[size]`` on each unit of a symmetry's group."""
    changed = dict(state)
    for keys, a in ((symmetry.multiplied, factor), (symmetry.divided, 1 / factor)):
        for key, axis in keys:
            shape = [1] * changed[key].dim()
            shape[axis] = -1
            changed[key] = changed[key] * a.view(shape)
    return changed


def verify(network: Network, *, seed: int = 0, examples: int = 16) -> dict[str, float]:
    """Try every symmetry on random weights and inputs, in float64 through the plain module.

    Returns:
        The largest change of a logit over the largest logit, for ``permutation``, ``unit``
        (scale and sign), and ``stacked`` (stacked float32 forward against the plain module).

    Raises:
        ZooError: a change above 1e-5: the description is wrong and must not be stored.
    """
    layout = network.layout
    draws = uniform(seed, Stream.PERMUTATION, 1 << 20, layout.params)
    row = (draws - 0.5).astype(np.float32)
    for s in layout.segments:
        if s.name.endswith("running_var"):
            row[s.offset : s.stop] += 1
    count = examples * int(np.prod(network.example_shape))
    raw = uniform(seed, Stream.PERMUTATION, (1 << 20) + 1, count) * 2 - 1
    x = torch.from_numpy(raw.reshape(examples, *network.example_shape))
    flat = torch.from_numpy(row.astype(np.float64))
    state = {s.name: flat[s.offset : s.stop].view(s.shape) for s in layout.segments}
    module = network.module().double()

    def logits(changed: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = torch.func.functional_call(module, changed, (x,))
            return out

    base = logits(state)
    scale = float(base.abs().max())
    errors = {"permutation": 0.0, "unit": 0.0, "stacked": 0.0}
    for i, group in enumerate(permutation_groups(network)):
        moved = apply_permutation(state, group, random_permutation(group, seed + i))
        errors["permutation"] = max(errors["permutation"], _gap(logits(moved), base, scale))
    for symmetry in unit_symmetries(network):
        size = state[symmetry.multiplied[0][0]].shape[symmetry.multiplied[0][1]]
        u = torch.from_numpy(uniform(seed, Stream.PERMUTATION, (1 << 20) + 2, size))
        factor = 0.5 + u if symmetry.kind == "scale" else torch.where(u < 0.5, -1.0, 1.0).double()
        moved = apply_scaling(state, symmetry, factor)
        errors["unit"] = max(errors["unit"], _gap(logits(moved), base, scale))
    slab = torch.from_numpy(row).unsqueeze(0)
    with torch.no_grad():
        stacked, _ = network.forward(
            network.views(slab), network.inputs(x.float()).unsqueeze(0), Mode(training=False)
        )
    errors["stacked"] = _gap(stacked[0].double(), base, scale)
    bad = {k: v for k, v in errors.items() if not v <= 1e-5}
    if bad:
        msg = f"the {network.family} description fails its own check: {bad}"
        raise ZooError(msg)
    return errors


def _gap(a: torch.Tensor, b: torch.Tensor, scale: float) -> float:
    return float((a - b).abs().max()) / max(scale, 1e-30)


def describe(network: Network) -> dict[str, Any]:
    """Return the JSON-ready description that a store keeps, verified."""
    errors = verify(network)
    return {
        "family": network.family,
        "ops": [op.describe() for op in network.ops],
        "flatten": network.flatten,
        "example_shape": list(network.example_shape),
        "forward_flops_per_example": network.flops(),
        # The backward pass multiplies every weight twice: for the input and for the weight.
        "train_flops_per_example": 3 * network.flops(),
        "permutation_groups": [asdict(g) for g in permutation_groups(network)],
        "unit_symmetries": [asdict(s) for s in unit_symmetries(network)],
        "verified": errors,
    }
