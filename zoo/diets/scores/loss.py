"""The example's cross-entropy."""

from __future__ import annotations

from torch import Tensor

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["loss"]


def loss(outputs: Outputs) -> Tensor:
    """Return logsumexp(z) − z_y, ``[G, B]`` nats."""
    labels = outputs.labels.expand(outputs.logits.shape[:-1]).unsqueeze(-1)
    chosen = outputs.logits.gather(-1, labels).squeeze(-1)
    return outputs.logits.logsumexp(-1) - chosen


SCORES.register("loss")(
    Score(kind="point", doc="cross-entropy (nats)", source="folklore", compute=loss)
)
