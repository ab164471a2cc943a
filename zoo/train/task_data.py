"""The data set of a task, checked against the plan and laid out for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import Network
from zoo.data import DATASETS, Dataset, PreparedData, load, prepare
from zoo.data.splits import DataSplit
from zoo.errors import DataError
from zoo.objectives import Objective, objective_for
from zoo.spec.plugged import check_plugins
from zoo.train.fresh import FreshExamples, fresh_examples
from zoo.train.plan import Cohort, Plan
from zoo.train.samplers import SAMPLERS

__all__ = [
    "ExampleSet", "TaskData", "cohort_objective", "planned_data", "split_inputs", "split_targets",
    "task_data",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSet:
    """One split on the device.

    Args:
        x: ``[N, T, C]`` examples in the stacked form.
        y: ``[1, N]`` labels, or ``[1, N, ...]`` labels of positions or values.
        weight: ``[N]`` float32, or None: all alike.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """One data set on the device, as training and evaluation take it.

    Args:
        prepared: the normalised arrays.
        train_x: ``[N, *example_shape]`` training examples.
        train: the same as the step gathers them: stacked form unless they are augmented.
        sets: split -> its examples in the stacked form, targets and weights.
        objective: what the cohort minimises.
        probe: probe examples in the stacked form, or None.
        fresh: where fresh examples come from, if the cohort trains on them.
    """

    prepared: PreparedData
    train_x: Tensor
    train: Tensor
    sets: Mapping[str, ExampleSet]
    objective: Objective
    probe: Tensor | None
    fresh: FreshExamples | None = None

    @property
    def train_eval(self) -> Tensor:
        """Training examples in the stacked form ``[N, T, C]``."""
        return self.sets["train"].x

    @property
    def test(self) -> Tensor:
        """Test examples in the stacked form."""
        return self.sets["test"].x


def cohort_objective(cohort: Cohort) -> Objective:
    """Return what the runs of a cohort minimise.

    Raises:
        PluginMissingError: it is of a plug-in that is not loaded.
    """
    check_plugins(cohort.runs[0])
    return objective_for(cohort.runs[0].objective, cohort.data_shape)


def planned_data(plan: Plan, key: str, paths: Mapping[str, str]) -> Dataset:
    """Return a data set, if it is the one that a plan was made with.

    Args:
        plan: the plan.
        key: of one of its data sets: the name, with options where it has some.
        paths: data set -> path.

    Raises:
        MissingDataError: it is not on this machine.
        DataError: it is another one.
        PluginMissingError: it is of a plug-in that is not loaded.
    """
    facts = plan.data[key]
    name, wanted = str(facts["name"]), facts["fingerprint"]
    if name not in DATASETS:
        for cohort in plan.cohorts:
            if cohort.runs[0].data == name:
                check_plugins(cohort.runs[0])
    dataset = load(name, path=paths.get(name), **facts["options"])
    if dataset.fingerprint != wanted:
        msg = (
            f"data set {name!r} has changed since the zoo was planned: its sha256 is"
            f" {dataset.fingerprint}, the plan says {wanted}; give the path of the original by"
            f" --data '{name}=PATH' (paths={{{name!r}: ...}} in Python), or start a new store"
        )
        raise DataError(msg)
    return dataset


@lru_cache(maxsize=4)
def _prepared(dataset: Dataset, normalization: str) -> PreparedData:
    return prepare(dataset, normalization)


def task_data(
    plan: Plan, cohort: Cohort, network: Network, paths: Mapping[str, str], device: torch.device
) -> TaskData:
    """Load, check, normalise and lay out a cohort's data set on a device.

    Raises:
        DataError: it is not the one that was planned with.
    """
    key = plan.data_key(cohort.runs[0])
    dataset = planned_data(plan, key, paths)
    prepared = _prepared(dataset, str(cohort.key["normalization"]))
    inputs = {name: split_inputs(split).to(device) for name, split in prepared.splits.items()}
    sets = {
        name: ExampleSet(
            x=network.inputs(inputs[name]),
            y=split_targets(split).to(device).unsqueeze(0),
            weight=None if split.weight is None else _tensor(split.weight).to(device),
        )
        for name, split in prepared.splits.items()
    }
    train = inputs["train"]
    probes = plan.data[key]["probe_indices"]
    return TaskData(
        prepared=prepared,
        train_x=train,
        train=sets["train"].x if cohort.key["augmentation"] == "none" else train,
        sets=sets,
        probe=network.inputs(inputs["test"][probes]) if probes else None,
        objective=cohort_objective(cohort),
        fresh=fresh_examples(prepared, device) if SAMPLERS[cohort.runs[0].sampler].fresh else None,
    )


def split_inputs(split: DataSplit) -> Tensor:
    """Return the input of a split; windows are a view of one copy of their sequence."""
    if split.sequence is None:
        return _tensor(split.x)
    return _tensor(split.sequence)[:-1].unfold(0, split.context, split.stride)


def split_targets(split: DataSplit) -> Tensor:
    """Return the targets of a split, of windows of tokens as a view."""
    if split.sequence is None or split.sequence.ndim > 1:
        return _tensor(split.y)
    return _tensor(split.sequence)[1:].unfold(0, split.context, split.stride)


def _tensor(array: NDArray[Any]) -> Tensor:
    # Data sets are read-only arrays shared by the process; torch wants memory of its own.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
