"""How alike two models are: representations, predictions, weights.

Primary is the debiased linear CKA of the softmax on the mixup probe: on clean training inputs it
saturates near 1 and says nothing. Debiased: Song et al. 2012's unbiased HSIC, as in Nguyen et al.
2021 (arXiv 2010.15327); not clamped, so that independent features average to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cka", "cosine_and_distance", "disagreement", "jensen_shannon"]

#: Features whose variance is below this share of their mean square are constant.
_CONSTANT = 1e-10


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(-2, keepdim=True)


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased HSIC ``[...]`` of centred features ``[..., N, D]``, linear kernels.

    (tr K̃L̃ + 1ᵀK̃1 1ᵀL̃1/((n−1)(n−2)) − 2 1ᵀK̃L̃1/(n−2)) / (n(n−3)) with K̃ = XXᵀ less its diagonal,
    written in feature space: no n × n matrix is made.
    """
    n = x.shape[-2]
    dx, dy = x.square().sum(-1), y.square().sum(-1)
    trace = (x.mT @ y).square().sum((-2, -1)) - (dx * dy).sum(-1)
    # K̃1 = X(Xᵀ1) − diag; the columns are centred, so Xᵀ1 = 0.
    sums = dx.sum(-1) * dy.sum(-1) / ((n - 1) * (n - 2))
    cross = 2 * (dx * dy).sum(-1) / (n - 2)
    return (trace + sums - cross) / (n * (n - 3))


def cka(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the debiased linear CKA of pairs of models, ``[Q]`` float64.

    Args:
        features: ``[G, N, D]``, N > 3.
        first, second: ``[Q]`` models of each pair.

    NaN where a model's features do not vary, or are not finite.
    """
    x = _centred(features)
    own = _hsic(x, x)
    scale = features.double().square().mean((-2, -1))
    constant = ~(x.square().mean((-2, -1)) > _CONSTANT * scale) | ~(own > 0)
    own = torch.where(constant, torch.nan, own)
    found = [
        _hsic(x[a], x[b]) / (own[a] * own[b]).sqrt() for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(found) if found else own.new_zeros(0)


def disagreement(said: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the share of predictions ``[G, N]`` or ``[G, N, C]`` that pairs differ in, ``[Q]``."""
    return (said[first] != said[second]).double().flatten(1).mean(1)


def jensen_shannon(log_p: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the mean Jensen-Shannon divergence of pairs' predictions ``[Q]``, nats.

    Args:
        log_p: ``[G, N, C]`` logarithms of probabilities, float64.
        first, second: ``[Q]`` models of each pair.
    """
    a, b = log_p[first], log_p[second]
    middle = torch.logaddexp(a, b) - torch.log(torch.tensor(2.0, dtype=torch.float64))
    both = (a.exp() * (a - middle)).sum(-1) + (b.exp() * (b - middle)).sum(-1)
    return both.mean(1) / 2


def cosine_and_distance(w: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and L2 distance ``[Q]`` of pairs of weights ``[G, D]``, as they stand."""
    w = w.double()
    a, b = w[first], w[second]
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(lengths > 0, (a * b).sum(1) / lengths, torch.nan), (a - b).norm(dim=1)
