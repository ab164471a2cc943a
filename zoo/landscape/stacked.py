"""What every metric needs of stacked models: logits, features, losses and gradients, in eval mode.

BatchNorm runs in eval mode throughout, with the statistics that are in the row; where weights are
moved away from where they were trained (curves, chords), :mod:`zoo.landscape.batch_stats` puts
fresh ones there first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.architectures.activations import Activation
from zoo.architectures.network import Network
from zoo.architectures.op import Mode, Op, Values
from zoo.objectives import Objective

__all__ = [
    "EVAL",
    "Probe",
    "features",
    "finite_rows",
    "logits",
    "losses",
    "mean_gradient",
    "without_bad",
]

#: One grouped convolution is the quicker form where operations run one by one.
EVAL = Mode(training=False, conv="grouped")


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Examples that a metric is measured on: the same for all models, or each model's own.

    Args:
        x: ``[1 or G, N, T, C_in]`` examples in the stacked form.
        y: ``[1 or G, N]`` int64 labels, or labels of positions or floats ``[1 or G, N, ...]``.
        weight: ``[1 or G, N]`` float32 weights of a mean; each row sums to one, padding has zero.
        objective: what the models minimise.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    objective: Objective

    @property
    def size(self) -> int:
        """N."""
        return int(self.y.shape[1])

    @property
    def uneven(self) -> bool:
        """Whether examples count differently in the loss."""
        counted = torch.where(self.weight > 0, self.weight, self.weight.amax(1, keepdim=True))
        return bool((counted.amin(1) < counted.amax(1)).any())

    @property
    def counts(self) -> Tensor:
        """``[1 or G]`` examples that count."""
        return (self.weight > 0).sum(1)

    def part(self, ids: slice) -> Probe:
        """Return some of the examples, with weights that sum to one again."""
        weight = self.weight[:, ids]
        total = weight.sum(1, keepdim=True)
        mean = weight / total.clamp_min(1e-30)
        return Probe(self.x[:, ids], self.y[:, ids], mean, self.objective)

    def inputs(self, G: int) -> Tensor:
        """Return the examples as ``[G, N, T, C_in]``, without a copy."""
        return self.x.expand(G, *self.x.shape[1:])

    def targets(self, G: int) -> Tensor:
        """Return the targets as ``[G, N]`` or ``[G, N, C]``, without a copy."""
        return self.y.expand(G, *self.y.shape[1:])

    def mean_loss(self, z: Tensor) -> Tensor:
        """Return the mean plain loss ``[G]`` of outputs ``[G, N, C]``, as float64."""
        each = self.objective.losses(z.double(), self.targets(z.shape[0]))
        return (each * self.weight.double()).sum(1)


def finite_rows(slab: Tensor) -> Tensor:
    """Return ``[G]``: which rows are finite throughout."""
    return torch.isfinite(slab).all(1)


def without_bad(slab: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slab with rows that are not finite set to zero, and ``[G]`` which were finite."""
    fine = finite_rows(slab)
    return torch.where(fine[:, None], slab, 0.0), fine


def logits(network: Network, slab: Tensor, x: Tensor) -> Tensor:
    """Return logits ``[G, N, C]`` of examples ``[1 or G, N, T, C_in]``."""
    out, _ = network.forward(network.views(slab), x.expand(slab.shape[0], *x.shape[1:]), EVAL)
    return out


def features(network: Network, slab: Tensor, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return hidden features, penultimate features and logits.

    Args:
        network: the architecture.
        slab: ``[G, P]``.
        x: ``[1 or G, N, T, C_in]``.

    Returns:
        For each activation its output, averaged over positions, ``[G, N, D]``; the input of the
        last layer ``[G, N, D]``, NaN ``[G, N, 1]`` where the last op is no linear layer (a
        module of a user's own); the logits ``[G, N, C]``.
    """
    hidden: list[Tensor] = []
    last: list[Tensor] = []

    def after(index: int, op: Op, xs: Values, y: Tensor) -> None:
        if op is network.head:
            last[:] = xs
        if isinstance(op, Activation):
            hidden.append(y.mean(2))

    x = x.expand(slab.shape[0], *x.shape[1:])
    z = network.trace(network.views(slab), x, EVAL, after=after)
    if not network.head.reads_features:
        return hidden, torch.full((*z.shape[:2], 1), torch.nan), z
    return hidden, last[0].mean(2) if last[0].shape[2] > 1 else last[0].squeeze(2), z


def losses(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return each model's mean loss ``[G]`` on a probe, as float64."""
    return probe.mean_loss(logits(network, slab, probe.x))


def mean_gradient(network: Network, slab: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
    """Return each model's mean loss ``[G]`` and its gradient ``[G, D]`` over trained parameters."""
    G = slab.shape[0]
    p = network.views(slab)
    z, saved = network.forward(p, probe.inputs(G), EVAL)
    dz = probe.objective.gradient(z, probe.targets(G)) * probe.weight.unsqueeze(-1)
    return probe.mean_loss(z), network.flat_gradient(network.backward(p, saved, dz, EVAL))
