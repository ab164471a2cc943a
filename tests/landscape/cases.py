"""What the landscape tests share: networks of every kind, rows, probes and dense references."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import functional_call

from zoo.architectures import ACTIVATIONS, NORMS, build, initial_row, row_to_state_dict
from zoo.architectures.weights import WEIGHT_TRANSFORMS
from zoo.data import DataShape
from zoo.errors import SpecError
from zoo.landscape.stacked import Probe
from zoo.objectives import OBJECTIVES
from zoo.seeds import Stream, normal, uniform
from zoo.spec.run import RunSpec

LOSS = OBJECTIVES["cross_entropy"]("class")

SHAPE = (1, 5, 5)
CLASSES = 3
EXAMPLES = 24


def network_of(**fields):
    run = RunSpec(data="digits", batch_size=16, **{"width": 4, **fields})
    return build(run, DataShape(SHAPE, CLASSES))


def kinds():
    """Every norm, activation and weight transform, in an mlp and in a cnn where they fit."""
    found = {}
    for architecture in ("mlp", "cnn"):
        fields = [{"norm": norm} for norm in NORMS]
        fields += [{"activation": name} for name in ACTIVATIONS]
        fields += [{"weight_transform": name} for name in WEIGHT_TRANSFORMS]
        for own in fields:
            case = {"architecture": architecture, "depth": 2, **own}
            if own.get("norm") in ("group", "evonorm_s0"):
                case["norm_groups"] = 2
                case["width"] = 8
            try:
                network_of(**case)
            except SpecError:
                continue
            found["-".join([architecture, *own.values()])] = case
    return found


def rows_of(network, count, *, seed=0):
    """Rows that are not at initialisation: every parameter moved, statistics positive."""
    rows = []
    for i in range(count):
        row = initial_row(network.layout, init="default", scale=1.0, seed=seed + i)
        row = row + 0.3 * normal(seed + i, Stream.SAMPLE, 7, len(row)).astype(np.float32)
        for s in network.layout.segments:
            if s.name.endswith("running_var"):
                row[s.offset : s.stop] = np.abs(row[s.offset : s.stop]) + 0.5
        rows.append(row)
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def examples_of(count=EXAMPLES, *, seed=1):
    raw = normal(seed, Stream.SAMPLE, 8, count * int(np.prod(SHAPE))).astype(np.float32)
    labels = (uniform(seed, Stream.SAMPLE, 9, count) * CLASSES).astype(np.int64)
    return torch.from_numpy(raw.reshape(count, *SHAPE)), torch.from_numpy(labels)


def probe_of(network, x, y):
    n = len(y)
    return Probe(
        network.inputs(x)[None],
        y[None],
        torch.full((1, n), 1 / n),
        LOSS,
    )


class NormByHand(torch.nn.Module):
    """A layer, group or instance norm as plain arithmetic, with the parameters of torch's own.

    torch's fused norms have had wrong second derivatives (2.13 and 2.15: forward over reverse of a
    layer norm with an affine map: off by 19 % in one small net), so no oracle rests on them.
    """

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.groups = getattr(norm, "num_groups", None)
        if self.groups is None:
            self.groups = norm.num_features if hasattr(norm, "num_features") else 1

    def forward(self, x):
        z = x.reshape(len(x), self.groups, -1)
        z = z - z.mean(2, keepdim=True)
        z = (z / (z.square().mean(2, keepdim=True) + self.eps).sqrt()).reshape(x.shape)
        if self.weight is None:
            return z
        shape = (-1, *(1,) * (x.dim() - 2))
        return z * self.weight.view(shape) + self.bias.view(shape)


FUSED = (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.InstanceNorm1d, torch.nn.InstanceNorm2d)


def without_fused_norms(module):
    """Return the module with every fused norm of torch's replaced by :class:`NormByHand`."""
    for name, child in module.named_children():
        if isinstance(child, FUSED):
            setattr(module, name, NormByHand(child))
        else:
            without_fused_norms(child)
    return module


def plain_loss(network, row, x, y):
    """Loss of one model as a float64 function of its trained parameters, through the module."""
    layout = network.layout
    module = without_fused_norms(network.module().double())
    state = {k: v.double() for k, v in row_to_state_dict(layout, row.numpy()).items()}

    def loss(w):
        moved = dict(state)
        for s in layout.segments:
            if s.stop <= layout.trained:
                moved[s.name] = w[s.offset : s.stop].view(s.shape)
        z = functional_call(module, moved, (x.double(),))
        return torch.nn.functional.cross_entropy(z, y)

    return loss, row[: layout.trained].double()


def dense_hessian(network, row, x, y):
    """One model's Hessian, float64, by torch's double backward of plain arithmetic."""
    loss, w = plain_loss(network, row, x, y)
    with torch.enable_grad():
        return torch.autograd.functional.hessian(loss, w)
