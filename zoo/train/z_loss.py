"""The z-loss: ζ·logsumexp(z)² beside the cross-entropy (Chowdhery et al. 2022, arXiv 2204.02311).

It holds the log-partition near zero, so that logits do not drift off together.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["with_z_loss"]


def with_z_loss(
    logits: Tensor, coefficient: Tensor, loss: Tensor, dlogits: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient with the z-loss added to both.

    loss + ζ·mean(lse²) and dz + 2ζ·lse·softmax(z)/B.

    Args:
        logits: ``[G, B, C]`` float32.
        coefficient: ``[G]`` ζ of each model.
        loss: ``[G]`` nats.
        dlogits: ``[G, B, C]`` gradient of ``loss``.
    """
    zeta = coefficient.view(-1, 1, 1)
    lse = torch.logsumexp(logits, -1, keepdim=True)
    pull = (2 * zeta / logits.shape[1]) * lse * torch.exp(logits - lse)
    return loss + coefficient * lse.square().flatten(1).mean(1), dlogits + pull
