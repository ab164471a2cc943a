"""Softmax cross-entropy over stacked models: loss and logit gradient in one go."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
    """Return each model's mean loss and the gradient of that mean.

    loss = logsumexp(z) − Σ_c t_c z_c and dz = (softmax(z) − t)/B, with smoothed targets
    t = (1 − s)·onehot(y) + s/C as in ``torch.nn.CrossEntropyLoss(label_smoothing=s)``.

    Args:
        logits: ``[G, B, C]`` float32.
        labels: ``[G, B]`` int64.
        smoothing: ``[G]`` float32, s of each model.

    Returns:
        Losses ``[G]`` in nats, and dz ``[G, B, C]`` in a buffer of its own.
    """
    B, C = logits.shape[1:]
    s = smoothing.view(-1, 1, 1)
    lse = torch.logsumexp(logits, -1, keepdim=True)
    chosen = logits.gather(-1, labels.unsqueeze(-1))
    losses = lse - (1 - s) * chosen - s * logits.mean(-1, keepdim=True)
    targets = F.one_hot(labels, C).to(logits.dtype) * (1 - s) + s / C
    dz = (torch.exp(logits - lse) - targets) / B
    return losses.flatten(1).mean(1), dz
