"""Gradients of single examples: one walk forward, then one back for each gradient of the logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from zoo.architectures.conv import Conv
from zoo.architectures.example_gradients import ExampleGradients, Written
from zoo.architectures.mode import Gradients, Mode, Params, Values, wide
from zoo.architectures.network import Network
from zoo.architectures.op import Op

__all__ = ["chunk_size", "example_gradients"]

#: Values of all patches of a model and chunk that stay in a core's cache, roughly.
_CACHE_VALUES = 1 << 18

#: Values of a model's gradients of single examples, where they are written out.
_WRITTEN_VALUES = 1 << 21
#: Patches serve three times: for the output, for the gradients, and for the gradient of the input.
_MODE = Mode(training=False, conv="im2col")


def chunk_size(network: Network, most: int) -> int:
    """Return how many examples :func:`example_gradients` had best be given at once."""
    if network.bits_vary:  # whose gradients are written out
        return max(1, min(most, _WRITTEN_VALUES // max(network.layout.params, 1)))
    patches = sum(op.out_shape().positions * op.fan_in for op in network.ops_of(Conv))
    return most if not patches else min(most, max(8, _CACHE_VALUES // patches))


def example_gradients(
    network: Network,
    p: Params,
    x: Tensor,
    output_gradients: Callable[[Tensor], Sequence[Tensor]],
    collect: Callable[[ExampleGradients], None],
) -> None:
    """Collect the gradients of single examples, op by op, in eval mode.

    Args:
        network: the architecture.
        p: every tensor, each ``[G, *shape]``.
        x: ``[G, N, T, C_in]`` examples in the stacked form.
        output_gradients: from the logits ``[G, N, C]`` makes the gradients of what is asked by
            each example's logits, of the same shape, one for each walk.
        collect: called with every op's gradients on every walk; with those of tied tensors when
            all of their ops have been met.
    """
    graph = network.graph
    entered: list[Values] = []
    saved: list[object] = []

    def forward(index: int, op: Op, xs: Values) -> Tensor:
        y, kept = op.run(p, xs, _MODE, graph.needs[index])
        entered.append(xs)
        saved.append(kept)
        return y

    tied = _tied(network)
    walks = output_gradients(wide(graph.forward(x, forward).flatten(2)))
    for walk, dlogits in enumerate(walks):
        last = walk == len(walks) - 1
        sums: dict[str, Tensor] = {}

        def backward(
            index: int, op: Op, d: Tensor, needs: tuple[bool, ...], *,
            last: bool = last, sums: dict[str, Tensor] = sums,
        ) -> Gradients:  # fmt: skip
            kept = saved[index]
            if index in tied:
                written = op.written_gradients(p, entered[index], d, _MODE).gradients
                for key, grad in written.items():
                    sums[key] = sums[key] + grad if key in sums else grad
            elif op.params():
                collect(op.example_gradients(p, entered[index], kept, d, _MODE))
            if last:
                saved[index] = None
            return op.pull_inputs(p, kept, d, _MODE, needs) if any(needs) else (None,) * len(needs)

        graph.backward(network.output_gradient(dlogits), backward)
        if sums:
            collect(Written(sums))


def _tied(network: Network) -> frozenset[int]:
    """Return the nodes that have a tensor in common with another node."""
    keys = [
        [node.op.key(param.suffix) for param in node.op.params()] for node in network.graph.nodes
    ]
    count = Counter(key for own in keys for key in own)
    return frozenset(i for i, own in enumerate(keys) if any(count[key] > 1 for key in own))
