"""Fresh BatchNorm statistics for weights that were never trained: points of curves and chords.

Interpolated weights with interpolated statistics collapse (Jordan et al. 2023, arXiv 2211.08403).
"""

from __future__ import annotations

from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.network import Network
from zoo.architectures.norms.batch import MOMENTUM
from zoo.architectures.op import Mode

__all__ = ["with_fresh_statistics"]


def with_fresh_statistics(network: Network, slab: Tensor, x: Tensor) -> Tensor:
    """Return the slab with running statistics estimated anew on given examples.

    One pass in training mode over all of them as one batch gives new = (1 − α) old + α batch, of
    which the batch's own mean and unbiased variance are taken.

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
    mode = Mode(training=True, conv="grouped")
    p = network.views(slab)
    network.forward(p, x.expand(slab.shape[0], *x.shape[1:]), mode)
    fresh = slab.clone()
    for s in layout.segments:
        if s.role == BUFFER and s.name in mode.new_buffers:
            old = p[s.name].double()
            own = old + (mode.new_buffers[s.name].double() - old) / MOMENTUM
            fresh[:, s.offset : s.stop] = own.float().flatten(1)
    return fresh
