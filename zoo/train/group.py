"""A group: G models that step together, the last ones dummies where the task runs out of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data import noisy_labels, training_subset
from zoo.errors import TrainError
from zoo.optim.base import Optimizer
from zoo.spec.run import RunSpec
from zoo.train.batches import DataOrder
from zoo.train.dynamic import DYNAMICS, DietRuns, diet_runs
from zoo.train.samplers import SAMPLERS
from zoo.train.schedule import group_rates
from zoo.train.step import Inputs
from zoo.train.task_data import TaskData

__all__ = ["Group", "coefficient_table", "make_group"]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The fixed side of a group.

    Args:
        runs: G specs; those from ``real`` on repeat the last real one and are never live.
        steps: ``[G, K]`` step of each checkpoint.
        real: rows that are models of the zoo.
        inputs: what the step reads.
        order: the data order.
        eval_ids: ``[G, n]`` training examples to evaluate on, padded with −1, or None for all.
    """

    runs: tuple[RunSpec, ...]
    steps: NDArray[np.int64]
    real: int
    inputs: Inputs
    order: DataOrder
    eval_ids: Tensor | None


def make_group(
    runs: Sequence[RunSpec],
    steps: NDArray[np.int64],
    size: int,
    data: TaskData,
    *,
    subset: bool,
    kept: Mapping[str, NDArray[np.int64]] | None = None,
) -> Group:
    """Return the group of ``runs``, padded with dummies to ``size``.

    Args:
        runs: resolved specs of the real rows, at most ``size``.
        steps: ``[len(runs), K]`` step of each checkpoint.
        size: G.
        data: the cohort's data set.
        subset: whether the cohort's runs train on parts of the training set.
        kept: run id to the sorted ids of the examples that its static diet keeps.

    Raises:
        TrainError: ``kept`` lacks a run on a diet, or has another number of examples for it.
    """
    short = size - len(runs)
    device = data.train.device
    padded = (*runs, *(runs[-1],) * short)
    steps = np.concatenate([steps, np.repeat(steps[-1:], short, axis=0)])
    count = data.prepared.train_x.shape[0]
    subsets: list[NDArray[np.int64] | None] = [None] * size
    if subset:
        subsets = [_examples(run, count, kept or {}) for run in padded]
    inputs = Inputs(
        x=data.train,
        targets=_targets(padded, data).to(device),
        rate=_floats(padded, "dropout").to(device),
        dropout_seed=_ints(padded, "dropout_seed").to(device),
        augment_seed=_ints(padded, "augment_seed").to(device),
        strength=_floats(padded, "augment_strength").to(device),
        diet=_diet(padded, device),
        settings={n: v.to(device) for n, v in data.objective.settings(padded).items()},
        weight=data.sets["train"].weight,
        order_seed=_ints(padded, "order_seed").to(device),
    )
    order = SAMPLERS[runs[0].sampler].of(padded, subsets)
    ids = _padded_ids(subsets)
    ids = None if ids is None else ids.to(device)
    return Group(padded, steps, len(runs), inputs, order, ids)


def _targets(runs: Sequence[RunSpec], data: TaskData) -> Tensor:
    """Return every run's labels ``[G, N]``, or what all are trained on, ``[1, N, ...]``."""
    values = data.prepared.train_y
    if values.ndim > 1:
        return data.sets["train"].y
    classes = data.prepared.classes
    noisy = [
        noisy_labels(values, classes, noise=run.label_noise, seed=int(run.noise_seed or 0))
        for run in runs
    ]
    return torch.from_numpy(np.stack(noisy))


def _examples(run: RunSpec, count: int, kept: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the sorted ids of the examples that a run trains on, of ``count``."""
    if run.keep is None:
        size, seed = int(run.train_size or count), int(run.noise_seed or 0)
        return training_subset(count, size=size, seed=seed)
    ids = kept.get(run.run_id)
    if ids is None or len(ids) != run.examples:
        found = "have not been selected" if ids is None else f"are {len(ids)}"
        msg = (
            f"run {run.run_id} is on a diet of {run.examples} examples, which {found};"
            " `zoo score STORE` selects them, and `zoo run` does so by itself"
        )
        raise TrainError(msg)
    return ids


def _diet(runs: Sequence[RunSpec], device: torch.device) -> DietRuns | None:
    if runs[0].dynamic == "none":
        return None
    found = diet_runs(DYNAMICS[runs[0].dynamic], runs, [run.examples for run in runs])
    return DietRuns(found.counts.to(device), found.options.to(device))


def _floats(runs: Sequence[RunSpec], name: str) -> Tensor:
    return torch.tensor([float(getattr(run, name) or 0.0) for run in runs])


def _ints(runs: Sequence[RunSpec], name: str) -> Tensor:
    return torch.tensor([int(getattr(run, name)) for run in runs], dtype=torch.int64)


def _padded_ids(subsets: Sequence[NDArray[np.int64] | None]) -> Tensor | None:
    known = [ids for ids in subsets if ids is not None]
    if not known:
        return None
    width = max(len(ids) for ids in known)
    out = np.full((len(known), width), -1, dtype=np.int64)
    for row, ids in enumerate(known):
        out[row, : len(ids)] = ids
    return torch.from_numpy(out)


def coefficient_table(
    optimizer: Optimizer, runs: Sequence[RunSpec], steps: NDArray[np.int64]
) -> Tensor:
    """Return the optimizer's coefficients for steps ``[T, G]`` as ``[T, n, G, 1]`` float32."""
    names = optimizer.names(clipped=runs[0].clip_norm is not None)
    lr = group_rates(runs, steps)
    columns = optimizer.table(runs, lr, steps + 1)
    table = np.stack([np.broadcast_to(columns[n], lr.shape) for n in names], 1)
    return torch.from_numpy(table.astype(np.float32)).unsqueeze(-1)
