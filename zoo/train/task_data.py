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
from zoo.data import PreparedData, load, prepare
from zoo.errors import DataError
from zoo.train.plan import Cohort, Plan

__all__ = ["TaskData", "check_fingerprint", "task_data"]


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """One data set on the device, as training and evaluation take it.

    Args:
        prepared: the normalised arrays.
        train_x: ``[N, *example_shape]`` training examples.
        train: the same as the step gathers them: stacked form unless they are augmented.
        train_eval: the same in the stacked form ``[N, T, C]``.
        test: test examples in the stacked form.
        test_y: ``[N_test]`` labels.
        probe: probe examples in the stacked form, or None.
    """

    prepared: PreparedData
    train_x: Tensor
    train: Tensor
    train_eval: Tensor
    test: Tensor
    test_y: Tensor
    probe: Tensor | None


def check_fingerprint(plan: Plan, name: str, paths: Mapping[str, str]) -> None:
    """Make sure that a data set is the one that a plan was made with.

    Raises:
        DataError: it is not.
    """
    wanted = plan.data[name]["fingerprint"]
    found = load(name, path=paths.get(name)).fingerprint
    if found != wanted:
        msg = (
            f"data set {name!r} has changed since the zoo was planned: its sha256 is {found}, "
            f"the plan says {wanted}; give the path of the original, or start a new store"
        )
        raise DataError(msg)


@lru_cache(maxsize=4)
def _prepared(name: str, path: str | None, normalization: str) -> PreparedData:
    return prepare(load(name, path=path), normalization)


def task_data(
    plan: Plan, cohort: Cohort, network: Network, paths: Mapping[str, str], device: torch.device
) -> TaskData:
    """Load, check, normalise and lay out a cohort's data set on a device.

    Raises:
        DataError: it is not the one that was planned with.
    """
    name = str(cohort.key["data"])
    check_fingerprint(plan, name, paths)
    prepared = _prepared(name, paths.get(name), str(cohort.key["normalization"]))
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
        test_y=_tensor(prepared.test_y).to(device),
        probe=network.inputs(test[probes]) if probes else None,
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    # Data sets are read-only arrays shared by the process; torch wants memory of its own.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
