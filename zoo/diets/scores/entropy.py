"""The entropy of the prediction; knows no label (Coleman et al. 2020, arXiv 1906.11829)."""

from __future__ import annotations

from torch import Tensor

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["entropy"]


def entropy(outputs: Outputs) -> Tensor:
    """Return −Σ_c p_c ln p_c, ``[G, B]`` nats; 0 to ln C."""
    logs = outputs.objective.log_probabilities(outputs.logits)
    return -(logs.exp() * logs).sum(-1)


SCORES.register("entropy")(
    Score(
        kind="point",
        doc="entropy of the prediction (nats)",
        source="Coleman et al. 2020, arXiv 1906.11829",
        compute=entropy,
        needs="probabilities",
    )
)
