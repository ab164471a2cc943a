"""Hessian-vector products of stacked models: each row its own mean loss, its own Hessian.

The Hessian is that of the mean loss over a probe, as the objective defines it, without the
weight-decay term, over the trained parameters, in eval mode: BatchNorm's statistics are constants.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.architectures.linearization import Linearization
from zoo.architectures.network import Network
from zoo.landscape.stacked import EVAL, Probe

__all__ = ["Hessian", "double_backward_product"]


class Hessian:
    """The Hessians of G models at once.

    Args:
        network: the architecture.
        slab: ``[G, P]`` float32, finite.
        probe: the examples.

    Attributes:
        loss: ``[G]`` float64, mean loss.
        gradient: ``[G, D]`` its gradient.
    """

    def __init__(self, network: Network, slab: Tensor, probe: Probe) -> None:
        G = slab.shape[0]
        self.network, self.probe = network, probe
        self.models, self.size = G, network.layout.trained
        self._point = Linearization(network, slab, probe.inputs(G), EVAL)
        z, targets = self._point.logits, probe.targets(G)
        self.loss = probe.mean_loss(z)
        self._weight = probe.weight.unsqueeze(-1)
        self._slopes = probe.objective.gradient(z, targets)
        self._bend = probe.objective.hessian(z, targets)
        self.gradient = self._point.gradient(self._slopes * self._weight)

    def logit_tangent(self, v: Tensor) -> Tensor:
        """Return the derivative of the logits ``[G, N, C]`` along ``v [G, D]``."""
        return self._point.push(v)

    def loss_tangent(self, v: Tensor) -> Tensor:
        """Return the derivative of every example's loss ``[G, N]`` along ``v [G, D]``."""
        return (self._slopes * self.logit_tangent(v)).sum(-1)

    def product(self, v: Tensor) -> Tensor:
        """Return Hv of each model, ``[G, D]`` for ``v [G, D]``."""
        dz = self.logit_tangent(v)
        return self._point.pull(v, self._bend(dz) * self._weight)


def double_backward_product(network: Network, slab: Tensor, probe: Probe, v: Tensor) -> Tensor:
    """Return Hv ``[G, D]`` by differentiating the stacked forward pass twice.

    The readable reference of :meth:`Hessian.product`: summed over models the Hessian is
    block-diagonal, so one graph serves all of them.
    """
    trained = network.layout.trained
    with torch.enable_grad():
        w = slab[:, :trained].detach().clone().requires_grad_()
        rows = torch.cat([w, slab[:, trained:]], 1)
        z, _ = network.forward(network.views(rows), probe.inputs(slab.shape[0]), EVAL)
        each = probe.objective.losses(z, probe.targets(slab.shape[0])) * probe.weight
        (g,) = torch.autograd.grad(each.sum(), w, create_graph=True)
        (product,) = torch.autograd.grad(g, w, grad_outputs=v)
    return product
