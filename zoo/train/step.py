"""One training step of a group: gather, forward, loss, backward, update.

The step is one pure function over slabs, so that the whole of it can be compiled. No operation
mixes models: a model whose loss is not finite is marked, and its neighbours keep their bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.op import Mode
from zoo.data.augment import AUGMENTATIONS
from zoo.kernels.gather import MOVES, Draw, Reading, gather
from zoo.kernels.language import on_device
from zoo.kernels.optimizer_step import Update
from zoo.objectives import Objective, Settings
from zoo.optim.base import Optimizer
from zoo.optim.fused import fused_step
from zoo.train.batches import taken
from zoo.train.dynamic import DietRuns, Dynamic, Memory, Presented
from zoo.train.fresh import FreshExamples

__all__ = ["Inputs", "Recipe", "State", "StepRow", "advance", "gradient"]


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """What the models of a cohort share, and so what a step is built from.

    Args:
        network: the architecture.
        objective: what is minimised.
        optimizer: the optimizer family.
        shared: the cohort's key (``nesterov``, ``augmentation``, ...).
        dtype: compute type.
        conv: form of the convolution.
        dropout: whether any dropout is done.
        dynamic: the dynamic diet, or None.
        fresh: what examples are drawn from instead of the training set, or None.
    """

    network: Network
    objective: Objective
    optimizer: Optimizer
    shared: Mapping[str, Any]
    dtype: torch.dtype
    conv: str
    dropout: bool
    dynamic: Dynamic | None = None
    fresh: FreshExamples | None = None


@dataclass(slots=True, eq=False)
class State:
    """The tensors that a step changes.

    Args:
        slab: ``[G, P]`` float32 parameters and buffers.
        moments: moment slabs ``[G, trained]``.
        active: ``[G]`` bool, false once a model has diverged.
        diverged: ``[G]`` int64, the step at which it did, −1 before.
        memory: what the dynamic diet remembers.
    """

    slab: Tensor
    moments: tuple[Tensor, ...]
    active: Tensor
    diverged: Tensor
    memory: Memory = ()


class StepRow(NamedTuple):
    """What changes from step to step, of one step.

    Args:
        ids: ``[G, B]`` example ids.
        table: ``[n, G, 1]`` coefficients of the optimizer.
        live: ``[G]`` bool, false for models that are done.
        number: ``[G]`` int64, each model's own step.
    """

    ids: Tensor
    table: Tensor
    live: Tensor
    number: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What a group needs besides its state; fixed through training.

    Args:
        x: ``[N, ...]`` training examples, in the stacked form unless augmented.
        targets: ``[G, N]`` int64 labels as trained on, or what all share: labels of positions or
            floats, ``[1, N, ...]``.
        rate: ``[G]`` dropout probability.
        dropout_seed, augment_seed: ``[G]`` int64.
        strength: ``[G]`` augmentation strength.
        diet: what the dynamic diet knows of the runs, or None.
        settings: hyper-parameters of the objective.
        weight: ``[N]`` of each example in the loss, or None: all alike.
        order_seed: ``[G]`` int64, read where examples are fresh.
    """

    x: Tensor
    targets: Tensor
    rate: Tensor
    dropout_seed: Tensor
    augment_seed: Tensor
    strength: Tensor
    diet: DietRuns | None = None
    settings: Settings = field(default_factory=dict)
    weight: Tensor | None = None
    order_seed: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields that are tensors, as a compiled step takes them."""
        values = {name: getattr(self, name) for name in _INPUTS}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


_INPUTS = tuple(f.name for f in fields(Inputs))


def _batch(recipe: Recipe, inputs: Inputs, ids: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return examples ``[G, B, T, C]`` and their targets."""
    name = str(recipe.shared["augmentation"])
    if recipe.fresh is not None and inputs.order_seed is not None:
        points, targets = recipe.fresh.draw(inputs.order_seed, step, ids.shape[1])
        x = recipe.network.inputs(points.flatten(0, 1))
        return x.view(*ids.shape, *x.shape[1:]), targets
    labels = inputs.targets.ndim == 2 and not inputs.targets.is_floating_point()
    if name in MOVES and labels and on_device(inputs.x, ids):
        return _gathered(recipe, inputs, ids, step, name)
    targets = taken(inputs.targets, ids)
    x = inputs.x[ids]
    if name != "none":
        x = AUGMENTATIONS[name].apply(x, inputs.augment_seed, step, inputs.strength)
        x = recipe.network.inputs(x.flatten(0, 1))
        x = x.view(*ids.shape, *x.shape[1:])
    return x, targets


def _gathered(
    recipe: Recipe, inputs: Inputs, ids: Tensor, step: Tensor, name: str
) -> tuple[Tensor, Tensor]:
    """Return what :func:`_batch` does, by one kernel."""
    if name == "none":  # the data set is in the stacked form already
        x, labels = gather(inputs.x.flatten(1), inputs.targets, ids, Reading(flatten=True))
        return x.view(*ids.shape, *inputs.x.shape[1:]), labels
    draw = Draw(name, inputs.augment_seed, step, inputs.strength)
    how = Reading(flatten=recipe.network.flatten, draw=draw)
    return gather(inputs.x, inputs.targets, ids, how)


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
    recipe: Recipe, slab: Tensor, inputs: Inputs, ids: Tensor, step: Tensor, memory: Memory = ()
) -> tuple[Tensor, Tensor, Tensor | None, Memory]:
    """Return each model's minibatch loss ``[G]``, gradient ``[G, trained]``, new buffers, and
    what its dynamic diet remembers of the batch.
    """  # noqa: D205
    x, targets = _batch(recipe, inputs, ids, step)
    mode = _mode(recipe, inputs, step)
    p = recipe.network.views(slab)
    z, saved = recipe.network.forward(p, x, mode)
    loss, dz = recipe.objective.step(z, targets, inputs.settings)
    if recipe.dynamic is not None and inputs.diet is not None:
        seen = Presented(ids, recipe.objective, z, targets, step)
        weights, memory = recipe.dynamic.weigh(seen, inputs.diet, memory)
        dz = dz * weights.unsqueeze(-1)
    if inputs.weight is not None:
        dz = dz * inputs.weight[ids].unsqueeze(-1)
    grads = recipe.network.backward(p, saved, dz, mode)
    buffers = recipe.network.flat_buffers(p, mode.new_buffers)
    return loss, recipe.network.flat_gradient(grads), buffers, memory


def advance(recipe: Recipe, state: State, inputs: Inputs, row: StepRow) -> State:
    """Return the state after one step; a pure function, so that it can be compiled whole.

    Every row is stepped, also one that has diverged, that is done, or that is a dummy: what these
    rows hold is never read again, and a select per value would cost every healthy model time.

    Args:
        recipe: what the models share.
        state: before the step.
        inputs: the group's fixed inputs.
        row: the step.
    """
    ids, table, live, number = row
    loss, grad, buffers, memory = gradient(recipe, state.slab, inputs, ids, number, state.memory)
    if on_device(state.slab, grad):
        return _stepped(recipe, state, (loss, grad, buffers, memory), row)
    names = recipe.optimizer.names(clipped=bool(recipe.shared.get("has_clip_norm")))
    coefficients = dict(zip(names, table.unbind(0), strict=True))
    layout = recipe.network.layout
    new, moments = recipe.optimizer.step(
        state.slab[:, : layout.trained], grad, state.moments, coefficients, recipe.shared, layout
    )
    bad = state.active & live & ~torch.isfinite(loss)
    return State(
        slab=new if buffers is None else torch.cat([new, buffers], 1),
        moments=tuple(moments),
        active=state.active & ~bad,
        diverged=torch.where(bad, number, state.diverged),
        memory=memory,
    )


def _stepped(
    recipe: Recipe,
    state: State,
    found: tuple[Tensor, Tensor, Tensor | None, Memory],
    row: StepRow,
) -> State:
    """Return what :func:`advance` does, by kernels that write into the slabs of ``state``.

    Rows that are done or diverged are not even read.
    """
    loss, grad, buffers, memory = found
    on = state.active & row.live
    bad = on & ~torch.isfinite(loss)
    trained = recipe.network.layout.trained
    update = Update(state.slab[:, :trained], grad, state.moments, row.table, on)
    fused_step(recipe.optimizer, update, recipe.shared, recipe.network.layout)
    if buffers is not None:
        old = state.slab[:, trained:]
        old.copy_(torch.where(on.unsqueeze(1), buffers, old))
    return State(
        slab=state.slab,
        moments=state.moments,
        active=state.active & ~bad,
        diverged=torch.where(bad, row.number, state.diverged),
        memory=memory,
    )
