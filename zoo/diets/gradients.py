"""Norms of per-example gradients of stacked networks, without any per-example gradient.

One forward and one backward pass over the logits' gradients give each layer's activations and
output gradients (:mod:`zoo.architectures.per_example`); :mod:`zoo.kernels.ghost_norm` makes norms
of them. What is no plain linear map takes its batch as models instead, which is exact too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.architectures import Network
from zoo.architectures.example_gradients import ExampleGradients
from zoo.architectures.op import Mode, Op, Params, Values
from zoo.architectures.per_example import example_gradients
from zoo.errors import TrainError
from zoo.objectives import Objective

__all__ = ["LAST_LAYER", "gradient_norms", "last_features"]

LAST_LAYER = "it is a module of your own; take a score of outputs or whole gradients: grand, el2n"


def last_features(network: Network, params: Params, x: Tensor) -> Tensor:
    """Return the inputs ``[G, B, F]`` of the last layer, in eval mode; x is ``[G, B, T, C]``.

    Raises:
        TrainError: the network has no last linear layer that is known.
    """
    if not network.head.reads_features:
        msg = f"the last layer of {network.family!r} is not known: {LAST_LAYER}"
        raise TrainError(msg)
    entered: list[Tensor] = []

    def before(index: int, op: Op, xs: Values) -> None:
        if op is network.head:
            entered[:] = xs

    network.trace(params, x, Mode(training=False, conv="grouped"), before=before)
    return entered[0].flatten(2).float()


def gradient_norms(
    network: Network, objective: Objective, params: Params, x: Tensor, targets: Tensor
) -> Tensor:
    """Return ‖∇_w ℓ(x_i, y_i)‖₂ over all trained parameters, in eval mode.

    Args:
        network: the architecture.
        objective: whose loss ℓ is.
        params: every tensor, each ``[G, *shape]``.
        x: ``[G, B, T, C_in]`` examples in the stacked form.
        targets: ``[G, B]`` labels or ``[G, B, C]`` values.

    Returns:
        ``[G, B]`` float32.
    """
    squares: list[Tensor] = []

    def own_losses(z: Tensor) -> list[Tensor]:
        return [objective.gradient(z, targets)]

    def collect(item: ExampleGradients) -> None:
        squares.append(item.square_norms())

    example_gradients(network, params, x, own_losses, collect)
    return torch.stack(squares).sum(0).sqrt()
