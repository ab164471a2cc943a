"""EL2N: the 2-norm of the error vector (Paul et al. 2021, arXiv 2107.07075)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["el2n", "error_norm"]


def error_norm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ‖softmax(z) − onehot(y)‖₂, not squared: 0 at certainty, √2 at its opposite.

    Args:
        logits: ``[..., B, C]``.
        labels: ``[..., B]`` int64, or a shape that broadcasts to it.

    Returns:
        ``[..., B]``.
    """
    error = torch.softmax(logits, -1) - F.one_hot(labels, logits.shape[-1])
    norm: Tensor = torch.linalg.vector_norm(error, dim=-1)
    return norm


def el2n(outputs: Outputs) -> Tensor:
    """Return :func:`error_norm` of each model and example, ``[G, B]``."""
    return error_norm(outputs.logits, outputs.targets)


SCORES.register("el2n")(
    Score(
        kind="point",
        doc="2-norm of softmax minus one-hot label; 0 to √2",
        source="Paul et al. 2021, arXiv 2107.07075",
        compute=el2n,
        needs="probabilities",
    )
)
