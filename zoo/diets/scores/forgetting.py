"""Forgetting events (Toneva et al. 2019, arXiv 1812.05159)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.diets.scores.base import SCORES, EpochTrail, Score

__all__ = ["forgetting", "forgetting_events"]


def forgetting_events(correct: Tensor) -> Tensor:
    """Return how often each example goes from right to wrong between successive epochs.

    An example that is never right counts T, which no other can reach (they change at most T/2
    times), where the paper has infinity: means over models stay finite.

    Args:
        correct: ``[G, T, N]`` bool, after each of T epochs in eval mode; the paper looks at the
            minibatch in which the example is presented, once an epoch.

    Returns:
        ``[G, N]`` float32.
    """
    events = (correct[:, :-1] & ~correct[:, 1:]).sum(1).float()
    return torch.where(correct.any(1), events, float(correct.shape[1]))


def forgetting(trajectory: EpochTrail) -> Tensor:
    """Return :func:`forgetting_events` of a trajectory."""
    return forgetting_events(trajectory.correct)


SCORES.register("forgetting")(
    Score(
        kind="trajectory",
        doc="times that a right prediction turns wrong, epoch by epoch",
        source="Toneva et al. 2019, arXiv 1812.05159",
        compute=forgetting,
        needs="labels",
        first_epoch=2.0,
    )
)
