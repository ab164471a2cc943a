"""One training step of a group: gather, forward, loss, backward, update, freeze.

The step is one function over slabs, so that the whole of it can be compiled. A model whose loss is
not finite is frozen within the step, before its update; every write is a select per model, so that
no model's bits depend on another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.op import Mode
from zoo.data.augment import AUGMENTATIONS
from zoo.kernels.cross_entropy import cross_entropy
from zoo.optim.base import Optimizer

__all__ = ["Inputs", "Recipe", "State", "gradient", "make_step"]


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What the models of a cohort share, and so what a step is built from.

    Args:
        network: the architecture.
        optimizer: the optimizer family.
        shared: the cohort's key (``nesterov``, ``augmentation``, ...).
        dtype: compute type.
        conv: form of the convolution.
        dropout: whether any dropout is done.
    """

    network: Network
    optimizer: Optimizer
    shared: Mapping[str, Any]
    dtype: torch.dtype
    conv: str
    dropout: bool


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The tensors that a step changes in place.

    Args:
        slab: ``[G, P]`` float32 parameters and buffers.
        moments: moment slabs ``[G, trained]``.
        active: ``[G]`` bool, false once a model has diverged.
        diverged: ``[G]`` int64, the step at which it did, −1 before.
    """

    slab: Tensor
    moments: tuple[Tensor, ...]
    active: Tensor
    diverged: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What a group needs besides its state; fixed through training but for the last four.

    Args:
        x: ``[N, ...]`` training examples, in the stacked form unless augmented.
        labels: ``[G, N]`` int64 labels as trained on.
        smoothing: ``[G]`` label smoothing.
        rate: ``[G]`` dropout probability.
        dropout_seed, augment_seed: ``[G]`` int64.
        strength: ``[G]`` augmentation strength.
    """

    x: Tensor
    labels: Tensor
    smoothing: Tensor
    rate: Tensor
    dropout_seed: Tensor
    augment_seed: Tensor
    strength: Tensor


#: (state, inputs, example ids [G, B], coefficients [n, G, 1], live [G] bool, step [G]) -> None
StepFunction = Callable[[State, Inputs, Tensor, Tensor, Tensor, Tensor], None]


def _batch(recipe: Recipe, inputs: Inputs, ids: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return examples ``[G, B, T, C]`` and labels ``[G, B]``."""
    labels = inputs.labels.gather(1, ids)
    x = inputs.x[ids]
    name = str(recipe.shared["augmentation"])
    if name != "none":
        x = AUGMENTATIONS[name].apply(x, inputs.augment_seed, step, inputs.strength)
        x = recipe.network.inputs(x.flatten(0, 1))
        x = x.view(*ids.shape, *x.shape[1:])
    return x, labels


def _mode(recipe: Recipe, inputs: Inputs, step: Tensor) -> Mode:
    return Mode(
        training=True,
        dtype=recipe.dtype,
        conv=recipe.conv,
        dropout_rate=inputs.rate if recipe.dropout else None,
        dropout_seed=inputs.dropout_seed,
        step=step,
    )


def gradient(
    recipe: Recipe, slab: Tensor, inputs: Inputs, ids: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return each model's minibatch loss ``[G]``, gradient ``[G, trained]`` and new buffers."""
    x, labels = _batch(recipe, inputs, ids, step)
    mode = _mode(recipe, inputs, step)
    p = recipe.network.views(slab)
    logits, saved = recipe.network.forward(p, x, mode)
    loss, dlogits = cross_entropy(logits, labels, inputs.smoothing)
    grads = recipe.network.backward(p, saved, dlogits, mode)
    buffers = recipe.network.flat_buffers(p, mode.new_buffers)
    return loss, recipe.network.flat_gradient(grads), buffers


def make_step(recipe: Recipe, *, select: bool) -> StepFunction:
    """Return the step function of a recipe.

    Args:
        recipe: what the models share.
        select: whether every write is a select, as a compiled step needs; an eager step may skip
            it while every model is live, which gives the same bits.
    """
    trained = recipe.network.layout.trained
    names = recipe.optimizer.coefficients

    def step(
        state: State, inputs: Inputs, ids: Tensor, table: Tensor, live: Tensor, number: Tensor
    ) -> None:
        loss, grad, buffers = gradient(recipe, state.slab, inputs, ids, number)
        coefficients = dict(zip(names, table.unbind(0), strict=True))
        old = state.slab[:, :trained]
        new, moments = recipe.optimizer.update(
            old, grad, state.moments, coefficients, recipe.shared
        )
        finite = torch.isfinite(loss)
        moving = state.active & live
        bad = moving & ~finite
        state.diverged.copy_(torch.where(bad, number, state.diverged))
        state.active.copy_(state.active & ~bad)
        go = moving & finite
        row = new if buffers is None else torch.cat([new, buffers], 1)
        _write(state, row, moments, go, always=select)

    return step


def _write(
    state: State, row: Tensor, moments: Sequence[Tensor], go: Tensor, *, always: bool
) -> None:
    if not always and bool(go.all()):
        state.slab.copy_(row)
        for slab, new in zip(state.moments, moments, strict=True):
            slab.copy_(new)
        return
    keep = go.unsqueeze(1)
    state.slab.copy_(torch.where(keep, row, state.slab))
    for slab, new in zip(state.moments, moments, strict=True):
        slab.copy_(torch.where(keep, new, slab))
