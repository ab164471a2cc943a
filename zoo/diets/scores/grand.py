"""GraNd: the norm of an example's own gradient (Paul et al. 2021, arXiv 2107.07075).

At initialisation it follows the input norm and prunes no better than chance; the published result
to the contrary came from a checkpoint bug (Kirsch 2023, arXiv 2303.14753).
"""

from __future__ import annotations

from torch import Tensor

from zoo.diets.gradients import gradient_norms
from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["grand"]


def grand(outputs: Outputs) -> Tensor:
    """Return ‖∇_w ℓ(x, y)‖₂ over all trained parameters in eval mode, ``[G, B]``."""
    return gradient_norms(
        outputs.network, outputs.objective, outputs.params, outputs.x, outputs.targets
    )


SCORES.register("grand")(
    Score(
        kind="point",
        doc="2-norm of the gradient of the example's loss, all parameters, eval mode",
        source="Paul et al. 2021, arXiv 2107.07075",
        compute=grand,
    )
)
