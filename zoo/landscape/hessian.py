"""Hessian-vector products of stacked models: each row its own mean loss, its own Hessian.

The Hessian is that of the mean cross-entropy over a probe, without the weight-decay term, over the
trained parameters, in eval mode: BatchNorm's statistics are constants.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.network import Network
from zoo.landscape.stacked import EVAL, Probe, example_losses, logit_gradient
from zoo.landscape.tangent import Rule, rule_for

__all__ = ["Hessian", "double_backward_product"]


class Hessian:
    """The Hessians of G models at once.

    Args:
        network: the architecture.
        slab: ``[G, P]`` float32, finite.
        probe: the examples.

    Attributes:
        loss: ``[G]`` float64, mean cross-entropy in nats.
        gradient: ``[G, D]`` its gradient.
    """

    def __init__(self, network: Network, slab: Tensor, probe: Probe) -> None:
        G = slab.shape[0]
        self.network, self.probe = network, probe
        self.models, self.size = G, network.layout.trained
        p = network.views(slab)
        self._first = next(i for i, op in enumerate(network.ops) if op.params())
        self._rules: list[Rule] = []
        x = probe.inputs(G)
        saved = []
        for op in network.ops:
            y, kept = op.forward(p, x, EVAL)
            self._rules.append(rule_for(op, p, x, EVAL))
            saved.append(kept)
            x = y
        z = x.squeeze(2).float()
        labels = probe.labels(G)
        self.loss = (example_losses(z.double(), labels) * probe.weight.double()).sum(1)
        self._softmax = torch.softmax(z, -1)
        d: Tensor | None = logit_gradient(self._softmax, labels, probe.weight).unsqueeze(2)
        grads: dict[str, Tensor] = {}
        for index in range(len(network.ops) - 1, self._first - 1, -1):
            assert d is not None
            self._rules[index].prepare(d)
            need = index > self._first
            d, own = network.ops[index].backward(p, saved[index], d, EVAL, need_dx=need)
            grads.update(own)
        self.gradient = network.flat_gradient(grads)
        # softmax · weight, for the derivative of the logit gradient
        self._weighted = self._softmax * probe.weight.unsqueeze(-1)

    def _views(self, v: Tensor) -> dict[str, Tensor]:
        return {
            s.name: v[:, s.offset : s.stop].view(v.shape[0], *s.shape)
            for s in self.network.layout.segments
            if s.role != BUFFER
        }

    def logit_tangent(self, v: Tensor) -> Tensor:
        """Return the derivative of the logits ``[G, N, C]`` along ``v [G, D]``."""
        named = self._views(v)
        dx: Tensor | None = None
        for rule in self._rules:
            dx = rule.forward(named, dx)
        assert dx is not None
        return dx.squeeze(2)

    def loss_tangent(self, v: Tensor) -> Tensor:
        """Return the derivative of every example's loss ``[G, N]`` along ``v [G, D]``."""
        dz = self.logit_tangent(v)
        labels = self.probe.labels(self.models).unsqueeze(-1)
        return (self._softmax * dz).sum(-1) - dz.gather(-1, labels).squeeze(-1)

    def product(self, v: Tensor) -> Tensor:
        """Return Hv of each model, ``[G, D]`` for ``v [G, D]``."""
        dz = self.logit_tangent(v)
        # of softmax · weight: s·(z' − ⟨softmax, z'⟩)
        dd = self._weighted * (dz - (self._softmax * dz).sum(-1, keepdim=True))
        dd = dd.unsqueeze(2)
        named = self._views(v)
        grads: dict[str, Tensor] = {}
        for index in range(len(self._rules) - 1, self._first - 1, -1):
            need = index > self._first
            back, own = self._rules[index].backward(named, dd, need_dx=need)
            grads.update(own)
            if need:
                assert back is not None
                dd = back
        return self.network.flat_gradient(grads)


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
        each = example_losses(z, probe.labels(slab.shape[0])) * probe.weight
        (g,) = torch.autograd.grad(each.sum(), w, create_graph=True)
        (product,) = torch.autograd.grad(g, w, grad_outputs=v)
    return product
