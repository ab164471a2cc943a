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
from zoo.errors import DataError
from zoo.objectives import OBJECTIVES, Objective
from zoo.spec.plugged import check_plugins
from zoo.train.plan import Cohort, Plan

__all__ = ["TaskData", "cohort_objective", "planned_data", "task_data"]


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """One data set on the device, as training and evaluation take it.

    Args:
        prepared: the normalised arrays.
        train_x: ``[N, *example_shape]`` training examples.
        train: the same as the step gathers them: stacked form unless they are augmented.
        train_eval: the same in the stacked form ``[N, T, C]``.
        test: test examples in the stacked form.
        test_y: ``[1, N_test]`` labels, or ``[1, N_test, C]`` values.
        objective: what the cohort minimises.
        probe: probe examples in the stacked form, or None.
    """

    prepared: PreparedData
    train_x: Tensor
    train: Tensor
    train_eval: Tensor
    test: Tensor
    test_y: Tensor
    probe: Tensor | None
    objective: Objective


def cohort_objective(cohort: Cohort) -> Objective:
    """Return what the runs of a cohort minimise.

    Raises:
        PluginMissingError: it is of a plug-in that is not loaded.
    """
    check_plugins(cohort.runs[0])
    return OBJECTIVES[cohort.runs[0].objective](str(cohort.key.get("target", "class")))


def planned_data(plan: Plan, name: str, paths: Mapping[str, str]) -> Dataset:
    """Return a data set, if it is the one that a plan was made with.

    Raises:
        MissingDataError: it is not on this machine.
        DataError: it is another one.
        PluginMissingError: it is of a plug-in that is not loaded.
    """
    wanted = plan.data[name]["fingerprint"]
    if name not in DATASETS:
        for cohort in plan.cohorts:
            if cohort.runs[0].data == name:
                check_plugins(cohort.runs[0])
    dataset = load(name, path=paths.get(name))
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
    name = str(cohort.key["data"])
    dataset = planned_data(plan, name, paths)
    prepared = _prepared(dataset, str(cohort.key["normalization"]))
    train = _tensor(prepared.train_x).to(device)
    test = _tensor(prepared.test_x).to(device)
    stacked = network.inputs(train)
    probes = plan.data[name]["probe_indices"]
    return TaskData(
        prepared=prepared,
        train_x=train,
        train=stacked if cohort.key["augmentation"] == "none" else train,
        train_eval=stacked,
        test=network.inputs(test),
        test_y=_tensor(prepared.test_y).to(device).unsqueeze(0),
        probe=network.inputs(test[probes]) if probes else None,
        objective=cohort_objective(cohort),
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    # Data sets are read-only arrays shared by the process; torch wants memory of its own.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
