"""A network at one point: its logits, its gradient, and the derivatives of both along directions.

See :mod:`zoo.architectures.tangent` for the derivatives of the single ops.
"""

from __future__ import annotations

from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.mode import Gradients, Mode, Values, wide
from zoo.architectures.network import Network
from zoo.architectures.op import Op
from zoo.architectures.rule import TangentRule
from zoo.architectures.tangent import rule_for

__all__ = ["Linearization"]


class Linearization:
    """G models at their parameters, on fixed examples.

    Args:
        network: the architecture.
        slab: ``[G, P]``.
        x: ``[G, N, T, C_in]`` examples.
        mode: of the pass; what couples examples or moves buffers is not meant.

    Attributes:
        logits: ``[G, N, C]`` float32.
        rules: one a node.
    """

    def __init__(self, network: Network, slab: Tensor, x: Tensor, mode: Mode) -> None:
        self.network = network
        self.rules: list[TangentRule] = []
        self._mode, self._p = mode, network.views(slab)
        self._saved: list[object] = []
        needs = network.graph.needs

        def visit(index: int, op: Op, xs: Values) -> Tensor:
            y, kept = op.run(self._p, xs, mode, needs[index])
            self.rules.append(rule_for(op, self._p, xs, mode))
            self._saved.append(kept)
            return y

        self.logits = wide(network.graph.forward(x, visit).flatten(2))

    def gradient(self, dlogits: Tensor) -> Tensor:
        """Return the gradient ``[G, D]``, given that of the logits ``[G, N, C]``.

        It also readies :meth:`pull` for this gradient; call it once.
        """
        grads: dict[str, Tensor] = {}

        def visit(index: int, op: Op, d: Tensor, needs: tuple[bool, ...]) -> Gradients:
            self.rules[index].prepare(d)
            dxs, own = op.pull(self._p, self._saved[index], d, self._mode, needs)
            _gather(grads, own)
            return dxs

        network = self.network
        network.graph.backward(network.output_gradient(dlogits), visit)
        self._saved.clear()
        return network.flat_gradient(grads)

    def push(self, v: Tensor) -> Tensor:
        """Return the derivative of the logits ``[G, N, C]`` along ``v [G, D]``."""
        named = self._views(v)

        def visit(index: int, op: Op, dxs: Gradients) -> Tensor | None:
            return self.rules[index].push(named, dxs)

        found = self.network.graph.forward(None, visit)
        if found is None:
            msg = "no parameter moves the output of this network"
            raise ValueError(msg)
        return found.flatten(2)

    def pull(self, v: Tensor, ddlogits: Tensor) -> Tensor:
        """Return the derivative of the gradient ``[G, D]`` along the direction last pushed.

        Args:
            v: the direction ``[G, D]``.
            ddlogits: derivative ``[G, N, C]`` of the gradient of the logits.
        """
        named = self._views(v)
        grads: dict[str, Tensor] = {}

        def visit(index: int, op: Op, dd: Tensor, needs: tuple[bool, ...]) -> Gradients:
            dxs, own = self.rules[index].pull(named, dd, needs)
            _gather(grads, own)
            return dxs

        network = self.network
        network.graph.backward(network.output_gradient(ddlogits), visit)
        return network.flat_gradient(grads)

    def _views(self, v: Tensor) -> dict[str, Tensor]:
        return {
            s.name: v[:, s.offset : s.stop].view(v.shape[0], *s.shape)
            for s in self.network.layout.segments
            if s.role != BUFFER
        }


def _gather(grads: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    for key, grad in own.items():
        grads[key] = grads[key] + grad if key in grads else grad
