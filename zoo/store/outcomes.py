"""A task's rows of the outcome arrays: what its seal writes, and what readers take from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.store.chunks import encode_chunk
from zoo.store.commits import Commit
from zoo.store.paths import StorePaths
from zoo.store.schema import METRIC_ARRAYS, outcome_arrays
from zoo.train.plan import Cohort, Task

__all__ = ["outcome_chunks", "reasons", "recorded_until", "statuses"]


def recorded_until(commits: Sequence[Commit]) -> NDArray[np.int64]:
    """Return ``[R]``: how many checkpoints of each row are recorded."""
    count: NDArray[np.int64] = np.sum([c.diverged_step < 0 for c in commits], axis=0)
    return count


def statuses(diverged_step: NDArray[np.int64], otherwise: str) -> list[str]:
    """Return each row's status: diverged, or ``otherwise``."""
    return ["diverged" if step >= 0 else otherwise for step in diverged_step.tolist()]


def reasons(diverged_step: NDArray[np.int64]) -> list[str]:
    """Return each row's reason, empty for a healthy model."""
    steps = diverged_step.tolist()
    return [f"loss not finite at step {step}" if step >= 0 else "" for step in steps]


def outcome_chunks(
    paths: StorePaths, cohort: Cohort, task: Task, commits: Sequence[Commit]
) -> dict[Path, bytes]:
    """Return the file and content of a task's chunk of every outcome array.

    Args:
        paths: the store.
        cohort, task: whose.
        commits: all K of the task.
    """
    end = commits[-1].diverged_step
    values: dict[str, Any] = {
        name: np.stack([c.metrics[metric] for c in commits], axis=1)
        for metric, name in METRIC_ARRAYS.items()
    }
    values["status"] = np.array(statuses(end, "done"))
    values["reason"] = np.array(reasons(end))
    values["diverged_step"] = end
    values["last"] = recorded_until(commits) - 1
    found = {}
    for name, spec in outcome_arrays(cohort).items():
        width = [(0, spec.chunk[0] - task.models)] + [(0, 0)] * (len(spec.chunk) - 1)
        if spec.dtype == "string":
            padded = np.array([*values[name], *[spec.fill] * width[0][1]], dtype=np.str_)
        else:
            padded = np.pad(values[name], width, constant_values=spec.fill)
        path = paths.chunk(task, name, len(spec.shape))
        found[path] = encode_chunk(padded, dtype=spec.dtype)
    return found
