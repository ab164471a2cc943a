"""What the landscape tests share: networks of every kind, rows, probes and dense references."""

from __future__ import annotations

import numpy as np
import torch
from torch.func import functional_call

from zoo.architectures import ACTIVATIONS, NORMS, build, initial_row, row_to_state_dict
from zoo.architectures.weights import WEIGHT_TRANSFORMS
from zoo.errors import SpecError
from zoo.landscape.stacked import Probe
from zoo.seeds import Stream, normal, uniform
from zoo.spec.run import RunSpec

SHAPE = (1, 5, 5)
CLASSES = 3
EXAMPLES = 24


def network_of(**fields):
    run = RunSpec(data="digits", batch_size=16, **{"width": 4, **fields})
    return build(run, SHAPE, CLASSES)


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
    return Probe(network.inputs(x)[None], y[None], torch.full((1, n), 1 / n))


def plain_loss(network, row, x, y):
    """Loss of one model as a float64 function of its trained parameters, through the module."""
    layout = network.layout
    module = network.module().double()
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
    """One model's Hessian, float64, by torch's own double backward.

    Not ``torch.func.hessian``: under its vmap layer and instance norm have a wrong second
    derivative (torch 2.13; finite differences side with this one).
    """
    loss, w = plain_loss(network, row, x, y)
    with torch.enable_grad():
        return torch.autograd.functional.hessian(loss, w)
