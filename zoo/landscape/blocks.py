"""From runs and their weights to blocks, and from blocks to values: what is computed together.

Blocks are of one size, the last one padded by repeating its last row, so that what a model gets
does not depend on its slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import Network
from zoo.architectures.init import initial_row_of
from zoo.arithmetic import pinned
from zoo.landscape.base import MODEL_METRICS, ModelBlock, applying
from zoo.landscape.cells import CELL_METRICS, CellBlock
from zoo.landscape.connectivity import CURVE_OPTIONS, PairData
from zoo.landscape.curvature import stable_curvature
from zoo.landscape.probes import (
    TrainingSet,
    held_out_probe,
    mixup_probe,
    published_set,
    strata,
    stratified_ids,
    train_probe,
    training_set,
)
from zoo.landscape.stacked import without_bad
from zoo.spec.run import RunSpec
from zoo.train.task_data import TaskData

__all__ = ["Models", "Wanted", "block_rows", "measure_models", "measure_pairs", "model_seed"]

#: Values of one example's activations, over all examples and models, that a block may keep.
_VALUES = 1 << 22
#: Values of a block's Lanczos basis.
_BASIS_VALUES = 1 << 26
_BASIS = 100
_MOST_ROWS = 64

_F64 = NDArray[np.float64]


def block_rows(network: Network, examples: int) -> int:
    """Return how many models are computed together; a function of the architecture alone.

    Args:
        network: the architecture.
        examples: of a probe.
    """
    by_values = _VALUES // max(1, examples * network.activations())
    by_basis = _BASIS_VALUES // (_BASIS * network.layout.trained)
    return int(max(1, min(by_values, by_basis, _MOST_ROWS)))


def model_seed(run_id: str) -> int:
    """Return the seed of a model's random directions: the first 32 bits of its run id."""
    return int(run_id[:8], 16)


def _padded(rows: Sequence[int], size: int) -> list[int]:
    return [*rows, *[rows[-1]] * (size - len(rows))]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What is to be measured.

    Args:
        metric: one of :data:`MODEL_METRICS` or :data:`CELL_METRICS`.
        options: of the metric.
        sizes: of the probes.
    """

    metric: str
    options: Mapping[str, Any]
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """n models of one architecture on one data set.

    Args:
        network: the architecture.
        data: the data set.
        runs: ``[n]`` resolved specs.
        weights: ``[n, P]``; a row with NaN gives NaN.
        kept: run id → ids of the examples that its diet keeps.
    """

    network: Network
    data: TaskData
    runs: Sequence[RunSpec]
    weights: NDArray[np.float32]
    kept: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


@pinned(gradients="off")
def measure_models(wanted: Wanted, models: Models, lr: _F64) -> dict[str, _F64]:
    """Return a metric's columns ``[n, ...]`` for n models of one cohort.

    Args:
        wanted: a metric of models.
        models: the models.
        lr: ``[n]`` learning rate at the checkpoint.
    """
    metric, options, sizes = wanted.metric, wanted.options, wanted.sizes
    network, data, runs = models.network, models.data, models.runs
    entry = MODEL_METRICS[metric]
    test = held_out_probe(data, sizes["test"])
    slab, fine = without_bad(torch.from_numpy(np.asarray(models.weights, dtype=np.float32)))
    sets = _training_sets(runs, data, models.kept)
    out: dict[str, Tensor] = {}
    for alike in _alike([len(s.ids) for s in sets]):
        size = min(block_rows(network, sizes["train"]), len(alike))
        for start in range(0, len(alike), size):
            real = alike[start : start + size]
            rows = _padded(real, size)
            edges = [stable_curvature(runs[row], float(lr[row])) for row in rows]
            block = ModelBlock(
                network=network,
                slab=slab[rows],
                initial=_initial(network, [runs[row] for row in rows]),
                train=train_probe([sets[row] for row in rows], data, sizes["train"]),
                test=test,
                seeds=torch.tensor([model_seed(runs[row].run_id) for row in rows]),
                edge=torch.tensor(edges, dtype=torch.float64),
                classes=data.prepared.classes,
            )
            values = entry.compute(block, options)
            for column in applying(entry.columns, data.objective):
                own = values[column.name][: len(real)].double()
                known = fine[real].view(-1, *[1] * (own.dim() - 1))
                own = torch.where(known, own, column.missing)
                empty = own.new_empty(len(runs), *own.shape[1:])
                out.setdefault(column.name, empty)[real] = own
    return {name: values.numpy() for name, values in out.items()}


def _alike(counts: Sequence[int]) -> list[list[int]]:
    """Return positions by equal counts: sets of one size go together, in tensors of one shape."""
    found: dict[int, list[int]] = {}
    for position, count in enumerate(counts):
        found.setdefault(count, []).append(position)
    return list(found.values())


def _initial(network: Network, runs: Sequence[RunSpec]) -> Tensor:
    """Return the rows ``[G, P]`` that runs started from."""
    return torch.from_numpy(np.stack([initial_row_of(network, run) for run in runs]))


def _training_sets(
    runs: Sequence[RunSpec], data: TaskData, kept: Mapping[str, NDArray[np.int64]]
) -> list[TrainingSet]:
    """Return what each run was trained on; one object for runs that are told apart by nothing."""
    made: dict[tuple[Any, ...], TrainingSet] = {}
    found = []
    for run in runs:
        own = kept.get(run.run_id)
        key = (run.train_size, run.label_noise, run.noise_seed, None if own is None else run.run_id)
        if key not in made:
            made[key] = training_set(run, data, own)
        found.append(made[key])
    return found


def _pair_set(first: TrainingSet, second: TrainingSet, published: TrainingSet) -> TrainingSet:
    """Return what a pair is measured on: its training set, or the published one if they differ."""
    return first if first.same_as(second) else published


@pinned(gradients="off")
def measure_pairs(
    wanted: Wanted, models: Models, pairs: Sequence[tuple[int, int]]
) -> dict[str, _F64]:
    """Return a metric's columns ``[Q, ...]`` for Q pairs among n models of one architecture.

    Args:
        wanted: a metric of cells.
        models: the models.
        pairs: positions of each pair's models.
    """
    metric, options, sizes = wanted.metric, wanted.options, wanted.sizes
    network, data, runs = models.network, models.data, models.runs
    entry = CELL_METRICS[metric]
    slab, fine = without_bad(torch.from_numpy(np.asarray(models.weights, dtype=np.float32)))
    sets = _training_sets(runs, data, models.kept)
    published = published_set(data)
    meant = [_pair_set(sets[a], sets[b], published) for a, b in pairs]
    examples = max(sizes["train"], options.get("statistics", CURVE_OPTIONS["statistics"]))
    mixup, test = mixup_probe(data, sizes["mixup"]), held_out_probe(data, sizes["test"])
    out: dict[str, Tensor] = {}
    for alike in _alike([len(s.ids) for s in meant]):
        own = [pairs[q] for q in alike]
        block = CellBlock(
            network=network,
            slab=slab,
            fine=fine,
            first=torch.tensor([a for a, _ in own]),
            second=torch.tensor([b for _, b in own]),
            mixup=mixup,
            test=test,
            pair_data=partial(_pair_data, runs, own, [meant[q] for q in alike], data, sizes),
            group=min(block_rows(network, examples), len(own)),
        )
        found = entry.compute(block, options)
        for column in applying(entry.columns, data.objective):
            values = found[column.name]
            empty = values.new_empty(len(pairs), *values.shape[1:])
            out.setdefault(column.name, empty)[alike] = values
    return {name: values.numpy() for name, values in out.items()}


def _shuffled(found: TrainingSet, data: TaskData) -> NDArray[np.int64]:
    return found.ids[stratified_ids(strata(data.prepared.train_y)[found.ids], len(found.ids))]


def _pair_data(
    runs: Sequence[RunSpec],
    pairs: Sequence[tuple[int, int]],
    meant: Sequence[TrainingSet],
    data: TaskData,
    sizes: Mapping[str, int],
    chosen: Sequence[int],
) -> PairData:
    """Return what the chosen pairs are trained and measured on; their sets are of one size."""
    ends = [(runs[pairs[q][0]], runs[pairs[q][1]]) for q in chosen]
    seeds = [model_seed(a.run_id) ^ model_seed(b.run_id) for a, b in ends]
    sets = [meant[q] for q in chosen]
    if all(s.same_as(sets[0]) for s in sets):
        sets = sets[:1]
    return PairData(
        x=data.train_eval,
        targets=torch.from_numpy(np.stack([s.labels for s in sets])),
        # in random order, so that the first of them can stand for all
        ids=torch.from_numpy(np.stack([_shuffled(s, data) for s in sets])),
        probe=train_probe(sets, data, sizes["train"]),
        seeds=torch.tensor(seeds),
        ends_lr=torch.tensor([max(a.lr, b.lr) for a, b in ends], dtype=torch.float64),
        weight=data.sets["train"].weight,
    )
