"""From runs and their weights to blocks, and from blocks to values: what is computed together.

Blocks are of one size, the last one padded by repeating its last row, so that what a model gets
does not hang on its slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import Network, initial_row
from zoo.landscape.base import MODEL_METRICS, Block
from zoo.landscape.cells import CELL_METRICS, CellBlock
from zoo.landscape.connectivity import CURVE_OPTIONS, PairData
from zoo.landscape.curvature import stable_curvature
from zoo.landscape.probes import (
    TrainingSet,
    held_out_probe,
    mixup_probe,
    train_probe,
    training_set,
)
from zoo.landscape.stacked import without_bad
from zoo.spec.run import RunSpec
from zoo.train.task_data import TaskData

__all__ = ["block_rows", "measure_models", "measure_pairs", "model_seed"]

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


def measure_models(
    metric: str,
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    network: Network,
    data: TaskData,
    runs: Sequence[RunSpec],
    weights: NDArray[np.float32],
    lr: _F64,
) -> dict[str, _F64]:
    """Return a metric's columns ``[n, ...]`` for n models of one cohort.

    Args:
        metric: one of :data:`MODEL_METRICS`.
        options: of the metric.
        sizes: of the probes.
        network: the architecture.
        data: the data set.
        runs: ``[n]`` resolved specs.
        weights: ``[n, P]``; a row with NaN gives NaN.
        lr: ``[n]`` learning rate at the checkpoint.
    """
    entry = MODEL_METRICS[metric]
    size = min(block_rows(network, sizes["train"]), len(runs))
    test = held_out_probe(data, sizes["test"])
    slab, fine = without_bad(torch.from_numpy(np.asarray(weights, dtype=np.float32)))
    found: dict[str, list[Tensor]] = {column.name: [] for column in entry.columns}
    for start in range(0, len(runs), size):
        real = list(range(start, min(start + size, len(runs))))
        rows = _padded(real, size)
        chosen = [runs[row] for row in rows]
        initial = [
            initial_row(network.layout, init=r.init, scale=r.init_scale, seed=int(r.init_seed or 0))
            for r in chosen
        ]
        edges = [stable_curvature(runs[row], float(lr[row])) for row in rows]
        block = Block(
            network=network,
            slab=slab[rows],
            initial=torch.from_numpy(np.stack(initial)),
            train=train_probe([training_set(r, data) for r in chosen], data, sizes["train"]),
            test=test,
            seeds=torch.tensor([model_seed(r.run_id) for r in chosen]),
            edge=torch.tensor(edges, dtype=torch.float64),
            classes=data.prepared.classes,
        )
        values = entry.compute(block, options)
        for column in entry.columns:
            kept = values[column.name][: len(real)].double()
            known = fine[real].view(-1, *[1] * (kept.dim() - 1))
            found[column.name].append(torch.where(known, kept, column.missing))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _pair_set(a: RunSpec, b: RunSpec, data: TaskData) -> TrainingSet:
    """Return what a pair is measured on: its training set, or the published one if they differ."""
    first, second = training_set(a, data), training_set(b, data)
    same = np.array_equal(first.ids, second.ids) and np.array_equal(first.labels, second.labels)
    if same:
        return first
    labels = data.prepared.train_y
    return TrainingSet(np.arange(len(labels)), labels, own=False)


def _pair_data(
    sets: Sequence[TrainingSet], data: TaskData, seeds: Tensor, lr: Tensor, sizes: Mapping[str, int]
) -> PairData:
    if not any(s.own for s in sets):
        labels = torch.from_numpy(np.array(sets[0].labels))[None]
        ids = torch.arange(labels.shape[1])[None]
    else:
        labels = torch.from_numpy(np.stack([s.labels for s in sets]))
        width = max(len(s.ids) for s in sets)
        padded = [np.pad(s.ids, (0, width - len(s.ids)), constant_values=-1) for s in sets]
        ids = torch.from_numpy(np.stack(padded))
    probe = train_probe(sets, data, sizes["train"])
    return PairData(data.train_eval, labels, ids, probe, seeds, lr)


def measure_pairs(
    metric: str,
    options: Mapping[str, Any],
    sizes: Mapping[str, int],
    network: Network,
    data: TaskData,
    runs: Sequence[RunSpec],
    weights: NDArray[np.float32],
    pairs: Sequence[tuple[int, int]],
) -> dict[str, _F64]:
    """Return a metric's columns ``[Q, ...]`` for Q pairs among n models of one architecture.

    Args:
        metric: one of :data:`CELL_METRICS`.
        options, sizes, network, data, runs, weights: as :func:`measure_models` has them.
        pairs: positions of each pair's models.
    """
    entry = CELL_METRICS[metric]
    slab, fine = without_bad(torch.from_numpy(np.asarray(weights, dtype=np.float32)))
    least = CURVE_OPTIONS["least_lr"]
    share = CURVE_OPTIONS["lr_share"]
    examples = max(sizes["train"], CURVE_OPTIONS["statistics"])

    def pair_data(chosen: Sequence[int]) -> PairData:
        ends = [(runs[pairs[q][0]], runs[pairs[q][1]]) for q in chosen]
        seeds = [model_seed(a.run_id) ^ model_seed(b.run_id) for a, b in ends]
        lr = [max(least, share * max(a.lr, b.lr)) for a, b in ends]
        sets = [_pair_set(a, b, data) for a, b in ends]
        return _pair_data(sets, data, torch.tensor(seeds), torch.tensor(lr), sizes)

    block = CellBlock(
        network=network,
        slab=slab,
        fine=fine,
        first=torch.tensor([a for a, _ in pairs]),
        second=torch.tensor([b for _, b in pairs]),
        mixup=mixup_probe(data, sizes["mixup"]),
        test=held_out_probe(data, sizes["test"]),
        pair_data=pair_data,
        group=min(block_rows(network, examples), max(len(pairs), 1)),
    )
    return {name: value.numpy() for name, value in entry.compute(block, options).items()}
