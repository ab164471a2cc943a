"""One call of every operation, in the shapes and flags that training uses."""

from __future__ import annotations

import torch

from zoo.architectures import build
from zoo.data import DataShape
from zoo.kernels.activation import FUSED
from zoo.kernels.batch_norm import BatchNormForm, batch_norm, batch_norm_backward
from zoo.kernels.conv import conv, conv_backward
from zoo.kernels.cross_entropy import TILE, LossTerms, softmax_cross_entropy
from zoo.kernels.dropout import dropout
from zoo.kernels.gather import MOVES, Draw, Reading, gather
from zoo.kernels.ghost_norm import affine_square_norms, linear_square_norms, sequence_square_norms
from zoo.kernels.newton_schulz import newton_schulz
from zoo.kernels.norm import Affine, NormSpec, norm, norm_backward
from zoo.kernels.optimizer_step import Update
from zoo.optim import OPTIMIZERS
from zoo.optim.fused import fused_step, has_kernel
from zoo.spec.run import RunSpec

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def floats(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


def entropy_of(G, B, C, *, rich, dtype=torch.float32, form="online"):
    terms = LossTerms(floats(G, B, C), floats(G, B), floats(G)) if rich else LossTerms()
    z, labels = floats(G, B, C, dtype=dtype), torch.zeros(G, B, dtype=torch.int64)
    softmax_cross_entropy(z, labels, floats(G), terms=terms, scores=rich, form=form)


@case
def cross_entropy_of_ten_classes():
    entropy_of(4, 32, 10, rich=False)
    entropy_of(4, 32, 10, rich=True)
    entropy_of(4, 32, 10, rich=False, dtype=torch.bfloat16)


@case
def cross_entropy_of_many_classes():
    entropy_of(4, 32, TILE * 4, rich=True)
    entropy_of(4, 32, TILE * 4, rich=True, form="two_pass")


@case
def ghost_norms():
    linear_square_norms(floats(4, 32, 64), floats(4, 32, 128))
    sequence_square_norms(floats(4, 32, 64, 144), floats(4, 32, 64, 32))
    sequence_square_norms(floats(4, 32, 16, 144), floats(4, 32, 16, 32))
    affine_square_norms(floats(4, 32, 64, 32), floats(4, 32, 64, 32))


@case
def dropout_of_hidden_values():
    seeds = torch.zeros(4, dtype=torch.int64)
    for dtype in (torch.float32, torch.bfloat16):
        dropout(floats(4, 32, 1, 128, dtype=dtype), floats(4), seeds, seeds)


@case
def gather_of_pictures():
    ints = torch.zeros(4, dtype=torch.int64)
    labels, ids = torch.zeros(4, 100, dtype=torch.int64), torch.zeros(4, 32, dtype=torch.int64)
    for name in MOVES:
        draw = Draw(name, ints, ints, floats(4))
        x = torch.zeros(100, 3, 32, 32, dtype=torch.uint8)
        how = Reading(mean=floats(3), scale=floats(3), draw=draw, flatten=False)
        gather(x, labels, ids, how)
    gather(floats(100, 64), labels, ids, Reading(flatten=True, dtype=torch.bfloat16))


@case
def optimizer_steps():
    for name in OPTIMIZERS.names():
        for more in ({}, {"clip_norm": 1.0, "decay_mask": "kernels"}):
            step_of(name, more)


def step_of(name, more):
    optimizer = OPTIMIZERS[name]
    run = RunSpec(optimizer=name, width=64, depth=2, data="digits", norm="layer", **more)
    layout = build(run, DataShape((1, 8, 8), 10)).layout
    nesterov = "nesterov" in optimizer.fields
    key = {"has_clip_norm": bool(more), "decay_mask": run.decay_mask, "nesterov": nesterov}
    slabs = [floats(4, layout.trained) for _ in range(2 + len(optimizer.moments))]
    table = floats(len(optimizer.names(clipped=bool(more))), 4, 1)
    active = torch.ones(4, dtype=torch.bool)
    if has_kernel(optimizer):
        fused_step(optimizer, Update(*slabs[:2], slabs[2:], table, active), key, layout)


@case
def newton_schulz_of_small_matrices():
    newton_schulz(floats(4, 32, 128))
    newton_schulz(floats(4, 64, 16))


@case
def convolutions():
    for dtype in (torch.float32, torch.bfloat16):
        for spatial, inputs, outputs, stride in (((16, 16), 32, 64, 1), ((28,), 3, 16, 2)):
            T = torch.Size(spatial).numel()
            x = floats(4, 32, T, inputs, dtype=dtype)
            weight = floats(4, outputs, inputs, *(3,) * len(spatial), dtype=dtype)
            y = conv(x, weight, floats(4, outputs, dtype=dtype), spatial, stride)
            conv_backward(x, weight, y, spatial, stride, need_dx=True)


@case
def norms():
    for B, T, C in ((32, 1, 128), (32, 256, 32)):
        for kind, groups, parts in (
            ("layer", 1, "weight bias"), ("layer", 4, "weight bias"), ("rms", 1, "weight"),
            ("evonorm_s0", 4, "weight bias gate"), ("layer", 1, ""),
        ):  # fmt: skip
            norm_of(NormSpec(kind, groups, "relu"), parts.split(), B, T, C)
    for name in FUSED:
        norm_of(NormSpec(activation=name), ["weight", "bias"], 32, 1, 128)


def norm_of(spec, parts, B, T, C):
    x = floats(4, B, T, C)
    affine = Affine(**{name: floats(4, C) for name in parts})
    _, saved = norm(x, affine, spec)
    norm_backward(x, affine, spec, saved, x)
    true = torch.ones(4, dtype=torch.int32)
    if spec.groups == 1 and spec.activation == "relu":
        norm(x, affine, spec, true_channels=true)
        norm_backward(x, affine, spec, saved, x, true_channels=true)


@case
def batch_norms():
    for B, T, C, virtual in ((32, 1, 128, 32), (32, 256, 32, 8)):
        for valid in (None, torch.ones(4, B, dtype=torch.bool)):
            x, own = floats(4, B, T, C), BatchNormForm(virtual, "relu", valid=valid)
            w = floats(4, C)
            _, _, saved = batch_norm(x, w, w, (w, w), floats(4), own)
            batch_norm_backward(x, w, w, saved, x, own)
