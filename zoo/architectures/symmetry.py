"""Weight-space symmetries derived from a network, and their numerical proof.

A permutation group names one set of units and every axis that their permutation moves. A scale or
sign symmetry says that multiplying some tensors of a unit by a, and others by 1/a, changes no
output. Both follow from what the ops say (:mod:`zoo.architectures.spaces`), and :func:`verify`
tries them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures.network import Network
from zoo.architectures.op import Mode, Op, Params, Values
from zoo.architectures.spaces import PermutationGroup, UnitSymmetry, unit_spaces
from zoo.arithmetic import pinned
from zoo.errors import ZooError
from zoo.seeds import Stream, permutation, uniform

__all__ = [
    "PermutationGroup",
    "UnitSymmetry",
    "apply_permutation",
    "apply_scaling",
    "group_activations",
    "permutation_groups",
    "random_permutation",
    "unit_symmetries",
    "verify",
]


def permutation_groups(network: Network) -> tuple[PermutationGroup, ...]:
    """Return the permutation groups of a network, from input to output."""
    return unit_spaces(network).groups


def unit_symmetries(network: Network) -> tuple[UnitSymmetry, ...]:
    """Return the scale and sign symmetries of a network, from input to output."""
    return unit_spaces(network).symmetries


def group_activations(
    network: Network, p: Params, x: torch.Tensor, mode: Mode
) -> list[torch.Tensor | None]:
    """Return what the units of each permutation group put out where something first reads them.

    Args:
        network: the architecture.
        p: parameters.
        x: ``[G, B, T, C_in]``.
        mode: of the pass.

    Returns:
        For each group ``[G, B, T, size]``; None for units that live within an op.
    """
    spaces = unit_spaces(network)
    found: list[torch.Tensor | None] = [None] * len(spaces.groups)

    def before(index: int, op: Op, xs: Values) -> None:
        for group, place in enumerate(spaces.readers):
            if place is not None and place[0] == index:
                found[group] = xs[place[1]]

    network.trace(p, x, mode, before=before)
    return found


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


#: Logits above this may have passed through values that float32 does not hold.
_LARGEST = 1e30
_HALVINGS = 60


@pinned()
def verify(network: Network, *, seed: int = 0, examples: int = 16) -> dict[str, float]:
    """Try every symmetry on random weights and inputs, in float64 through the plain module.

    Returns:
        The largest change of a logit over the largest logit, for ``permutation``, ``unit``
        (scale and sign), and ``stacked`` (stacked float32 forward against the plain module).

    Raises:
        ZooError: a change above 1e-5 (1e-4 where a user's own module computes, in float32): the
            description is wrong and must not be stored.
    """
    layout = network.layout
    draws = uniform(seed, Stream.PERMUTATION, 1 << 20, layout.params)
    row = (draws - 0.5).astype(np.float32)
    for s in layout.segments:
        if s.name.endswith("running_var"):
            row[s.offset : s.stop] += 1
    count = examples * int(np.prod(network.example_shape))
    raw = uniform(seed, Stream.PERMUTATION, (1 << 20) + 1, count)
    raw = raw.reshape(examples, *network.example_shape)
    tokens = network.tokens
    x = torch.from_numpy(raw * 2 - 1 if tokens is None else (raw * tokens).astype(np.int64))
    # code that is not ours may make tensors of float32 on the way
    exact = torch.float32 if network.bits_vary else torch.float64
    x = x if tokens is not None else x.to(exact)
    module = network.module().to(exact)
    state, base = _outputs(network, module, row, x)
    for _ in range(_HALVINGS):
        if base.isfinite().all() and float(base.abs().max()) < _LARGEST:
            break
        row *= 0.5  # deep and wide: float32 could not hold what comes out
        state, base = _outputs(network, module, row, x)
    tensors = _tensors(module)

    def logits(changed: dict[str, torch.Tensor]) -> torch.Tensor:
        # in place, and only what differs: functional_call walks all modules for every symmetry
        moved = [name for name, value in changed.items() if value is not state[name]]
        with torch.no_grad():
            for name in moved:
                tensors[name].copy_(changed[name])
            out: torch.Tensor = module(x)
            for name in moved:
                tensors[name].copy_(state[name])
            return out

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
    errors["stacked"] = _gap(_stacked(network, row, x), base.flatten(1), scale)
    limit = 1e-5 if exact is torch.float64 else 1e-4
    bad = {k: v for k, v in errors.items() if not v <= limit}
    if bad:
        msg = f"the {network.family} description fails its own check: {bad}"
        raise ZooError(msg)
    return errors


def _stacked(network: Network, row: NDArray[np.float32], x: torch.Tensor) -> torch.Tensor:
    """Return the logits of a row by the stacked forward pass, in float32."""
    slab = torch.from_numpy(row).unsqueeze(0)
    inputs = network.inputs(x.float() if network.tokens is None else x).unsqueeze(0)
    with torch.no_grad():
        out, _ = network.forward(network.views(slab), inputs, Mode(training=False))
    return out[0].double()


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _outputs(
    network: Network, module: torch.nn.Module, row: NDArray[np.float32], x: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the state dict of a row in float64, which the module then has, and its logits."""
    dtype = next(iter(module.parameters())).dtype
    flat = torch.from_numpy(row).to(dtype)
    state = {s.name: flat[s.offset : s.stop].view(s.shape) for s in network.layout.segments}
    tensors = _tensors(module)
    with torch.no_grad():
        for name, value in state.items():
            tensors[name].copy_(value)
        out: torch.Tensor = module(x)
        return state, out


def _gap(a: torch.Tensor, b: torch.Tensor, scale: float) -> float:
    return float((a - b).abs().max()) / max(scale, 1e-30)


def describe(network: Network) -> dict[str, Any]:
    """Return the JSON-ready description that a store keeps, verified."""
    errors = verify(network)
    return {
        "family": network.family,
        "ops": network.describe_ops(),
        "flatten": network.flatten,
        "example_shape": list(network.example_shape),
        "forward_flops_per_example": network.flops(),
        # The backward pass multiplies every weight twice: for the input and for the weight.
        "train_flops_per_example": 3 * network.flops(),
        "permutation_groups": [asdict(g) for g in permutation_groups(network)],
        "unit_symmetries": [asdict(s) for s in unit_symmetries(network)],
        "verified": errors,
    }
