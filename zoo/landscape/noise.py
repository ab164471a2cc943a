"""Gradient noise: tr Σ of single-example gradients and |G|², apart.

McCandlish et al. 2018 (arXiv 1812.06162). Their ratio, the noise scale, is left to the reader: |G|²
estimated without bias is often negative once a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.conv import KERNEL, Conv
from zoo.architectures.linear import Linear
from zoo.architectures.network import Network
from zoo.architectures.op import Op, Params
from zoo.landscape.base import MODEL_METRICS, Block, Column, ModelMetric
from zoo.landscape.hessian import Hessian
from zoo.landscape.stacked import EVAL, Probe, logit_gradient

__all__ = ["gradient_noise", "op_gradients", "squared_norms"]


def op_gradients(op: Op, p: Params, saved: Any, d: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Return the gradients of single examples with regard to an op's parameters, in factors.

    Args:
        op: the op; what couples examples (batch norm in training) is not meant.
        p: parameters.
        saved: what the op's forward pass kept.
        d: ``[G, N, T, C]`` gradient of each example's own output.

    Returns:
        For each parameter (left ``[G, N, T, A]``, right ``[G, N, T, B]``): the gradient of an
        example is Σ_t left ⊗ right; or (gradient ``[G, N, A]``, None).
    """
    if isinstance(op, Linear):
        rows, _ = saved
        return [(d, rows.unsqueeze(2)), (d.squeeze(2), None)]
    if isinstance(op, Conv):
        return [(d, _patches(op, saved[0], d)), (d.sum(2), None)]
    xhat = saved[0].reshape(d.shape)
    found: list[tuple[Tensor, Tensor | None]] = [((d * xhat).sum(2), None)]
    if any(param.suffix == "bias" for param in op.params()):
        found.append((d.sum(2), None))
    return found


def _patches(op: Conv, images: Tensor, d: Tensor) -> Tensor:
    """Return what each output position sees, ``[G, N, T, 3^axes · in]``, in any fixed order."""
    G, N, T = d.shape[:3]
    flat = op.axes == 1
    grid = images.reshape(N * G, op.inputs.channels, *((1,) if flat else ()), *op.inputs.spatial)
    seen = F.unfold(
        grid,
        (1, KERNEL) if flat else KERNEL,
        padding=(0, 1) if flat else 1,
        stride=(1, op.stride) if flat else op.stride,
    )
    return seen.view(N, G, -1, T).permute(1, 0, 3, 2)


def squared_norms(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return |∇ loss_i|² of every example ``[G, N]``, as float64.

    A linear layer's gradient is an outer product, whose norm is the product of the norms; a
    convolution's is summed over positions first.
    """
    G = slab.shape[0]
    p = network.views(slab)
    z, saved = network.forward(p, probe.inputs(G), EVAL)
    ones = torch.ones_like(probe.weight).expand(G, -1)
    d: Tensor | None = logit_gradient(torch.softmax(z, -1), probe.labels(G), ones).unsqueeze(2)
    total = torch.zeros(G, probe.size, dtype=torch.float64, device=slab.device)
    first = next(i for i, op in enumerate(network.ops) if op.params())
    for index in range(len(network.ops) - 1, first - 1, -1):
        assert d is not None
        op = network.ops[index]
        if op.params():
            for left, right in op_gradients(op, p, saved[index], d):
                total += _squares(left, right)
        d, _ = op.backward(p, saved[index], d, EVAL, need_dx=index > first)
    return total


def _squares(left: Tensor, right: Tensor | None) -> Tensor:
    if right is None:
        return left.double().square().sum(-1)
    if left.shape[2] == 1:
        return (left.double().square().sum(-1) * right.double().square().sum(-1)).squeeze(2)
    G, N = left.shape[:2]
    product = torch.bmm(left.flatten(0, 1).mT, right.flatten(0, 1))
    return product.double().square().sum((1, 2)).view(G, N)


def gradient_noise(block: Block, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return tr Σ and |G|² of the training loss, both unbiased, with standard errors.

    With n examples, mean gradient ḡ and single gradients g_i: tr Σ = Σ|g_i − ḡ|²/(n − 1) and
    |G|² = |ḡ|² − tr Σ/n. Errors: the spread of |g_i − ḡ|², and 2·sd(g_i·ḡ)/√n.
    """
    probe = block.train
    hessian = Hessian(block.network, block.slab, probe)
    mean = hessian.gradient.double().square().sum(1)
    along = hessian.loss_tangent(hessian.gradient).double()
    squares = squared_norms(block.network, block.slab, probe)
    there = (probe.weight > 0).expand(block.models, -1)
    n = there.sum(1).double()
    away = torch.where(there, squares - 2 * along + mean[:, None], 0.0)
    trace = away.sum(1) / (n - 1)
    away_sd = _spread(away, there, n)
    return {
        "grad_noise_trace": trace,
        "grad_noise_trace_se": away_sd / n.sqrt(),
        "grad_square": mean - trace / n,
        "grad_square_se": 2 * _spread(along, there, n) / n.sqrt(),
    }


def _spread(values: Tensor, there: Tensor, n: Tensor) -> Tensor:
    """Return the standard deviation ``[G]`` over the examples that count."""
    kept = torch.where(there, values, 0.0)
    mean = kept.sum(1) / n
    return (torch.where(there, (values - mean[:, None]).square(), 0.0).sum(1) / (n - 1)).sqrt()


MODEL_METRICS.register("noise")(
    ModelMetric(
        columns=(
            Column("grad_noise_trace", "trace of the covariance of single-example gradients"),
            Column("grad_noise_trace_se", "its standard error"),
            Column("grad_square", "|G|² of the true gradient, unbiased, may be negative"),
            Column("grad_square_se", "its standard error"),
        ),
        compute=gradient_noise,
        passes=8.0,
    )
)
