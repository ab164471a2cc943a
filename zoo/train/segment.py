"""A segment: one group's steps from one checkpoint to the next, on the stacked backends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.train.backends import eager_recipe
from zoo.train.dynamic import Memory
from zoo.train.group import Group, coefficient_table
from zoo.train.pause import SegmentProgress, Tick
from zoo.train.schedule import learning_rates
from zoo.train.span import Span, TakeSpan, spans
from zoo.train.step import Recipe, State, gradient

__all__ = ["Stretch", "current_rates", "last_step", "stacked_segment"]

#: Example ids that are drawn at a time, over all models of a group.
_BLOCK_IDS = 1 << 18

Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The steps of a segment.

    Args:
        start, stop: ``[G]`` each model's first step, and the one before which it stops.
        begin: how far the segment is already, if it was interrupted.
    """

    start: Steps
    stop: Steps
    begin: SegmentProgress | None = None


def stacked_segment(
    recipe: Recipe,
    take: TakeSpan,
    group: Group,
    state: State,
    stretch: Stretch,
    *,
    tick: Tick | None = None,
) -> dict[str, Tensor]:
    """Train a group over a stretch of steps, changing ``state``.

    Every row is stepped as long as any model has steps to go; a model that is done earlier gets
    back what it had after its own last step.

    Args:
        recipe: what the models share.
        take: takes a span of steps.
        group: the group.
        state: as it is where the stretch begins.
        stretch: the steps.
        tick: called between two blocks of steps with what tells how far it is.

    Returns:
        Learning rate, gradient norm and update norm of each model's last step, each ``[G]``.
    """
    start, stop, begin = stretch.start, stretch.stop, stretch.begin
    device = state.slab.device
    last = stop - 1
    before = state.slab.clone() if begin is None else begin.before
    memory = tuple(m.clone() for m in state.memory)
    counts = stop - start
    total = int(counts.max())
    early = _Early(state) if counts.min() < total else None
    if early is not None and begin is not None:
        early.slab, early.moments = begin.early[0], begin.early[1:]
    block_steps = _block_steps(group)
    first = 0 if begin is None else begin.offset
    for block in range(first, total, block_steps):
        if tick is not None and block > first:
            kept = () if early is None else (early.slab, *early.moments)
            tick(partial(SegmentProgress, block, before, kept))
        numbers = start + np.arange(block, min(block + block_steps, total))[:, None]
        live = numbers < stop
        numbers = np.minimum(numbers, last)
        final = (numbers == last) & live
        part = _drawn(recipe, group, numbers, live, device)
        done = torch.from_numpy(final).to(device)
        for begun, ended in spans(final.any(1).tolist()):
            ends = bool(final[begun].any())
            if ends:
                before = torch.where(done[begun].unsqueeze(1), state.slab, before)
                memory = _where(done[begun], state.memory, memory)
            take(state, group.inputs, part.between(begun, ended))
            if ends and early is not None:
                early.keep(state, done[begun])
    if early is not None:
        early.restore(state)
    return last_step(recipe, group, state, before, last, memory)


def _block_steps(group: Group) -> int:
    """Return how many steps of a group are drawn at a time."""
    ids = len(group.runs) * int(group.order.batch)
    return max(16, _BLOCK_IDS // ids)


def _drawn(
    recipe: Recipe, group: Group, numbers: Steps, live: NDArray[np.bool_], device: torch.device
) -> Span:
    """Return the span of steps ``numbers [T, G]``, padded to a whole block.

    Every block of a cohort has one shape, so that what is compiled for one serves them all.
    """
    count = len(numbers)
    found = (
        torch.from_numpy(group.order.block(numbers)),
        coefficient_table(recipe.optimizer, group.runs, numbers),
        torch.from_numpy(live),
        torch.from_numpy(numbers),
    )
    ids, table, alive, number = (_padded(t, _block_steps(group)).to(device) for t in found)
    return Span(ids, table, alive, number, 0, count)


def _padded(rows: Tensor, count: int) -> Tensor:
    """Return the rows and, up to ``count``, others that are never read."""
    if len(rows) == count:
        return rows
    padded = rows.new_empty(count, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded


def _where(done: Tensor, new: Memory, old: Memory) -> Memory:
    """Return the new rows of the models that are ``done [G]``, the old ones of the others."""
    pairs = zip(new, old, strict=True)
    return tuple(torch.where(done.view(-1, *(1,) * (n.ndim - 1)), n, o) for n, o in pairs)


class _Early:
    """Rows and moments of models at the end of their own steps, while others go on."""

    def __init__(self, state: State) -> None:
        self.slab = state.slab.clone()
        self.moments = tuple(m.clone() for m in state.moments)
        self.memory = tuple(m.clone() for m in state.memory)

    def keep(self, state: State, done: Tensor) -> None:
        """Remember the rows that are ``done [G]`` after this step."""
        self.slab[done] = state.slab[done]
        for kept, moment in zip(self.moments, state.moments, strict=True):
            kept[done] = moment[done]
        self.memory = _where(done, state.memory, self.memory)

    def restore(self, state: State) -> None:
        """Put every row back to where it ended."""
        state.slab.copy_(self.slab)
        for kept, moment in zip(self.moments, state.moments, strict=True):
            moment.copy_(kept)
        state.memory = self.memory


def last_step(
    recipe: Recipe, group: Group, state: State, before: Tensor, last: Steps, memory: Memory = ()
) -> dict[str, Tensor]:
    """Return the last step's learning rate, gradient norm and update norm, each ``[G]``.

    The gradient is worked out again from the weights before that step, with the same batch and
    the same random numbers: once a checkpoint, instead of a norm at every step.

    Args:
        recipe: what the models share.
        group: the group.
        state: after the step.
        before: ``[G, P]`` each model's row before its last step.
        last: ``[G]`` number of that step.
        memory: of the dynamic diet, before that step.
    """
    device = state.slab.device
    ids = torch.from_numpy(group.order.block(last[None]))[0].to(device)
    number = torch.from_numpy(last).to(device)
    _, grad, _, _ = gradient(eager_recipe(recipe), before, group.inputs, ids, number, memory)
    trained = recipe.network.layout.trained
    moved = state.slab[:, :trained] - before[:, :trained]
    return {
        "step_lr": current_rates(group, last),
        "grad_norm": torch.linalg.vector_norm(grad.double(), dim=1),
        "update_norm": torch.linalg.vector_norm(moved.double(), dim=1),
    }


def current_rates(group: Group, steps: Steps) -> Tensor:
    """Return each model's learning rate at its own step ``[G]``, as float64 on the CPU."""
    rates = [learning_rates(run, steps[g : g + 1])[0] for g, run in enumerate(group.runs)]
    return torch.tensor(rates, dtype=torch.float64)
