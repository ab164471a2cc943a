"""Evaluation of a group: loss and accuracy over whole sets, and the probe's logits, in eval mode.

Always float32 and always in chunks of one shape, so that what is recorded for a model depends
neither on its neighbours nor on the size of anybody's training set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.network import Network
from zoo.architectures.op import Mode

__all__ = ["CHUNK", "evaluate", "probe_logits"]

#: Examples a forward pass.
CHUNK = 512


def _chunks(count: int) -> range:
    return range(0, count, CHUNK)


def evaluate(
    network: Network, slab: Tensor, x: Tensor, labels: Tensor, ids: Tensor | None, conv: str
) -> tuple[Tensor, Tensor]:
    """Return mean loss (nats) and accuracy of each model, both ``[G]`` float64.

    Args:
        network: the architecture.
        slab: ``[G, P]``.
        x: ``[N, T, C]`` examples.
        labels: ``[G, N]`` or ``[1, N]`` int64.
        ids: ``[G, n]`` example ids of each model, padded with −1; None for all N.
        conv: form of the convolution.
    """
    G = slab.shape[0]
    p = network.views(slab)
    mode = Mode(training=False, conv=conv)
    count = x.shape[0] if ids is None else ids.shape[1]
    loss = torch.zeros(G, dtype=torch.float64, device=slab.device)
    correct, total = torch.zeros_like(loss), torch.zeros_like(loss)
    for start in _chunks(count):
        if ids is None:
            part = torch.arange(start, start + CHUNK, device=slab.device)
            valid = (part < count).expand(G, CHUNK)
            part = part.clamp(max=count - 1)
            xs = x[part].expand(G, *(CHUNK, *x.shape[1:]))
            ys = labels[:, part].expand(G, CHUNK)
        else:
            part = torch.full((G, CHUNK), -1, device=slab.device)
            width = min(CHUNK, count - start)
            part[:, :width] = ids[:, start : start + width]
            valid = part >= 0
            part = part.clamp(min=0)
            xs = x[part]
            ys = labels.expand(G, -1).gather(1, part)
        logits, _ = network.forward(p, xs, mode)
        each = F.cross_entropy(logits.flatten(0, 1), ys.reshape(-1), reduction="none")
        each = torch.where(valid, each.view(G, CHUNK).double(), 0.0)
        loss += each.sum(1)
        correct += ((logits.argmax(-1) == ys) & valid).sum(1)
        total += valid.sum(1)
    return loss / total, correct / total


def probe_logits(network: Network, slab: Tensor, x: Tensor, conv: str) -> Tensor:
    """Return the logits ``[G, Q, C]`` of probe examples ``[Q, T, C_in]`` as float16, saturated."""
    p = network.views(slab)
    xs = x.expand(slab.shape[0], *x.shape)
    logits, _ = network.forward(p, xs, Mode(training=False, conv=conv))
    limit = torch.finfo(torch.float16).max
    return logits.clamp(-limit, limit).half()
