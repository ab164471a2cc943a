"""The example's cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["loss"]


def loss(outputs: Outputs) -> Tensor:
    """Return −ln softmax(z)_y, ``[G, B]`` nats."""
    labels = outputs.labels.expand(outputs.logits.shape[:-1]).unsqueeze(-1)
    return -torch.log_softmax(outputs.logits, -1).gather(-1, labels).squeeze(-1)


SCORES.register("loss")(
    Score(kind="point", doc="cross-entropy (nats)", source="folklore", compute=loss)
)
