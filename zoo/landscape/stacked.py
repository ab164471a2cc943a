"""What every metric needs of stacked models: logits, features, losses and gradients, in eval mode.

BatchNorm runs in eval mode throughout, with the statistics that stand in the row; where weights are
moved away from where they were trained (curves, chords), :mod:`zoo.landscape.batch_stats` puts
fresh ones there first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.architectures.activations import Activation
from zoo.architectures.network import Network
from zoo.architectures.op import Mode

__all__ = [
    "EVAL",
    "Probe",
    "example_losses",
    "features",
    "finite_rows",
    "gradient",
    "logit_gradient",
    "logits",
    "losses",
    "without_bad",
]

#: One grouped convolution is the quicker form where operations run one by one.
EVAL = Mode(training=False, conv="grouped")


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Examples that a metric is measured on: the same for all models, or each model's own.

    Args:
        x: ``[1 or G, N, T, C_in]`` examples in the stacked form.
        y: ``[1 or G, N]`` int64 labels.
        weight: ``[1 or G, N]`` float32 weights of a mean; each row sums to one, padding has zero.
    """

    x: Tensor
    y: Tensor
    weight: Tensor

    @property
    def size(self) -> int:
        """N."""
        return int(self.y.shape[1])

    @property
    def counts(self) -> Tensor:
        """``[1 or G]`` examples that count."""
        return (self.weight > 0).sum(1)

    def part(self, ids: slice) -> Probe:
        """Return some of the examples, with weights that sum to one again."""
        weight = self.weight[:, ids]
        total = weight.sum(1, keepdim=True)
        return Probe(self.x[:, ids], self.y[:, ids], weight / total.clamp_min(1e-30))

    def inputs(self, G: int) -> Tensor:
        """Return the examples as ``[G, N, T, C_in]``, without a copy."""
        return self.x.expand(G, *self.x.shape[1:])

    def labels(self, G: int) -> Tensor:
        """Return the labels as ``[G, N]``."""
        return self.y.expand(G, -1)


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
        last layer ``[G, N, D]``; the logits ``[G, N, C]``.
    """
    p = network.views(slab)
    x = x.expand(slab.shape[0], *x.shape[1:])
    hidden = []
    last = x
    for index, op in enumerate(network.ops):
        if index == len(network.ops) - 1:
            last = x
        x, _ = op.forward(p, x, EVAL)
        if isinstance(op, Activation):
            hidden.append(x.mean(2))
    return hidden, last.squeeze(2), x.squeeze(2).float()


def example_losses(z: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy ``[G, N]`` of logits ``[G, N, C]``, in nats."""
    return torch.logsumexp(z, -1) - z.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def losses(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return each model's mean cross-entropy ``[G]`` on a probe, in nats, as float64."""
    each = example_losses(logits(network, slab, probe.x).double(), probe.labels(slab.shape[0]))
    return (each * probe.weight.double()).sum(1)


def gradient(network: Network, slab: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
    """Return each model's mean loss ``[G]`` and its gradient ``[G, D]`` over trained parameters."""
    G = slab.shape[0]
    p = network.views(slab)
    z, saved = network.forward(p, probe.inputs(G), EVAL)
    labels = probe.labels(G)
    loss = (example_losses(z.double(), labels) * probe.weight.double()).sum(1)
    dz = logit_gradient(torch.softmax(z, -1), labels, probe.weight)
    return loss, network.flat_gradient(network.backward(p, saved, dz, EVAL))


def logit_gradient(probabilities: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return d loss / d logits ``[G, N, C]``: (softmax − onehot) · weight."""
    d = probabilities.clone()
    d.scatter_add_(-1, labels.unsqueeze(-1), -torch.ones_like(d[..., :1]))
    return d * weight.unsqueeze(-1)
