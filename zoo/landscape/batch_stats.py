"""Fresh BatchNorm statistics for weights that were never trained: points of curves and chords.

Interpolated weights with interpolated statistics collapse (Jordan et al. 2023, arXiv 2211.08403).
"""

from __future__ import annotations

from torch import Tensor

from zoo.architectures.network import Network
from zoo.architectures.op import Op, Values
from zoo.landscape.stacked import EVAL

__all__ = ["with_fresh_statistics"]


def with_fresh_statistics(network: Network, slab: Tensor, x: Tensor) -> Tensor:
    """Return the slab with running statistics estimated anew on given examples.

    Layer by layer: mean and unbiased variance of what reaches a norm, over all examples and
    positions, are put in its place before the next layer is computed, in evaluation mode.

    Args:
        network: the architecture.
        slab: ``[G, P]``.
        x: ``[1 or G, n, T, C_in]`` training examples.

    Returns:
        ``[G, P]``; the slab itself where the network has no running statistics.
    """
    layout = network.layout
    if layout.trained == layout.params:
        return slab
    fresh = slab.clone()
    p = network.views(fresh)

    def before(index: int, op: Op, xs: Values) -> None:
        for key, values in op.fresh_statistics(p, xs).items():
            p[key].copy_(values)

    network.trace(p, x.expand(slab.shape[0], *x.shape[1:]), EVAL, before=before)
    return fresh
