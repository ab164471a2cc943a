"""The examples that each model of a task keeps, from the membership masks of the store."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from zoo.errors import TrainError
from zoo.store import derived_columns, read_derived
from zoo.train.plan import Cohort, Task

__all__ = ["MASK", "kept_of_task"]

#: The derived array of bit-packed membership.
MASK = "kept_mask"


def kept_of_task(
    path: str | PathLike[str], cohort: Cohort, task: Task
) -> Mapping[str, NDArray[np.int64]]:
    """Return run id -> sorted ids of the kept examples, for the runs of a task that are on a diet.

    Raises:
        TrainError: they have not been chosen yet.
        StoreCorruptError: the masks do not match their checksum.
    """
    runs = {row: cohort.runs[row] for row in range(task.start, task.stop)}
    dieting = {row: run for row, run in runs.items() if run.keep is not None}
    if not dieting:
        return {}
    if MASK not in derived_columns(path, cohort):
        msg = (
            f"cohort {cohort.id} is on diets, and its examples have not been chosen;"
            f" `zoo score {path}` does so"
        )
        raise TrainError(msg)
    packed = read_derived(path, cohort, MASK)
    bits = {row: np.flatnonzero(np.unpackbits(packed[row])) for row in dieting}
    return {run.run_id: bits[row] for row, run in dieting.items()}
