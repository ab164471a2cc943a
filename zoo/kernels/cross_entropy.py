"""Softmax cross-entropy over stacked models: loss and logit gradient in one go."""

from __future__ import annotations

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
    targets = F.one_hot(labels, C).to(logits.dtype) * (1 - s) + s / C
    peak = logits.amax(-1, keepdim=True)
    shifted = logits - peak
    exp = shifted.exp()
    total = exp.sum(-1, keepdim=True)
    losses = total.log().squeeze(-1) - (targets * shifted).sum(-1)
    dz = (exp / total - targets) / B
    return losses.mean(1), dz
