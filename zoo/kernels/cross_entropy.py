"""Softmax cross-entropy over stacked models: loss, logit gradient and scores in one read.

For one example with logits z, targets t and weight w, where t = (1 − s)·q + s/C for smoothing s and
q the one-hot label or a given distribution,

    ℓ = w (−Σ_c t_c ln p_c + ζ·lse²),    dz = w/n · (p·(1 + 2ζ·lse) − t),

with lse = logsumexp(z), p = softmax(z), and n the number of examples with w ≠ 0 (all B without
weights): a weight of 0 marks a padded row. The z-loss ζ·lse² is that of PaLM (Chowdhery et al.
2022, arXiv 2204.02311). The gradient is a buffer of its own; the logits stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kernels.language import Value, blocks, constexpr, jit, launch, on_device, power_of_two, tl
from zoo.kernels.softmax import online_step, two_pass_exp, two_pass_step

__all__ = [
    "FORM",
    "PLAIN",
    "CrossEntropy",
    "LossTerms",
    "cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_torch",
]

#: Form of the sum of exponentials where a row of logits does not fit one tile; see docs/kernels.md.
FORM = "online"
#: Logits of one row that are held at once; up to here a row is read once, above it twice.
TILE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class CrossEntropy:
    """What one pass over the logits gives.

    Args:
        loss: ``[G, B]`` w·ℓ in nats.
        mean: ``[G]`` Σ_b loss / n.
        dlogits: ``[G, B, C]`` gradient of ``mean``, in the type of the logits.
        el2n: ``[G, B]`` ‖p − q‖₂ (Paul et al. 2021, arXiv 2107.07075), or None like all below.
        correct: ``[G, B]`` bool, z_y above every other logit: a tie is wrong.
        margin: ``[G, B]`` z_y − max of the others.
        entropy: ``[G, B]`` of p, in nats.
    """

    loss: Tensor
    mean: Tensor
    dlogits: Tensor
    el2n: Tensor | None = None
    correct: Tensor | None = None
    margin: Tensor | None = None
    entropy: Tensor | None = None


class LossTerms(NamedTuple):
    """What a cross-entropy can have beside labels and smoothing.

    Args:
        targets: ``[G, B, C]`` distributions q in place of one-hot labels.
        weights: ``[G, B]`` float32.
        z_loss: ``[G]`` float32, ζ of each model.
    """

    targets: Tensor | None = None
    weights: Tensor | None = None
    z_loss: Tensor | None = None


#: A loss of labels and smoothing alone.
PLAIN = LossTerms()


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
    if on_device(logits, labels, smoothing):
        found = softmax_cross_entropy(logits, labels, smoothing)
        return found.mean, found.dlogits
    B, C = logits.shape[1:]
    s = smoothing.view(-1, 1, 1)
    lse = torch.logsumexp(logits, -1, keepdim=True)
    chosen = logits.gather(-1, labels.unsqueeze(-1))
    losses = lse - (1 - s) * chosen - s * logits.mean(-1, keepdim=True)
    targets = F.one_hot(labels, C).to(logits.dtype) * (1 - s) + s / C
    dz = (torch.exp(logits - lse) - targets) / B
    return losses.flatten(1).mean(1), dz


def softmax_cross_entropy_torch(
    logits: Tensor,
    labels: Tensor,
    smoothing: Tensor,
    *,
    terms: LossTerms = PLAIN,
    scores: bool = False,
) -> CrossEntropy:
    """Return what :func:`softmax_cross_entropy` does, in plain torch and the logits' own type."""
    targets, weights, z_loss = terms
    C = logits.shape[-1]
    z = logits if logits.dtype == torch.float64 else logits.float()
    one = torch.ones_like(z[..., 0])
    w = one if weights is None else weights.to(z.dtype)
    s = smoothing.to(z.dtype).view(-1, 1, 1)
    zeta = 0 * s if z_loss is None else z_loss.to(z.dtype).view(-1, 1, 1)
    q = F.one_hot(labels, C).to(z.dtype) if targets is None else targets.to(z.dtype)
    t = (1 - s) * q + s / C
    lse = torch.logsumexp(z, -1, keepdim=True)
    p = torch.exp(z - lse)
    # A target of zero takes no part, also where its logit is −∞.
    drawn = torch.where(t == 0, 0, t * (z - lse)).sum(-1)
    each = (zeta * lse.square()).squeeze(-1) - drawn
    n = (w != 0).sum(1, keepdim=True).clamp(min=1).to(z.dtype)
    loss = torch.where(w == 0, 0, w * each)
    dz = (w / n).unsqueeze(-1) * (p * (1 + 2 * zeta * lse) - t)
    dz = torch.where((w == 0).unsqueeze(-1), 0, dz).to(logits.dtype)
    mean = (loss / n).sum(1)
    if not scores:
        return CrossEntropy(loss, mean, dz)
    chosen = z.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    others = z.scatter(-1, labels.unsqueeze(-1), -torch.inf).amax(-1)
    entropy = -torch.where(p == 0, 0, p * (z - lse)).sum(-1)
    el2n = torch.linalg.vector_norm(p - q, dim=-1)
    return CrossEntropy(loss, mean, dz, el2n, chosen > others, chosen - others, entropy)


def softmax_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    smoothing: Tensor,
    *,
    terms: LossTerms = PLAIN,
    scores: bool = False,
    form: str = FORM,
) -> CrossEntropy:
    """Return loss, gradient and, if wanted, the scores of every example.

    Args:
        logits: ``[G, B, C]`` float32 or bfloat16.
        labels: ``[G, B]`` int64; with ``targets`` only margin and correctness read them.
        smoothing: ``[G]`` float32, s of each model.
        terms: what the loss has beside.
        scores: whether EL2N, correctness, margin and entropy are wanted.
        form: ``"online"`` or ``"two_pass"``, for rows of more than :data:`TILE` logits.
    """
    targets, weights, z_loss = terms
    if not on_device(logits, labels, smoothing, targets, weights, z_loss):
        return softmax_cross_entropy_torch(logits, labels, smoothing, terms=terms, scores=scores)
    G, B, C = logits.shape
    z, labels = logits.contiguous(), labels.contiguous()
    targets = None if targets is None else targets.contiguous()
    weights = None if weights is None else weights.contiguous()
    loss, mean, dz = smoothing.new_empty(G, B), smoothing.new_empty(G), torch.empty_like(z)
    el2n, margin, entropy = (torch.empty_like(loss) if scores else None for _ in range(3))
    correct = torch.empty(G, B, device=z.device, dtype=torch.bool) if scores else None
    tile = power_of_two(C, most=TILE)
    rows = power_of_two(B, most=max(1, 2048 // tile))
    flags: dict[str, int] = {
        "B": B, "C": C, "SOFT": targets is not None, "WEIGHTED": weights is not None,
        "Z_LOSS": z_loss is not None, "SCORES": scores, "TWO_PASS": form == "two_pass",
        "BR": rows, "BC": tile, "BB": power_of_two(B, most=1024),
    }  # fmt: skip
    launch(
        _loss_kernel, (G, blocks(B, rows)), z, labels, smoothing, targets, weights, z_loss,
        loss, dz, el2n, correct, margin, entropy, **flags,
    )  # fmt: skip
    launch(_mean_kernel, (G,), loss, weights, mean, B=B, WEIGHTED=flags["WEIGHTED"], BB=flags["BB"])
    return CrossEntropy(loss, mean, dz, el2n, correct, margin, entropy)


@jit
def _valid(weights: Value, model: Value, B: constexpr, WEIGHTED: constexpr, BB: constexpr) -> Value:
    """Return n: how many examples of a model have a weight, at least 1."""
    n = B * 1.0
    if WEIGHTED:
        b = tl.arange(0, BB)
        counts = tl.zeros([BB], tl.float32)
        for start in range(0, B, BB):
            w = tl.load(weights + model * B + start + b, start + b < B, 0.0)
            counts += tl.where(w != 0, 1.0, 0.0)
        n = tl.maximum(tl.sum(counts, 0), 1.0)
    return n


@jit
def _mean_kernel(
    loss: Value, weights: Value, mean: Value, B: constexpr, WEIGHTED: constexpr, BB: constexpr
) -> None:
    """One model a program: Σ_b loss / n, in tiles of BB."""
    model = tl.program_id(0).to(tl.int64)
    b = tl.arange(0, BB)
    total = tl.zeros([BB], tl.float32)
    for start in range(0, B, BB):
        total += tl.load(loss + model * B + start + b, start + b < B, 0.0)
    n = _valid(weights, model, B, WEIGHTED, BB)
    tl.store(mean + model, tl.sum(total, 0) / n)


@jit
def _targets(
    targets: Value,
    y: Value,
    s: Value,
    at: Value,
    c: Value,
    inside: Value,
    C: constexpr,
    SOFT: constexpr,
) -> Value:  # fmt: skip
    """Return q and the smoothed t of a tile of classes."""
    if SOFT:
        q = tl.load(targets + at, inside, 0.0).to(tl.float32)
    else:
        q = tl.where(c[None, :] == y[:, None], 1.0, 0.0)
    return q, tl.where(inside, (1.0 - s) * q + s / C, 0.0)


@jit
def _sums(
    z: Value, row: Value, real: Value, y: Value,
    C: constexpr, SCORES: constexpr, TWO_PASS: constexpr, BR: constexpr, BC: constexpr,
) -> Value:  # fmt: skip
    """Return the two parts of each row's sum of exponentials, z_y and the largest other logit."""
    peak = tl.full([BR], float("-inf"), tl.float32)
    mass = tl.zeros([BR], tl.float32)
    others = tl.full([BR], float("-inf"), tl.float32)
    chosen = tl.zeros([BR], tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = real[:, None] & (c < C)[None, :]
        at = row[:, None] * C + c[None, :]
        x = tl.load(z + at, inside, float("-inf")).to(tl.float32)
        x = tl.where(real[:, None], x, 0.0)
        if TWO_PASS:
            peak, mass = two_pass_step(x, peak, mass)
        else:
            peak, mass = online_step(x, peak, mass)
        if SCORES:
            own = c[None, :] == y[:, None]
            chosen += tl.sum(tl.where(own, x, 0.0), 1)
            others = tl.maximum(others, tl.max(tl.where(own, float("-inf"), x), 1))
    return peak, mass, chosen, others


@jit
def _loss_kernel(
    z: Value, labels: Value, smoothing: Value, targets: Value, weights: Value, z_loss: Value,
    loss: Value, dz: Value, el2n: Value, correct: Value, margin: Value, entropy: Value,
    B: constexpr, C: constexpr, SOFT: constexpr, WEIGHTED: constexpr, Z_LOSS: constexpr,
    SCORES: constexpr, TWO_PASS: constexpr, BR: constexpr, BC: constexpr, BB: constexpr,
) -> None:  # fmt: skip
    """BR examples of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1) * BR + tl.arange(0, BR)
    row = model * B + b
    real = b < B
    y = tl.load(labels + row, real, 0)
    s = tl.load(smoothing + model)
    zeta = tl.load(z_loss + model) if Z_LOSS else 0.0
    w = tl.load(weights + row, real, 0.0) if WEIGHTED else tl.where(real, 1.0, 0.0)
    n = _valid(weights, model, B, WEIGHTED, BB)

    peak, mass, chosen, others = _sums(z, row, real, y, C, SCORES, TWO_PASS, BR, BC)
    lse = tl.log(mass) + (peak * 0.6931471805599453 if TWO_PASS else peak)

    # The second sweep reads from cache if a row is one tile.
    drawn = tl.zeros([BR], tl.float32)
    far = tl.zeros([BR], tl.float32)
    spread = tl.zeros([BR], tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = real[:, None] & (c < C)[None, :]
        at = row[:, None] * C + c[None, :]
        x = tl.load(z + at, inside, float("-inf")).to(tl.float32)
        if TWO_PASS:
            p, logp = two_pass_exp(x, peak, mass)
        else:
            # x − lse would lose digits where the logits are large.
            logp = (x - peak[:, None]) - tl.log(mass)[:, None]
            p = tl.exp(logp)
        q, t = _targets(targets, y, s, at, c, inside, C, SOFT)
        d = (w / n)[:, None] * (p * (1.0 + 2.0 * zeta * lse)[:, None] - t)
        tl.store(dz + at, tl.where((w == 0)[:, None], 0.0, d), inside)
        drawn += tl.sum(tl.where(t == 0, 0.0, t * logp), 1)
        if SCORES:
            away = tl.where(inside, p - q, 0.0)
            far += tl.sum(away * away, 1)
            spread += tl.sum(tl.where((p == 0) | ~inside, 0.0, p * logp), 1)
    each = w * (zeta * lse * lse - drawn)
    tl.store(loss + row, tl.where(w == 0, 0.0, each), real)
    if SCORES:
        tl.store(el2n + row, tl.sqrt_rn(far), real)
        tl.store(correct + row, chosen > others, real)
        tl.store(margin + row, chosen - others, real)
        tl.store(entropy + row, -spread, real)
