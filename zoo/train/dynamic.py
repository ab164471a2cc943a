"""Dynamic diets: weights on the examples of a batch, worked out while training.

A method sees each model's batch as it is presented, and returns a weight per example; the loss of
the step is the weighted mean. What it must remember is a tuple of tensors that belongs to the
training state, and its random numbers are counted by (diet seed, step or epoch): so a model on a
dynamic diet keeps its bits whatever its neighbours, and wherever it was interrupted. The methods
are in ``zoo/diets/dynamic``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.fields import Fields
from zoo.objectives import Objective
from zoo.registry import Registry
from zoo.spec.run import RunSpec

__all__ = ["DYNAMICS", "DietRuns", "Dynamic", "Memory", "Presented", "diet_runs", "option_table"]

#: What a method remembers, each tensor with the model axis first.
Memory = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DietRuns:
    """What a method knows of the runs of a group.

    Args:
        counts: ``[4, G]`` int64: diet seed, steps an epoch, steps in all, examples.
        options: ``[n, G]`` float64, one row for each of the method's fields, in their order.
    """

    counts: Tensor
    options: Tensor

    @property
    def seed(self) -> Tensor:
        """``[G]`` diet seeds."""
        return self.counts[0]

    @property
    def per_epoch(self) -> Tensor:
        """``[G]`` steps an epoch."""
        return self.counts[1]

    @property
    def total(self) -> Tensor:
        """``[G]`` steps in all."""
        return self.counts[2]


@dataclass(frozen=True, slots=True, eq=False)
class Presented:
    """A batch of each of G models, seen before the update.

    Args:
        ids: ``[G, B]`` example ids.
        objective: what is minimised.
        outputs: ``[G, B, C]`` float32.
        targets: ``[G, B]`` int64 labels, or ``[G, B, C]`` floats.
        step: ``[G]`` int64, each model's own step.
    """

    ids: Tensor
    objective: Objective
    outputs: Tensor
    targets: Tensor
    step: Tensor

    def losses(self) -> Tensor:
        """Return the plain loss of each example, ``[G, B]``."""
        return self.objective.losses(self.outputs, self.targets)

    def errors(self) -> Tensor:
        """Return the gradient of each example's plain loss at its outputs, ``[G, B, C]``."""
        return self.objective.gradient(self.outputs, self.targets)


class Dynamic(ABC):
    """One method; stateless but for what :meth:`memory` starts with."""

    #: Conditional run-spec fields that it reads.
    fields: ClassVar[Fields] = {}

    def memory(self, models: int, examples: int, device: torch.device) -> Memory:
        """Return what is remembered before the first step."""
        return ()

    def option(self, runs: DietRuns, name: str) -> Tensor:
        """Return one field of every model, ``[G, 1]`` float64."""
        return runs.options[list(self.fields).index(name)].unsqueeze(1)

    @abstractmethod
    def weigh(self, seen: Presented, runs: DietRuns, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights ``[G, B]`` float32 (all 1: as without a diet) and the new memory."""


@dataclass(frozen=True, slots=True)
class _NoDynamic:
    """No dynamic diet."""


DYNAMICS: Registry[Any] = Registry("dynamic diet", field="dynamic")
DYNAMICS.register("none", doc="no dynamic diet")(_NoDynamic())


def option_table(method: Dynamic, runs: Sequence[RunSpec]) -> Tensor:
    """Return the method's fields of every run, ``[n, G]`` float64."""
    rows = [[float(getattr(run, name)) for run in runs] for name in method.fields]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(method.fields), len(runs))


def diet_runs(method: Dynamic, runs: Sequence[RunSpec], examples: Sequence[int]) -> DietRuns:
    """Return what a method knows of a group.

    Args:
        method: the method.
        runs: G resolved specs.
        examples: how many examples each trains on.
    """
    columns = [
        (int(run.diet_seed or 0), max(count // run.batch_size, 1), int(run.steps or 0), count)
        for run, count in zip(runs, examples, strict=True)
    ]
    return DietRuns(
        torch.tensor(columns, dtype=torch.int64).T.contiguous(), option_table(method, runs)
    )
