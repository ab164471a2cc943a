"""Evaluation of a group: what is recorded of whole sets, and the probe's logits, in eval mode.

Always float32 and always in chunks of one shape, so that what is recorded for a model depends
neither on its neighbours nor on the size of anybody's training set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.op import Mode
from zoo.objectives import Objective
from zoo.train.batches import taken

__all__ = ["CHUNK", "Examples", "evaluate", "probe_logits"]

#: Examples a forward pass.
CHUNK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """A set to evaluate on.

    Args:
        x: ``[N, T, C]`` examples in the stacked form.
        targets: labels ``[G or 1, N]``, or labels of positions or floats ``[1, N, ...]``.
        ids: ``[G, n]`` example ids of each model, padded with −1; None for all N.
        conv: form of the convolution.
        weight: ``[N]`` of each example in every mean, or None: all alike.
    """

    x: Tensor
    targets: Tensor
    ids: Tensor | None
    conv: str
    weight: Tensor | None = None

    def chunks(self, G: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield examples ``[G, CHUNK, T, C]``, targets, and ``[G, CHUNK]`` what each counts.

        It is a truth value where all examples count alike, otherwise a float64 weight.
        """
        x, targets, device = self.x, self.targets, self.x.device
        count = x.shape[0] if self.ids is None else self.ids.shape[1]
        for start in range(0, count, CHUNK):
            if self.ids is None:
                part = torch.arange(start, start + CHUNK, device=device)
                valid = (part < count).expand(G, CHUNK)
                part = part.clamp(max=count - 1)
                xs = x[part].expand(G, *(CHUNK, *x.shape[1:]))
                ys = targets[:, part].expand(G, CHUNK, *targets.shape[2:])
            else:
                part = torch.full((G, CHUNK), -1, device=device)
                width = min(CHUNK, count - start)
                part[:, :width] = self.ids[:, start : start + width]
                valid = part >= 0
                part = part.clamp(min=0)
                xs, ys = x[part], taken(targets, part)
            yield xs, ys, valid if self.weight is None else valid * self.weight[part].double()


def evaluate(
    network: Network, objective: Objective, slab: Tensor, examples: Examples
) -> dict[str, Tensor]:
    """Return each of the objective's measures, ``[G]`` float64 each.

    Args:
        network: the architecture.
        objective: whose measures are wanted.
        slab: ``[G, P]``.
        examples: the set.
    """
    G = slab.shape[0]
    p = network.views(slab)
    mode = Mode(training=False, conv=examples.conv)
    sums: dict[str, Tensor] = {}
    total = torch.zeros(G, dtype=torch.float64, device=slab.device)
    for xs, ys, valid in examples.chunks(G):
        z, _ = network.forward(p, xs, mode)
        for name, each in objective.sums(z, ys).items():
            there = valid.view(G, CHUNK, *(1,) * (each.ndim - 2))
            if examples.weight is None:
                part = torch.where(there, each.double(), 0.0).sum(1)
            else:  # what is not counted may be NaN, which no weight makes zero
                part = (torch.where(there > 0, each.double(), 0.0) * there).sum(1)
            sums[name] = sums[name] + part if name in sums else part
        total += valid.sum(1)
    return objective.measured(sums, total)


def probe_logits(network: Network, slab: Tensor, x: Tensor, conv: str) -> Tensor:
    """Return the logits ``[G, Q, C]`` of probe examples ``[Q, T, C_in]`` as float16, saturated."""
    p = network.views(slab)
    xs = x.expand(slab.shape[0], *x.shape)
    logits, _ = network.forward(p, xs, Mode(training=False, conv=conv))
    limit = torch.finfo(torch.float16).max
    return logits.clamp(-limit, limit).half()
