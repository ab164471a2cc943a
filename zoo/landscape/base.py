"""What a metric of models is: its columns, and a function of a block of stacked models.

To add one: a file of its own with one registered :class:`ModelMetric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.network import Network
from zoo.landscape.stacked import Probe
from zoo.objectives import Objective
from zoo.registry import Registry

__all__ = [
    "MODEL_METRICS",
    "Column",
    "ModelBlock",
    "ModelMetric",
    "applying",
    "layers",
    "mean_and_error",
]


@dataclass(frozen=True, slots=True, eq=False)
class ModelBlock:
    """G stacked models and what they are measured on.

    Args:
        network: the architecture.
        slab: ``[G, P]`` float32, finite.
        initial: ``[G, P]``, the same models before training.
        train: probe of training examples, with the labels that the models were trained on.
        test: probe of test examples.
        seeds: ``[G]`` int64, each model's own; from its run id.
        edge: ``[G]`` float64, the λ_max at which full-batch training is at the edge of stability;
            NaN where the optimizer has no such number.
        classes: C.
    """

    network: Network
    slab: Tensor
    initial: Tensor
    train: Probe
    test: Probe
    seeds: Tensor
    edge: Tensor
    classes: int

    @property
    def objective(self) -> Objective:
        """What the models minimise."""
        return self.train.objective

    @property
    def models(self) -> int:
        """G."""
        return int(self.slab.shape[0])


@dataclass(frozen=True, slots=True)
class Column:
    """One array of values.

    Args:
        name: of the column.
        doc: one line; ``{unit}`` stands for that of the loss, if it has one.
        dims: axes after those of model and checkpoint (or of pair).
        missing: value for a model whose weights are not finite.
        needs: of the objective; see :meth:`zoo.objectives.Objective.lack`.
    """

    name: str
    doc: str
    dims: tuple[str, ...] = ()
    missing: float = math.nan
    needs: str = ""

    def text(self, unit: str) -> str:
        """Return what the column is; ``unit`` of the loss, empty where it has none."""
        return self.doc.format(unit=f", {unit}" if unit else "")


def applying(columns: Sequence[Column], objective: Objective) -> list[Column]:
    """Return the columns that make sense of models that minimise ``objective``."""
    return [column for column in columns if not objective.lack(column.needs)]


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A metric of single models.

    Args:
        columns: what it gives.
        compute: returns for each column that applies ``[G, ...]`` float64 from a block and the
            options; no operation may mix models, and a row whose value is undefined is NaN.
        options: defaults of what the values depend on besides the block; part of their meaning.
        passes: rough cost, in passes over the probe, for planning.
        default: whether it is computed when nothing is asked for.
        needs: of the objective; see :meth:`zoo.objectives.Objective.lack`.
    """

    columns: tuple[Column, ...]
    compute: Callable[[ModelBlock, Mapping[str, Any]], dict[str, Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)
    passes: float = 1.0
    default: bool = True
    needs: str = ""


MODEL_METRICS: Registry[ModelMetric] = Registry("landscape metric")


def layers(network: Network) -> list[tuple[str, int, int]]:
    """Return (path, first column, one past the last) of every op with trained parameters."""
    found: dict[str, tuple[int, int]] = {}
    for s in network.layout.segments:
        if s.role != BUFFER:
            path = s.name.rpartition(".")[0]
            found[path] = (found.get(path, (s.offset, 0))[0], s.stop)
    return [(path, start, stop) for path, (start, stop) in found.items()]


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard error of draws ``[n, G, ...]``; NaN errors for a single draw."""
    n = values.shape[0]
    if n < 2:
        return values.mean(0), torch.full_like(values[0], torch.nan)
    return values.mean(0), values.std(0) / n**0.5
