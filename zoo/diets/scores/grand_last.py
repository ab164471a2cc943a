"""GraNd of the last layer alone: ‖∂ℓ/∂z‖ · √(1 + ‖h‖²) with h the last layer's input.

It is what several public implementations call GraNd; here it has a name of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.diets.gradients import last_features
from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["grand_last"]


def grand_last(outputs: Outputs) -> Tensor:
    """Return the norm of the gradient of the last layer's weight and bias, ``[G, B]``."""
    h = last_features(outputs.network, outputs.params, outputs.x)
    slopes = outputs.objective.gradient(outputs.logits, outputs.targets)
    norms: Tensor = torch.linalg.vector_norm(slopes, dim=-1)
    return norms * (1 + h.square().sum(-1)).sqrt()


SCORES.register("grand_last")(
    Score(
        kind="point",
        doc="2-norm of the gradient of the example's loss, last layer only, eval mode",
        source="after Paul et al. 2021, arXiv 2107.07075",
        compute=grand_last,
        last_layer=True,
    )
)
