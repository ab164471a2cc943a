"""Alignment of rows to a reference: the permutation that brings a model nearest another.

Three ways of Ainsworth et al. 2023, "Git Re-Basin" (arXiv 2209.04836), and all of them leave the
function of every row alone:

* ``weights`` maximises the inner product of the weights; nothing but the rows is needed;
* ``activations`` maximises the correlation of the units' activations on some inputs;
* ``straight_through`` learns the permutation whose midpoint with the reference has the least loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.op import Mode
from zoo.architectures.symmetry import group_activations
from zoo.arithmetic import pinned
from zoo.dataset.row_symmetry import permute_rows
from zoo.dataset.structure import Structure
from zoo.errors import QueryError
from zoo.landscape.weight_matching import assign_units, match_weights
from zoo.objectives import OBJECTIVES

__all__ = ["METHODS", "AlignmentProbe", "MidpointSearch", "align_rows", "unit_activations"]

METHODS = ("weights", "activations", "straight_through")

_Orders = list[NDArray[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class AlignmentProbe:
    """What networks are asked, where units are matched by what they answer.

    Args:
        network: the network (``zoo.architectures.build(spec, ...)``).
        inputs: ``[N, *example_shape]``.
        labels: targets ``[N]`` or ``[N, C]``, for ``"straight_through"``.
        objective: its loss is the midpoint's.
    """

    network: Network
    inputs: Tensor
    labels: Tensor | None = None
    objective: str = "cross_entropy"


@dataclass(frozen=True, slots=True)
class MidpointSearch:
    """How long ``"straight_through"`` searches.

    Args:
        steps: of gradient descent.
        lr: their length relative to the gradient's norm over the weights' norm.
    """

    steps: int = 60
    lr: float = 0.1


@pinned()
def align_rows(
    rows: Tensor,
    reference: Tensor,
    structure: Structure,
    *,
    method: str = "weights",
    probe: AlignmentProbe | None = None,
    search: MidpointSearch = MidpointSearch(),
) -> Tensor:
    """Return each row with its units permuted towards a reference; outputs do not change.

    Bring scale and sign freedoms to their normal form first
    (:func:`zoo.dataset.canonical.normal_form`): a permutation cannot undo them.

    Args:
        rows: ``[B, P]``.
        reference: ``[P]``.
        structure: of all of them.
        method: one of :data:`METHODS`.
        probe: for every method but ``"weights"``.
        search: of ``"straight_through"``.

    Raises:
        QueryError: an unknown method, or one without what it needs.
    """
    if method not in METHODS or not _answers(method, probe):
        msg = (
            f"method {method!r}; allowed: weights, activations (with a probe), straight_through"
            " (with a probe that has labels)"
        )
        raise QueryError(msg)
    if method == "weights" or probe is None:
        found = [_match(structure, reference, row) for row in rows]
    elif method == "activations":
        target = unit_activations(reference, probe.network, probe.inputs)
        found = [_match_activations(structure, probe, target, row) for row in rows]
    else:
        found = [_straight_through(structure, probe, reference, row, search) for row in rows]
    aligned = [_permuted(row, structure, orders) for row, orders in zip(rows, found, strict=True)]
    return torch.stack(aligned) if aligned else rows


def _answers(method: str, probe: AlignmentProbe | None) -> bool:
    """Return whether a probe has what a method needs."""
    if method == "weights":
        return True
    return probe is not None and (method == "activations" or probe.labels is not None)


def _permuted(row: Tensor, structure: Structure, orders: Sequence[NDArray[np.int64]]) -> Tensor:
    moved = row.unsqueeze(0)
    for group, order in zip(structure.groups, orders, strict=True):
        moved = permute_rows(moved, structure, group, torch.from_numpy(order).unsqueeze(0))
    return moved[0]


def _match(structure: Structure, a: Tensor, b: Tensor) -> _Orders:
    found = match_weights(
        structure.layout, structure.groups, a.detach().numpy(), b.detach().numpy()
    )
    return list(found)


@pinned()
def unit_activations(row: Tensor, network: Network, inputs: Tensor) -> list[Tensor | None]:
    """Return what the units of each permutation group put out, ``[N · T, size]`` a group.

    Taken where weights first read it, in eval mode: after norm and activation, and after pooling
    where there is any. None for units that live within an op, such as the heads of an attention.

    Args:
        row: ``[P]``.
        network: of the row.
        inputs: ``[N, *example_shape]``.
    """
    slab = row.unsqueeze(0)
    x = network.inputs(inputs).unsqueeze(0)
    with torch.no_grad():
        found = group_activations(network, network.views(slab), x, Mode(training=False))
    return [None if y is None else y[0].flatten(0, 1) for y in found]


def _match_activations(
    structure: Structure, probe: AlignmentProbe, target: Sequence[Tensor | None], row: Tensor
) -> _Orders:
    """Return the orders that maximise the sum of correlations between matched units."""
    own = unit_activations(row, probe.network, probe.inputs)
    orders = []
    for group, a, b in zip(structure.groups, target, own, strict=True):
        if a is None or b is None:  # nothing to compare them by
            orders.append(np.arange(group.size))
            continue
        left, right = _standardized(a), _standardized(b)
        orders.append(assign_units((left.mT @ right).numpy(), group.blocks))
    return orders


def _standardized(x: Tensor) -> Tensor:
    """Return columns of mean 0 and norm 1; a unit that never changes stays 0."""
    centred = x.double() - x.double().mean(0)
    norm = centred.norm(dim=0)
    return centred / torch.where(norm > 0, norm, 1.0)


def _loss(objective: str, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from outputs ``[N, C]`` to their mean loss."""
    kind = OBJECTIVES[objective]("vector" if targets.is_floating_point() else "class")
    # what a caller made in inference mode cannot take part in a gradient; a copy can
    own = targets.clone()
    return lambda z: kind.losses(z, own).mean()


def _straight_through(
    structure: Structure,
    probe: AlignmentProbe,
    reference: Tensor,
    row: Tensor,
    search: MidpointSearch,
) -> _Orders:
    """Return the best orders met by algorithm 3: match, midpoint, gradient to what is matched.

    Weights θ̃ that need not be a permutation of the row are matched with it; the loss is that of
    ½(θ_ref + π(θ)), and its gradient is given to θ̃ as if π(θ) were θ̃. Batch norm uses the batch's
    own statistics, as the midpoint has no running ones.
    """
    # what a caller made in inference mode cannot take part in a gradient; a copy can
    inputs, network = probe.inputs.clone(), probe.network
    assert probe.labels is not None
    loss_of = _loss(probe.objective, probe.labels)
    free = reference.clone()
    best = _match(structure, reference, row)
    least = float("inf")
    trained = structure.layout.trained
    mode = Mode(training=trained < structure.params)
    for _ in range(search.steps):
        orders = _match(structure, free, row)
        moved = _permuted(row, structure, orders)
        middle = (0.5 * (reference + moved)).detach().requires_grad_()
        p = network.views(middle.unsqueeze(0))
        logits, _ = network.forward(p, network.inputs(inputs).unsqueeze(0), mode)
        loss = loss_of(logits[0])
        if loss.item() < least:
            least, best = loss.item(), orders
        (gradient,) = torch.autograd.grad(loss, middle)
        size = gradient[:trained].norm()
        if not size > 0:
            break
        step = search.lr * row[:trained].norm() / size / np.sqrt(search.steps)
        free[:trained] -= step * gradient[:trained]
    return best
