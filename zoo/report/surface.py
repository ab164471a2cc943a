"""The training loss over a plane of weight space: around one model, and through three.

*Around one model*: two random directions whose every filter has the norm of the model's own filter
(Li et al. 2018, arXiv 1712.09913), so that models of other scales can be compared; biases and norms
are not moved. *Through three models*: the plane of three minima, orthonormal axes (Garipov et al.
2018, arXiv 1802.10026).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.architectures import Network, build
from zoo.arithmetic import pinned
from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.landscape.batch_stats import with_fresh_statistics
from zoo.landscape.probes import train_probe, training_set
from zoo.landscape.stacked import Probe, losses
from zoo.seeds import Stream, normal
from zoo.train.task_data import task_data

__all__ = ["Surface", "loss_around", "loss_through"]

#: Points a side; models a forward pass; examples.
POINTS, _GROUP, EXAMPLES = 31, 31, 512
#: Beyond the models, in shares of their distance.
_MARGIN = 0.35
#: Numbers of the stream, above those of the resampling.
_DIRECTION = 1 << 32

_F64 = NDArray[np.float64]
_F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The loss over a plane.

    Args:
        x, y: ``[n]`` coordinates of the points.
        loss: ``[n, n]`` mean training loss in nats, y first; NaN where it is not finite.
        models: ``[m, 2]`` where the models are.
        unit: of the coordinates, in words.
    """

    x: _F64
    y: _F64
    loss: _F64
    models: _F64
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """Networks and data of a surface."""

    network: Network
    probe: Probe
    inputs: torch.Tensor
    rows: _F32


def _ground(zoo: Zoo, run_ids: Sequence[str], examples: int) -> _Ground:
    """Return what the loss of some runs of one cohort is measured with.

    Raises:
        QueryError: a run without a finite checkpoint, or runs that differ in their parameters.
        DataError: the data set is not the one that they were trained on.
    """
    places = [zoo.place(i) for i in run_ids]
    index = places[0][0]
    cohort = zoo.plan.cohorts[index]
    rows = []
    for run_id, (where, row) in zip(run_ids, places, strict=True):
        if zoo.plan.cohorts[where].layout != cohort.layout:
            msg = f"run {run_id} has other parameters than {run_ids[0]}; name runs of one cell"
            raise QueryError(msg)
        recorded = np.flatnonzero(zoo.tables[where].recorded[row])
        if not len(recorded):
            msg = f"run {run_id} has no recorded checkpoint"
            raise QueryError(msg)
        last = np.array([recorded[-1]])
        rows.append(zoo.source.cohorts[where].read_weights(np.array([row]), last)[0])
    run = cohort.runs[places[0][1]]
    network = build(run, cohort.data_shape)
    data = task_data(zoo.plan, cohort, network, zoo.data_paths, torch.device("cpu"))
    chosen = training_set(run, data)
    probe = train_probe([chosen], data, examples)
    inputs = data.train_eval[torch.from_numpy(chosen.ids[: 4 * examples])][None]
    return _Ground(network, probe, inputs, np.stack(rows))


@pinned(gradients="off")
def loss_around(
    zoo: Zoo, run_id: str, *, reach: float = 1.0, points: int = POINTS, examples: int = EXAMPLES
) -> Surface:
    """Return the loss around a run's last checkpoint, over two random filter-normalised directions.

    Args:
        zoo: the zoo.
        run_id: the run; its id decides the directions.
        reach: how far, in norms of the filters.
        points: n, a side.
        examples: training examples, of those that the run was trained on.

    Raises:
        UnknownNameError: no such run.
        QueryError: it has no finite checkpoint.
        DataError: the data set here is another one.
    """
    ground = _ground(zoo, [zoo.run(run_id).run_id], examples)
    origin = ground.rows[0].astype(np.float64)
    seed = int(zoo.run(run_id).run_id[:8], 16)
    first, second = (_direction(ground.network, origin, seed, number) for number in (0, 1))
    # so that the two span a square and no diamond
    overlap = first @ second / max(float(first @ first), 1e-30)
    second = second - overlap * first
    at = np.linspace(-reach, reach, points)
    loss = _losses(ground, origin, first, second, at, at)
    return Surface(at, at, loss, np.zeros((1, 2)), "norms of the filters")


@pinned(gradients="off")
def loss_through(
    zoo: Zoo, run_ids: Sequence[str], *, points: int = POINTS, examples: int = EXAMPLES
) -> Surface:
    """Return the loss over the plane through the last checkpoints of three runs.

    Args:
        zoo: the zoo.
        run_ids: three runs with the same parameters.
        points: n, a side.
        examples: training examples, of those that the first run was trained on.

    Raises:
        UnknownNameError: no such run.
        QueryError: not three runs, other parameters, or no finite checkpoint.
        DataError: the data set here is another one.
    """
    if len(run_ids) != 3:
        msg = f"a plane goes through three runs, not {len(run_ids)}"
        raise QueryError(msg)
    ground = _ground(zoo, run_ids, examples)
    a, b, c = ground.rows.astype(np.float64)
    u, v = b - a, c - a
    length = float(np.linalg.norm(u)) or 1.0
    first = u / length
    along = float(v @ first)
    rest = v - along * first
    height = float(np.linalg.norm(rest)) or 1.0
    second = rest / height
    models = np.array([[0.0, 0.0], [length, 0.0], [along, height]])
    low, high = models.min(0), models.max(0)
    side = float((high - low).max()) * (1 + 2 * _MARGIN)
    middle = (low + high) / 2
    x, y = (np.linspace(m - side / 2, m + side / 2, points) for m in middle)
    return Surface(x, y, _losses(ground, a, first, second, x, y), models, "distance of weights")


def _direction(network: Network, origin: _F64, seed: int, number: int) -> _F64:
    """Return a random direction whose filters have the norms of the model's."""
    drawn = normal(seed, Stream.PHASES, _DIRECTION + number, len(origin))
    out = np.zeros_like(origin)
    for segment in network.layout.segments:
        if len(segment.shape) < 2 or segment.offset >= network.layout.trained:
            continue
        here = slice(segment.offset, segment.stop)
        d = drawn[here].reshape(segment.shape[0], -1)
        w = origin[here].reshape(segment.shape[0], -1)
        scale = np.linalg.norm(w, axis=1) / np.maximum(np.linalg.norm(d, axis=1), 1e-30)
        out[here] = (d * scale[:, None]).ravel()
    return out


def _losses(ground: _Ground, origin: _F64, first: _F64, second: _F64, x: _F64, y: _F64) -> _F64:
    """Return the loss at origin + x first + y second, ``[len(y), len(x)]``."""
    b, a = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    found = np.full(len(a), np.nan)
    with torch.no_grad():
        for start in range(0, len(a), _GROUP):
            part = slice(start, start + _GROUP)
            moved = origin + np.outer(a[part], first) + np.outer(b[part], second)
            slab = torch.from_numpy(moved.astype(np.float32))
            slab = with_fresh_statistics(ground.network, slab, ground.inputs)
            found[part] = losses(ground.network, slab, ground.probe).numpy()
    found[~np.isfinite(found)] = np.nan
    return found.reshape(len(y), len(x))
