"""A task's rows of the outcome arrays: what its seal writes, and what readers take from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.store.chunks import encode_chunk
from zoo.store.commits import Commit, FileCheck, Seal
from zoo.store.paths import StorePaths
from zoo.store.schema import ALWAYS_WRITTEN, is_fill, metric_names, outcome_arrays
from zoo.train.plan import Cohort, Task

__all__ = ["make_seal", "outcome_chunks", "reasons", "recorded_until", "same_end", "statuses"]


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


def make_seal(
    commits: Sequence[Commit], chunks: Mapping[Path, bytes], record: Mapping[str, Any]
) -> Seal:
    """Return the seal of a task.

    Args:
        commits: all K of the task.
        chunks: what :func:`outcome_chunks` makes of them.
        record: what the caller of the engine says about it.
    """
    return Seal(
        last=recorded_until(commits) - 1,
        diverged_step=commits[-1].diverged_step,
        wall_s=float(record.get("wall_s", sum(c.wall_s for c in commits))),
        record=record,
        files={path.parent.name: FileCheck.of(data) for path, data in chunks.items()},
    )


def same_end(seal: Seal, wanted: Seal) -> bool:
    """Whether a seal says the same of how each model ended."""
    return (
        seal.files == wanted.files
        and np.array_equal(seal.last, wanted.last)
        and np.array_equal(seal.diverged_step, wanted.diverged_step)
    )


def outcome_chunks(
    paths: StorePaths, cohort: Cohort, task: Task, commits: Sequence[Commit]
) -> dict[Path, bytes]:
    """Return the file and content of a task's chunk of each outcome array.

    Where no model diverged there is none of ``reason`` and ``diverged_step``: their fill values
    say so.

    Args:
        paths: the store.
        cohort, task: whose.
        commits: all K of the task.
    """
    end = commits[-1].diverged_step
    table = [[c.metrics[name] for name in metric_names(cohort)] for c in commits]
    values: dict[str, Any] = {"metrics": np.moveaxis(np.array(table), 2, 0)}
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
        if name in ALWAYS_WRITTEN or not is_fill(padded, spec.fill):
            path = paths.chunk(task, name, len(spec.shape))
            found[path] = encode_chunk(padded, dtype=spec.dtype)
    return found
