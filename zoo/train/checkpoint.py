"""What the engine hands over at each checkpoint: plain arrays, ready to be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.objectives import OBJECTIVES, Objective

__all__ = ["METRICS", "Checkpoint", "ResumePoint", "recorded"]

#: Recorded of every run, whatever it minimises.
_ALWAYS: dict[str, str] = {
    "step_lr": "learning rate of the last step taken (of the first step at step 0)",
    "grad_norm": "2-norm of the last step's minibatch gradient, before decay (NaN at step 0)",
    "update_norm": "2-norm of the last step's parameter change (NaN at step 0)",
    "weight_norm": "2-norm of the trained parameters",
    "init_distance": "2-norm of the trained parameters minus their initial values",
}
_SETS = {"train": "the training set as trained on", "test": "the test set"}


def recorded(objective: Objective, splits: Iterable[str] = tuple(_SETS)) -> dict[str, str]:
    """Return what is recorded at every checkpoint, in order: name -> description.

    A plan lists it, and its store has what it lists.

    Args:
        objective: whose measures are taken.
        splits: of the data set.
    """
    found = {
        f"{part}_{name}": doc.format(_SETS.get(part, f"the split {part!r}"))
        for part in splits
        for name, doc in objective.measures.items()
    }
    return found | _ALWAYS


#: What is recorded of classification by cross-entropy, in this order.
METRICS = recorded(OBJECTIVES["cross_entropy"]("class"))


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """One checkpoint of one task (R rows, P columns, Q probe examples, C classes).

    Args:
        index: k, the column of the cohort's checkpoint axis.
        weights: ``[R, P]`` float32; the row of a diverged model is NaN.
        metrics: for each metric of the cohort, ``[R]``; NaN for a diverged model.
        probe: ``[R, Q, C]`` float16 logits of the probe examples, or None when Q is 0.
        diverged_step: ``[R]`` int64, the step whose loss was not finite; -1 for a healthy model.
        resume: named arrays that, with ``weights``, restart training bit for bit from here.
    """

    index: int
    weights: NDArray[np.float32]
    metrics: Mapping[str, NDArray[np.floating[Any]]]
    probe: NDArray[np.float16] | None
    diverged_step: NDArray[np.int64]
    resume: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class ResumePoint:
    """Where an interrupted task resumes: the newest checkpoint with its resume state.

    Args:
        index: k of that checkpoint.
        weights: ``[R, P]`` float32, as committed.
        diverged_step: ``[R]`` int64, as committed.
        arrays: the ``resume`` arrays of that checkpoint.
    """

    index: int
    weights: NDArray[np.float32]
    diverged_step: NDArray[np.int64]
    arrays: Mapping[str, NDArray[np.generic]]
