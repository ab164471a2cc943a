"""Gradient noise: tr Σ of single-example gradients and |G|², apart.

McCandlish et al. 2018 (arXiv 1812.06162). Their ratio, the noise scale, is left to the reader: |G|²
estimated without bias is often negative once a model is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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

__all__ = ["gradient_noise", "op_gradients", "squared_norms", "walk_back"]

#: Examples a walk: single gradients take memory.
_CHUNK = 128


def op_gradients(op: Op, p: Params, x: Tensor, d: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Return the gradients of single examples with regard to an op's parameters, in factors.

    Args:
        op: the op; what couples examples (batch norm in training) is not meant.
        p: parameters.
        x: the op's input ``[G, N, T, C]``.
        d: ``[G, N, T', C']`` gradient of each example's own output.

    Returns:
        For each parameter (left ``[G, N, T, A]``, right ``[G, N, T, B]``): the gradient of an
        example is Σ_t left ⊗ right; or (gradient ``[G, N, A]``, None).
    """
    if getattr(op, "transform_name", "none") == "none":
        if type(op) is Linear:
            return [(d, x), (d.squeeze(2), None)]
        if type(op) is Conv:
            return [(d, _patches(op, x)), (d.sum(2), None)]
    return [(gradient, None) for gradient in _one_by_one(op, p, x, d)]


def _one_by_one(op: Op, p: Params, x: Tensor, d: Tensor) -> list[Tensor]:
    """Return ``[G, N, size]`` gradients: every example as a model of its own."""
    G, N = x.shape[:2]
    own = {op.key(param.suffix): p[op.key(param.suffix)] for param in op.params()}
    many = {key: value.repeat_interleave(N, 0) for key, value in own.items()}
    _, saved = op.forward(many, x.flatten(0, 1).unsqueeze(1), EVAL)
    _, grads = op.backward(many, saved, d.flatten(0, 1).unsqueeze(1), EVAL, need_dx=False)
    return [grad.reshape(G, N, -1) for grad in grads.values()]


def _patches(op: Conv, x: Tensor) -> Tensor:
    """Return what each output position sees, ``[G, N, T, in · 3^axes]``, in any fixed order."""
    G, N, _, C = x.shape
    flat = op.axes == 1
    grid = x.mT.reshape(G * N, C, *((1,) if flat else ()), *op.inputs.spatial)
    seen = F.unfold(
        grid,
        (1, KERNEL) if flat else KERNEL,
        padding=(0, 1) if flat else 1,
        stride=(1, op.stride) if flat else op.stride,
    )
    return seen.mT.view(G, N, seen.shape[2], -1)


def walk_back(
    network: Network, slab: Tensor, x: Tensor, logit_gradients: Callable[[Tensor], Iterable[Tensor]]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the factors of :func:`op_gradients` for every op and every gradient of the logits.

    Args:
        network: the architecture.
        slab: ``[G, P]``.
        x: ``[G, N, T, C_in]``.
        logit_gradients: from logits ``[G, N, C]`` makes gradients of the same shape, one for each
            walk.
    """
    p = network.views(slab)
    inputs, saved = [], []
    for op in network.ops:
        inputs.append(x)
        x, kept = op.forward(p, x, EVAL)
        saved.append(kept)
    first = next(i for i, op in enumerate(network.ops) if op.params())
    for dz in logit_gradients(x.squeeze(2).float()):
        d: Tensor | None = dz.unsqueeze(2)
        for index in range(len(network.ops) - 1, first - 1, -1):
            assert d is not None
            op = network.ops[index]
            if op.params():
                yield from op_gradients(op, p, inputs[index], d)
            d, _ = op.backward(p, saved[index], d, EVAL, need_dx=index > first)


def squared_norms(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return |∇ loss_i|² of every example ``[G, N]``, as float64.

    A linear layer's gradient is an outer product, whose norm is the product of the norms; a
    convolution's is summed over positions first.
    """
    G = slab.shape[0]
    found = []
    for start in range(0, probe.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        x, labels = probe.inputs(G)[:, part], probe.labels(G)[:, part]
        total = torch.zeros(labels.shape, dtype=torch.float64, device=slab.device)
        one = torch.ones(labels.shape, device=slab.device)
        walk = walk_back(
            network,
            slab,
            x,
            lambda z, y=labels, w=one: [logit_gradient(torch.softmax(z, -1), y, w)],  # type: ignore[misc]
        )
        for left, right in walk:
            total += _squares(left, right)
        found.append(total)
    return torch.cat(found, 1)


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
