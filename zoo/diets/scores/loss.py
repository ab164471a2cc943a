"""The example's own loss."""

from __future__ import annotations

from torch import Tensor

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["loss"]


def loss(outputs: Outputs) -> Tensor:
    """Return the plain loss that the objective has, ``[G, B]``."""
    return outputs.objective.losses(outputs.logits, outputs.targets)


SCORES.register("loss")(
    Score(
        kind="point",
        doc="loss of the example, as the objective has it",
        source="folklore",
        compute=loss,
    )
)
