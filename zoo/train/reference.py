"""The reference backend: each model alone, a plain ``nn.Module`` under torch's own optimizer.

Slow and short on purpose. It shares with the stacked engine what decides the run (initial row, data
order, labels, augmentation, dropout masks) and nothing of how it is computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.dropout import LAYERS, Dropout
from zoo.architectures.network import load_row, state_dict_to_row
from zoo.data.augment import AUGMENTATIONS
from zoo.errors import TrainError
from zoo.optim.masks import DECAY_MASKS
from zoo.optim.segments import trained_segments
from zoo.seeds import Stream, torch_uniform
from zoo.spec.run import RunSpec
from zoo.train.batches import taken
from zoo.train.dynamic import DietRuns, Presented
from zoo.train.group import Group
from zoo.train.schedule import learning_rates
from zoo.train.segment import current_rates
from zoo.train.step import Recipe, State
from zoo.train.task_data import TaskData

__all__ = ["reference_segment"]

Steps = NDArray[np.int64]


class _CountedDropout(nn.Module):
    """Dropout whose mask is drawn from (seed, step, layer), as the stacked engine draws it."""

    def __init__(self, rate: float, seed: int, layer: int) -> None:
        super().__init__()
        self.rate, self.seed, self.layer = rate, seed, layer
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the masked input; the counter runs over positions, channels last."""
        if not self.training:
            return x
        last = x.movedim(1, -1)
        index = torch.tensor([self.step * LAYERS + self.layer])
        u = torch_uniform(torch.tensor([self.seed]), int(Stream.DROPOUT), index, x.numel())
        keep = (u.view(last.shape) >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * keep.movedim(-1, 1)


def reference_segment(
    recipe: Recipe, data: TaskData, group: Group, state: State, start: Steps, stop: Steps
) -> dict[str, Tensor]:
    """Train a group's models one after another; arguments and result as ``stacked_segment``.

    Raises:
        TrainError: the cohort computes in less than float32.
    """
    if recipe.dtype is not torch.float32:
        msg = "the reference backend computes in float32; use eager or compiled for bfloat16"
        raise TrainError(msg)
    G = len(group.runs)
    nothing = torch.full((G,), float("nan"), dtype=torch.float64)
    norms = {"grad_norm": nothing, "update_norm": nothing.clone()}
    for g in range(group.real):
        if bool(state.active[g]):
            with torch.enable_grad():
                grad, moved = _train_one(
                    recipe, data, group, state, g, range(int(start[g]), int(stop[g]))
                )
            norms["grad_norm"][g] = grad
            norms["update_norm"][g] = moved
    return {"step_lr": current_rates(group, stop - 1), **norms}


def _train_one(
    recipe: Recipe, data: TaskData, group: Group, state: State, g: int, steps: range
) -> tuple[float, float]:
    """Train one model, write its row and moments back; return its last norms."""
    run, layout = group.runs[g], recipe.network.layout
    module = _counted(recipe, group, g).train()
    load_row(module, layout, state.slab[g].numpy())
    optimizer = _optimizer(recipe, module, run, state, g, steps.start)
    rates = learning_rates(run, np.arange(steps.start, steps.stop))
    settings = {name: values[g : g + 1] for name, values in group.inputs.settings.items()}
    grad = moved = float("nan")
    for step, rate in zip(steps, rates, strict=True):
        ids, x, y = _batch(recipe, data, group, g, step)
        for layer in module.modules():
            if isinstance(layer, _CountedDropout):
                layer.step = step
        for parameters in optimizer.param_groups:
            parameters["lr"] = float(rate)
        z = module(x).flatten(1).unsqueeze(0)
        each = recipe.objective.trained(z, y, settings)[0]
        if recipe.dynamic is not None:
            seen = Presented(ids[None], recipe.objective, z.detach(), y, torch.tensor([step]))
            each = _weights(recipe, group, state, g, seen) * each
        if group.inputs.weight is not None:
            each = each * group.inputs.weight[ids]
        loss = each.mean()
        if not torch.isfinite(loss):
            state.diverged[g] = step
            state.active[g] = False
            break
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        last = step == steps.stop - 1
        if last:
            before = [p.detach().clone() for p in module.parameters()]
            grad = _norm([p.grad for p in module.parameters() if p.grad is not None])
        if run.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), run.clip_norm)
        optimizer.step()
        if last:
            after = [p.detach() for p in module.parameters()]
            moved = _norm([b - a for a, b in zip(before, after, strict=True)])
    state.slab[g] = torch.from_numpy(state_dict_to_row(layout, module.state_dict()))
    named = dict(module.named_parameters())
    for segment in trained_segments(layout):
        held = optimizer.state.get(named[segment.name], {})
        for name, moment in zip(recipe.optimizer.moments, state.moments, strict=True):
            if held.get(name) is not None:
                moment[g, segment.offset : segment.stop] = held[name].detach().reshape(-1)
    return grad, moved


def _optimizer(
    recipe: Recipe, module: nn.Module, run: RunSpec, state: State, g: int, steps: int
) -> torch.optim.Optimizer:
    """Return the twin of the recipe's optimizer, as model g left it after ``steps`` steps."""
    named = dict(module.named_parameters())
    segments = trained_segments(recipe.network.layout)
    decayed = DECAY_MASKS[run.decay_mask]
    groups: list[dict[str, Any]] = [
        {"params": [named[s.name] for s in segments if s.role in decayed]},
        {"params": [named[s.name] for s in segments if s.role not in decayed], "weight_decay": 0.0},
    ]
    optimizer = recipe.optimizer.torch([group for group in groups if group["params"]], run)
    for segment in segments if steps > 0 else ():
        parts = {
            name: moment[g, segment.offset : segment.stop].view(segment.shape).clone()
            for name, moment in zip(recipe.optimizer.moments, state.moments, strict=True)
        }
        held = {**recipe.optimizer.torch_state(run, steps), **parts}
        optimizer.state[named[segment.name]] = held
    return optimizer


def _weights(recipe: Recipe, group: Group, state: State, g: int, seen: Presented) -> Tensor:
    """Return the weights ``[B]`` of a dynamic diet, and let it remember the batch."""
    method, diet = recipe.dynamic, group.inputs.diet
    if method is None or diet is None:
        return torch.ones(seen.ids.shape[1])
    one = slice(g, g + 1)
    own = DietRuns(diet.counts[:, one], diet.options[:, one])
    weights, memory = method.weigh(seen, own, tuple(m[one] for m in state.memory))
    for held, value in zip(state.memory, memory, strict=True):
        held[one] = value
    return weights[0]


def _counted(recipe: Recipe, group: Group, g: int) -> nn.Module:
    module = recipe.network.module()
    for op in recipe.network.ops_of(Dropout):
        parent, _, leaf = op.path.rpartition(".")
        run = group.runs[g]
        counted = _CountedDropout(run.dropout, int(run.dropout_seed or 0), op.layer)
        module.get_submodule(parent).add_module(leaf, counted)
    return module


def _batch(
    recipe: Recipe, data: TaskData, group: Group, g: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids ``[B]``, examples ``[B, *example_shape]`` and their targets ``[1, B, ...]``."""
    numbers = np.full((1, len(group.runs)), step, dtype=np.int64)
    ids = torch.from_numpy(group.order.block(numbers)[0, g])
    fresh, seeds = recipe.fresh, group.inputs.order_seed
    if fresh is not None and seeds is not None:
        points, own_targets = fresh.draw(seeds[g : g + 1], torch.tensor([step]), len(ids))
        return ids, points[0], own_targets
    x = data.train_x[ids]
    name = str(recipe.shared["augmentation"])
    if name != "none":
        one = slice(g, g + 1)
        x = AUGMENTATIONS[name].apply(
            x.unsqueeze(0),
            group.inputs.augment_seed[one],
            torch.tensor([step]),
            group.inputs.strength[one],
        )[0]
    targets = group.inputs.targets
    own = slice(g, g + 1) if targets.ndim == 2 else slice(None)
    return ids, x, taken(targets[own], ids.unsqueeze(0))


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.cat([t.reshape(-1) for t in tensors]).double().norm())
